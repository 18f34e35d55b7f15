/* SPDX-License-Identifier: BSD-2-Clause */
/* What is the same of a VM on every system. See vm_common.h. */
#include <signal.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "vm_os.h"

const struct vm_config *vm_conf(const struct vm *vm)
{
	return vm->conf;
}

struct execs *vm_execs(const struct vm *vm)
{
	return (struct execs *)&vm->execs;
}

struct command *vm_command(struct vm *vm)
{
	return &vm->command;
}

struct control *vm_control(const struct vm *vm)
{
	return vm->control;
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

bool vm_has_agent(const struct vm *vm)
{
	return vm->boot.own_initrd && (vm->conf->command || vm->conf->serve);
}

int vm_order(struct vm *vm, enum msg_type t)
{
	return vm_tell(vm, t, NULL, 0);
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
				    .ncpus = vm->conf->cpus,
				    .ndevices = vm->ndevices,
				    .flags = vm->conf->mem_huge ? VMM_HUGEPAGES : 0};
	memcpy(m->cmdline, vm->boot.cmdline, sizeof(m->cmdline));
	if (hypervisor >= 0) {
		m->head.slot[n] = START_HYPERVISOR;
		fds[n++] = hypervisor;
	}
	m->head.slot[n] = START_MEMORY;
	fds[n++] = vm->mem;
	m->head.slot[n] = START_KERNEL;
	fds[n++] = vm->boot.kernel;
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

bool vm_child_failed(struct vm *vm, const struct child *c, const struct device *d,
		     struct exec_proc *x, struct msg_failed *f)
{
	f->step[sizeof(f->step) - 1] = 0;
	f->text[sizeof(f->text) - 1] = 0;
	if ((d || x) && c->state != CHILD_STARTING)
		return false;
	if (x)
		exec_failed(vm, x, f->step, f->text);
	else if (d && vm->running)
		log_error("%s: %s: %s", c->name, f->step, f->text);
	else if (f->bad_input)
		vm_end(vm, RUN_BAD_INPUT, "%s", f->text);
	else
		vm_end(vm, RUN_FAILED, "%s: %s: %s", c->name, f->step, f->text);
	return true;
}

/* ---- deadlines ---- */

uint64_t vm_sooner(uint64_t a, uint64_t b)
{
	return a && (!b || a < b) ? a : b;
}

uint64_t vm_next_limit(struct vm *vm, uint64_t timeout, uint64_t start_limit)
{
	uint64_t limit = vm_sooner(timeout, vm->running ? 0 : start_limit);

	limit = vm_sooner(command_deadline(vm), limit);
	return vm_sooner(exec_deadline(vm), limit);
}

void vm_overdue(struct vm *vm, uint64_t limit, uint64_t timeout)
{
	if (limit == timeout)
		vm_end(vm, RUN_TIMEOUT, "--timeout: %u second%s passed", vm->conf->timeout,
		       vm->conf->timeout == 1 ? " has" : "s have");
	else if (!vm->running)
		vm_end(vm, RUN_FAILED, "the VM was not ready to run in time");
	else if (limit == command_deadline(vm))
		command_overdue(vm);
	else
		exec_overdue(vm);
}
