/* SPDX-License-Identifier: BSD-2-Clause */
/* What is the same of a VM on every system. See vm_common.h. */
#include <signal.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/snapshot/faults.h"
#include "supervisor/snapshot/restore.h"
#include "vm.h"

const struct vm_config *vm_conf(const struct vm *vm)
{
	return vm->conf;
}

struct loop *vm_loop(struct vm *vm)
{
	return &vm->loop;
}

struct execs *vm_execs(const struct vm *vm)
{
	return (struct execs *)&vm->execs;
}

struct command *vm_command(const struct vm *vm)
{
	return (struct command *)&vm->command;
}

struct control *vm_control(const struct vm *vm)
{
	return vm->control;
}

const char *vm_why(const struct vm *vm)
{
	return vm->end.why;
}

bool vm_is_running(const struct vm *vm)
{
	return vm->running && !vm->ended;
}

bool vm_has_ended(const struct vm *vm)
{
	return vm->ended;
}

uint64_t vm_started_ns(const struct vm *vm)
{
	return vm->started_ns;
}

bool vm_has_vsock(const struct vm *vm)
{
	return vm->conf->vsock.on || vm->conf->command || vm_has_agent(vm);
}

bool vm_has_agent(const struct vm *vm)
{
	return vm->boot.own_initrd && (vm->conf->command || vm->conf->serve);
}

const char *vm_no_agent(const struct vm *vm)
{
	return vm->conf->vsock.vhost
		       ? "this VM has vsock with vhost=on, where every program of the host could "
			 "give an agent orders: it has none"
		       : "this VM does not boot Insula's own initrd, which runs commands and sets "
			 "the clock";
}

int vm_tell(struct vm *vm, enum msg_type t, const void *body, size_t len)
{
	return child_send(&vm->vmm, t, body, len, NULL, 0);
}

const struct vm_cpus *vm_cpus(const struct vm *vm)
{
	return &vm->cpus;
}

int vm_want_cpus(struct vm *vm, unsigned n)
{
	const struct msg_cpus m = {n};

	vm->cpus.requested = n;
	return vm_tell(vm, MSG_CPUS, &m, sizeof(m));
}

int vm_order(struct vm *vm, enum msg_type t)
{
	return vm_tell(vm, t, NULL, 0);
}

static struct device *first_of(const struct vm *vm, const struct device_class *class)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->device[i].class == class)
			return (struct device *)&vm->device[i];
	}
	return NULL;
}

struct device *vm_vsock(const struct vm *vm)
{
	return first_of(vm, &device_vsock);
}

struct device *vm_balloon(const struct vm *vm)
{
	return first_of(vm, &device_balloon);
}

struct device *vm_added(const struct vm *vm)
{
	return first_of(vm, &device_mem);
}

bool vm_vsock_died(const struct vm *vm)
{
	const struct device *d = vm_vsock(vm);

	return !d || d->restart.failed || child_ended(&d->child);
}

struct device *vm_device_named(struct vm *vm, const char *name)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct device *d = &vm->device[i];

		if (!strcmp(d->desc.name, name))
			return device_is_empty(d) ? NULL : d;
	}
	return NULL;
}

enum vm_vsock vm_vsock_state(const struct vm *vm, unsigned *generation)
{
	const struct device *d = vm_vsock((struct vm *)vm);

	*generation = d ? d->restart.total : 0;
	return !d                              ? VM_VSOCK_NONE
	       : d->restart.failed             ? VM_VSOCK_DEAD
	       : d->child.state != CHILD_READY ? VM_VSOCK_AWAY
					       : VM_VSOCK_SERVES;
}

/* ---- start ---- */

unsigned vm_word_start(const struct vm *vm, int hypervisor, struct msg_start_vmm *m,
		       int fds[MSG_MAX_FDS])
{
	unsigned n = 0;

	*m = (struct msg_start_vmm){.head = {.version = START_VERSION,
					     .tag = START_TAG_VMM,
					     .log_level = log_most(),
					     .mem = vm->memmap},
				    .ncpus = config_vcpus(vm->conf),
				    .ncpus_in = vm->conf->cpus,
				    .ndevices = vm->ndevices,
				    .flags = vm->conf->mem_huge ? VMM_HUGEPAGES : 0};
	if (vm->conf->cpus_max)
		m->flags |= VMM_CPUS;
	if (config_may_assign(vm->conf))
		m->flags |= VMM_ASSIGNS;
	if (standing_is(vm))
		m->flags |= VMM_PAUSED;
	m->epc = vm->epc;
	random_bytes(m->genid, sizeof(m->genid));
	random_bytes(m->clock, sizeof(m->clock));
	memcpy(m->cmdline, vm->boot.cmdline, sizeof(m->cmdline));
	if (hypervisor >= 0) {
		m->head.slot[n] = START_HYPERVISOR;
		fds[n++] = hypervisor;
	}
	m->head.slot[n] = START_MEMORY;
	fds[n++] = vm->mem;
	if (vm->conf->restoring) {
		m->flags |= VMM_RESTORE;
		m->head.slot[n] = START_STATE;
		fds[n++] = restore_records(vm);
	} else {
		m->head.slot[n] = START_KERNEL;
		fds[n++] = vm->boot.kernel;
	}
	if (vm->epc.size) {
		m->head.slot[n] = START_EPC;
		fds[n++] = vm->epc_fd;
	}
	if (faults_device(vm) >= 0) {
		m->head.slot[n] = (uint8_t)faults_role(vm);
		fds[n++] = faults_device(vm);
	}
	for (unsigned i = 0; i < vm->boot.ninitrds; i++) {
		m->head.slot[n] = START_INITRD;
		fds[n++] = vm->boot.initrd[i];
	}
	m->head.nslots = n;
	return n;
}

/* ---- ends ---- */

void vm_stop(struct vm *vm, const char *reason, int status, bool hard)
{
	vm->hard |= hard;
	if (!vm->ended)
		vm->reason = reason;
	vm_end(vm, status, "%s", "");
}

void vm_quit(struct vm *vm)
{
	vm_end(vm, vm->conf->command ? RUN_SIGNAL + SIGINT : 0, "%s", "");
}
