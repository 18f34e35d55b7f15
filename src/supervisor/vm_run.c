/* SPDX-License-Identifier: BSD-2-Clause */
/* One VM: start, turns, end. See vm.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "plug.h"
#include "recover.h"
#include "supervisor/snapshot/faults.h"
#include "supervisor/snapshot/restore.h"
#include "supervisor/snapshot/save.h"
#include "vm.h"

#define SECOND_NS 1000000000ull
#define START_DEADLINE_NS (90 * SECOND_NS) /* all children jailed and ready */
#define STOP_DEADLINE_NS (2 * SECOND_NS)   /* insula-vmm leaves the guest */
#define DRAIN_DEADLINE_NS (10 * SECOND_NS) /* helpers finish what is in flight */
#define OUTPUT_DEADLINE_NS (2 * SECOND_NS) /* a command's last output, when the guest is gone */

void vm_end(struct vm *vm, int status, const char *fmt, ...)
{
	va_list ap;

	if (vm->ended)
		return;
	vm->ended = true;
	vm->end.status = status;
	va_start(ap, fmt);
	vsnprintf(vm->end.why, sizeof(vm->end.why), fmt, ap);
	va_end(ap);
	err_clean(vm->end.why); /* a jailed process may have worded it */
}

/* ---- start ---- */

/* Where a process inherits what it gets, it inherits all that its messages name. */
static int start_vmm(struct vm *vm, struct err *e)
{
	int fds[MSG_MAX_FDS], all[MSG_MAX_FDS + VM_MAX_DEVICES * DEVICE_MAX_SLOTS];
	struct msg_start_vmm m;
	unsigned n = vm_word_start(vm, vm->kvm, &m, fds), nall = n;
	int rc;

	memcpy(all, fds, n * sizeof(*fds));
	for (unsigned i = 0; i < vm->ndevices; i++) {
		memcpy(&all[nall], vm->device[i].slot, vm->device[i].desc.nslots * sizeof(*all));
		nall += vm->device[i].desc.nslots;
	}
	rc = child_spawn(&vm->vmm, all, nall, e);
	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = device_announce(&vm->device[i], &vm->vmm, e);
	if (rc)
		return rc;
	rc = child_send(&vm->vmm, MSG_START_VMM, &m, sizeof(m), fds, n);
	return rc ? err_sys(e, rc, "insula-vmm: channel") : 0;
}

void vm_start_helpers(struct vm *vm)
{
	struct err e;
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices && !rc; i++) {
		if (!device_is_empty(&vm->device[i]))
			rc = device_start(&vm->device[i], vm->mem, &vm->memmap, &e);
	}
	if (rc)
		vm_end(vm, RUN_FAILED, "%s", e.text);
}

/* A helper that carries on looks at its queues at once: first the memory they are in, or somebody
 * who fills it. */
static void start_all(struct vm *vm)
{
	struct err e;
	int rc = 0;

	faults_begin(vm);
	if (vm->conf->restoring)
		rc = restore_start(vm, &e);

	if (!rc)
		rc = start_vmm(vm, &e);
	if (!rc && (!vm->conf->restoring || !restore_is_whole(vm)))
		vm_start_helpers(vm);
	if (!rc)
		rc = metadata_start(vm, &e);
	if (!rc && vm->conf->command)
		rc = command_start(vm, &e);
	if (rc)
		vm_end(vm, RUN_FAILED, "%s", e.text);
}

/* ---- deadlines ---- */

static void timeout_over(struct vm *vm)
{
	vm_end(vm, RUN_TIMEOUT, "--timeout: %u second%s passed", standing_timeout(vm),
	       standing_timeout(vm) == 1 ? " has" : "s have");
}

static uint64_t start_due(const struct vm *vm)
{
	return vm->running ? 0 : vm->start_limit_ns;
}

static void start_over(struct vm *vm)
{
	vm_end(vm, RUN_FAILED, "the VM was not ready to run in time");
}

/* When a device wants to be tended, clock_ns(); 0: none does. */
static uint64_t devices_due(const struct vm *vm)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < vm->ndevices && !vm->ended; i++) {
		const struct device *d = &vm->device[i];
		uint64_t due = d->class->due ? d->class->due(d) : 0;

		next = loop_sooner(next, due);
	}
	return next;
}

static void devices_tend(struct vm *vm)
{
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < vm->ndevices && !vm->ended; i++) {
		struct device *d = &vm->device[i];
		uint64_t due = d->class->due ? d->class->due(d) : 0;

		if (due && due <= now)
			d->class->tend(d);
	}
}

static uint64_t control_due(const struct vm *vm)
{
	return control_deadline(vm->control, vm);
}

static void control_over(struct vm *vm)
{
	control_turn(vm->control, vm);
}

/* One function says when it is time, before each wait, and the other one deals with it. */
static const struct {
	uint64_t (*due)(const struct vm *vm);
	void (*over)(struct vm *vm);
	bool always; /* while the VM ends, too */
} deadlines[VM_DEADLINES] = {
	[VM_TIMEOUT] = {standing_timeout_due, timeout_over, false},
	[VM_START] = {start_due, start_over, false},
	[VM_COMMAND] = {command_deadline, command_overdue, false},
	[VM_EXEC] = {exec_deadline, exec_overdue, false},
	[VM_RESTART] = {vm_restart_next, vm_restart_due, false},
	[VM_DEVICES] = {devices_due, devices_tend, false},
	[VM_SAVE] = {save_deadline, save_overdue, false},
	[VM_PLUG] = {plug_due, plug_overdue, false},
	[VM_METADATA] = {metadata_due, metadata_tend, false},
	[VM_PAGER] = {restore_deadline, restore_overdue, true},
	[VM_CONTROL] = {control_due, control_over, true},
};

static void on_deadline(void *ctx)
{
	const struct vm_deadline *d = ctx;

	if (!d->vm->ended || deadlines[d->kind].always)
		deadlines[d->kind].over(d->vm);
}

static void vm_init_deadlines(struct vm *vm)
{
	for (unsigned i = 0; i < VM_DEADLINES; i++) {
		struct vm_deadline *d = &vm->deadline[i];

		d->vm = vm;
		d->kind = (enum vm_deadlines)i;
		timer_init(&vm->loop, &d->timer, on_deadline, d);
	}
}

/* ---- turns ---- */

static void vm_run_on_signal(void *ctx, int signo)
{
	struct vm *vm = ctx;

	if (vm->conf->command && signo == SIGNALS_RESIZED)
		command_resized(vm);
	else if (!vm->conf->command || !command_signal(vm, signo))
		vm_end(vm, RUN_SIGNAL + signo, "%s", "");
}

/* Wait for something and deal with it; at most until `limit_ns` (0: until it is time for
 * something). */
static void vm_turn(struct vm *vm, uint64_t limit_ns)
{
	int rc;

	for (unsigned i = 0; i < VM_DEADLINES; i++) {
		bool off = vm->ended && !deadlines[i].always;

		timer_set(&vm->deadline[i].timer, off ? 0 : deadlines[i].due(vm));
	}
	rc = loop_step(&vm->loop, limit_ns);
	if (rc) {
		vm->hard = true; /* nobody can be waited for */
		vm_end(vm, RUN_FAILED, "it cannot wait any more: %s", strerror(-rc));
	}
	control_turn(vm->control, vm);
}

/* ---- end ---- */

static void stop_vmm(struct vm *vm)
{
	uint64_t limit = clock_ns() + STOP_DEADLINE_NS;

	if (vm->running && child_stop(&vm->vmm)) {
		while (vm->vmm.state == CHILD_STOPPING && clock_ns() < limit)
			vm_turn(vm, limit);
	}
}

static bool stop_helpers(struct vm *vm)
{
	bool any = false;

	(void)restore_stop(vm); /* meanwhile */
	for (unsigned i = 0; i < vm->ndevices; i++) {
		restart_stop(&vm->device[i].restart);
		any |= child_stop(&vm->device[i].child);
	}
	return any;
}

/* The guest has stopped: nothing is posted any more. Helpers write out what they have, then
 * everything goes. */
static void wind_down(struct vm *vm)
{
	uint64_t limit = clock_ns() + DRAIN_DEADLINE_NS;

	save_close(vm);
	if (!vm->hard)
		stop_vmm(vm);
	/* Nobody is waited for that others could be dying beside. */
	child_shoot(&vm->vmm);
	while (!vm->hard && vm->running && stop_helpers(vm) && clock_ns() < limit)
		vm_turn(vm, limit);
	/* What insula-pager writes down makes the next restore faster, and no more. */
	limit = clock_ns() + STOP_DEADLINE_NS;
	while (!vm->hard && vm->running && restore_stop(vm) && clock_ns() < limit)
		vm_turn(vm, limit);
	for (unsigned i = 0; i < vm->ndevices; i++)
		child_shoot(&vm->device[i].child);
	restore_end(vm);
	metadata_stop(vm);
	child_kill(&vm->vmm);
	for (unsigned i = 0; i < vm->ndevices; i++)
		child_kill(&vm->device[i].child);
	/* With insula-vsock the streams have ended: what came through them is still written. */
	exec_guest_gone(vm);
	limit = clock_ns() + OUTPUT_DEADLINE_NS;
	while (exec_pending(vm) && clock_ns() < limit)
		vm_turn(vm, limit);
	exec_free(vm);
	terminal_close(&vm->terminal);
}

int vm_run(struct vm *vm)
{
	int rc;

	vm->start_limit_ns = clock_ns() + START_DEADLINE_NS;
	vm_init_deadlines(vm);
	vm_own_children(vm);
	control_begin(vm->control, vm);
	rc = signals_catch(&vm->signals, &vm->loop, vm->conf->command, vm_run_on_signal, vm);
	if (rc)
		vm_end(vm, RUN_FAILED, "signals: %s", strerror(-rc));
	else
		start_all(vm);
	terminal_tell(&vm->terminal);
	while (!vm->ended)
		vm_turn(vm, 0);
	wind_down(vm);
	metrics_write(vm);
	return vm->end.status;
}
