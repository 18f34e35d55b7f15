/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM that is restored and stands. See standing.h. */
#include <stdio.h>

#include <insula/base.h>
#include <insula/log.h>

#include "restore.h"
#include "standing.h"
#include "supervisor/control/control.h"
#include "supervisor/vm.h"

#define SECOND_NS 1000000000ull

void standing_begin(struct vm *vm)
{
	vm->standing.stands = true;
	if (vm->conf->vm_name)
		standing_take(vm, vm->conf->vm_name, 0);
	if (vm_has_agent(vm))
		exec_hold(vm, true);
}

bool standing_is(const struct vm *vm)
{
	return vm->standing.stands;
}

void standing_take(struct vm *vm, const char *name, unsigned timeout)
{
	snprintf(vm->standing.name, sizeof(vm->standing.name), "%s", name);
	vm->standing.timeout = timeout;
}

void standing_goes_on(struct vm *vm)
{
	struct standing *s = &vm->standing;
	struct err e;

	if (!s->stands)
		return;
	s->stands = false;
	s->since_ns = clock_ns();
	if (!restore_tell(vm, s->name, &e))
		return;
	if (vm->conf->new_identity) {
		vm_end(vm, RUN_FAILED, "the guest is not told that it goes on: %s", e.text);
		return;
	}
	log_error("the guest is not told that it goes on: %s", e.text);
	control_event(vm->control, "renewed", NULL, e.text);
	exec_hold(vm, false);
}

unsigned standing_timeout(const struct vm *vm)
{
	return vm->standing.timeout ? vm->standing.timeout : vm->conf->timeout;
}

uint64_t standing_timeout_due(const struct vm *vm)
{
	const struct standing *s = &vm->standing;
	uint64_t from = s->since_ns ? s->since_ns : vm->started_ns;

	return s->stands || !standing_timeout(vm) ? 0 : from + standing_timeout(vm) * SECOND_NS;
}
