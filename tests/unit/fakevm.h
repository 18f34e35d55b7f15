/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM with one device, random numbers, whose processes are none (fakechild.h). Included once in a
 * test, which has config_free(&conf) to call when it is through.
 */
#ifndef TEST_FAKEVM_H
#define TEST_FAKEVM_H

#include <insula/base.h>
#include <insula/log.h>

#include "fakechild.h"
#include "supervisor/vm.h"

static struct vm vm;
static struct vm_config conf;
static struct device *const rng = &vm.device[0];

/* Made, and nothing started. `prog`: of the log. */
static void fakevm_make(const char *prog)
{
	memset(fakes, 0, sizeof(fakes));
	memset(&vm, 0, sizeof(vm));
	config_init(&conf);
	log_setup(prog, LOG_LVL_ERROR);
	vm.conf = &conf;
	vm.started_ns = clock_ns();
	vm.ndevices = 1;
	rng->class = &device_rng;
	rng->back.conf = &conf;
	snprintf(rng->desc.name, sizeof(rng->desc.name), "rng");
	rng->desc.answer_slot = DEVICE_NO_SLOT;
	exec_init(&vm.execs);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		vm.execs.place[i].child = &vm.exec[i];
	command_init(&vm.command);
}

/* insula-vmm and the device's helper are there, and have said nothing. */
static void fakevm_start(void)
{
	vm_own_children(&vm);
	child_name(&vm.vmm, "insula-vmm", "");
	child_name(&rng->child, "insula-rng", "rng");
	fake_spawn(&vm.vmm);
	fake_spawn(&rng->child);
}

#endif
