/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the children of a VM say and how they end: a table of functions for each kind of child. What
 * every child says alike is child.c's. What a death means is recover.c's for a device, exec.c's for
 * a command. Nothing here waits.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/log.h>

#include "host.h"
#include "plug.h"
#include "recover.h"
#include "supervisor/snapshot/faults.h"
#include "supervisor/snapshot/restore.h"
#include "supervisor/snapshot/save.h"
#include "vm.h"

#define PEER_START_NS 5000000000ull /* passt has begun by then */

/* ---- the beginning ---- */

static bool all_ready(const struct vm *vm)
{
	if (vm->vmm.state != CHILD_READY || !restore_loaded(vm) || !metadata_ready(vm))
		return false;
	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];

		if (d->child.state != CHILD_READY && !device_is_empty(d))
			return false;
	}
	return true;
}

/* What to follow a warning. */
static const char *ended_by(const struct vm *vm)
{
	if (vm->terminal.escape)
		return "; Ctrl-A x ends it";
	if (vm->command.raw)
		return "; Ctrl-], three times in a second, ends it";
	return isatty(0) ? "; Ctrl-C, twice, ends it" : "";
}

void vm_go(struct vm *vm)
{
	if (vm->running || vm->ended || !all_ready(vm))
		return;
	if (vm->boot.ninitrds)
		host_warn(ended_by(vm));
	terminal_raw(&vm->terminal);
	if (vm_order(vm, MSG_GO)) {
		vm_end(vm, RUN_FAILED, "insula-vmm: its channel is closed");
		return;
	}
	vm->running = true;
	vm->went_on_ns = clock_ns();
	if (!standing_is(vm)) /* MSG_PAUSED follows */
		control_event(vm->control, "running", NULL, NULL);
	log_info("running after %llu us",
		 (unsigned long long)((clock_ns() - vm->started_ns) / 1000));
}

/* Before the guest runs it is the end of the VM. */
static void not_started(struct vm *vm, const struct child *c, const struct msg_failed *f)
{
	if (f->bad_input)
		vm_end(vm, RUN_BAD_INPUT, "%s", f->text);
	else
		vm_end(vm, RUN_FAILED, "%s: %s: %s", c->name, f->step, f->text);
}

/* ---- insula-vmm ---- */

union vmm_body {
	struct msg_vm_exit exit;
	struct msg_dev dev;
	struct msg_vm_event event;
	struct msg_paused paused;
	struct msg_saved saved;
	struct msg_cpus cpus;
	struct msg_plugged plugged;
};

static void vmm_ready(void *ctx)
{
	vm_go(ctx);
}

static bool vmm_failed(void *ctx, const struct msg_failed *f)
{
	struct vm *vm = ctx;

	not_started(vm, &vm->vmm, f);
	return true;
}

static void on_vm_exit(struct vm *vm, const struct msg_vm_exit *x)
{
	vm->exit = *x;
	vm->exit.text[sizeof(vm->exit.text) - 1] = 0;
	vm->have_exit = true;
	vm->vmm.state = CHILD_DONE;
	if (!vm->ended) {
		vm->ended = true;
		result_from_exit(vm);
	}
}

static void vm_is_paused(struct vm *vm, bool paused)
{
	if (!paused) {
		vm->went_on_ns = clock_ns();
		standing_goes_on(vm);
	}
	control_paused(vm->control, vm, paused);
	if (paused)
		save_paused(vm);
	else
		save_goes_on(vm);
}

/* False: nothing that insula-vmm says. */
static bool cpus_are(struct vm *vm, uint32_t n)
{
	struct vm_cpus *c = &vm->cpus;
	bool same = c->actual == n;

	if (!c->max || n < 1 || n > c->max)
		return false;
	c->actual = n;
	if (!c->requested)
		c->requested = n;
	if (!same)
		control_resized(vm->control, vm);
	return true;
}

static bool vmm_message(void *ctx, enum msg_type t, const void *body, size_t len)
{
	const union vmm_body *b = body;
	struct vm *vm = ctx;

	if (t == MSG_VM_EXIT && len == sizeof(b->exit))
		on_vm_exit(vm, &b->exit);
	else if (t == MSG_DEV_STUCK && len == sizeof(b->dev))
		vm_helper_stuck(vm, b->dev.index);
	else if (t == MSG_DEV_IS_DOWN && len == sizeof(b->dev))
		vm_device_down(vm, b->dev.index);
	else if (t == MSG_VM_EVENT && len == sizeof(b->event) &&
		 b->event.event == BOARD_EVENT_AGENT_READY)
		exec_agent_ready(vm);
	else if (t == MSG_PAUSED && len == sizeof(b->paused))
		vm_is_paused(vm, b->paused.paused);
	else if (t == MSG_SAVED && len == sizeof(b->saved))
		save_records(vm, &b->saved);
	else if (t == MSG_CPUS_ARE && len == sizeof(b->cpus))
		return cpus_are(vm, b->cpus.n);
	else if (t == MSG_PLUGGED && len == sizeof(b->plugged))
		return plug_plugged(vm, &b->plugged);
	else if (t == MSG_UNPLUGGED && len == sizeof(b->plugged))
		return plug_unplugged(vm, &b->plugged);
	else
		return false;
	return true;
}

static void vmm_gone(void *ctx, const struct child_end *end)
{
	struct vm *vm = ctx;

	if (end->before == CHILD_DONE)
		return;
	if (!vm->ended)
		vm->reason = "vmm-died";
	vm_end(vm, RUN_FAILED, "insula-vmm %s", end->how);
}

static bool vmm_faults(void *ctx, const struct msg_faults *m, int fd)
{
	struct vm *vm = ctx;

	return restore_faults(vm, &vm->vmm, m, fd);
}

static const struct child_ops vmm_ops = {vmm_ready, vmm_failed, vmm_message, vmm_faults, vmm_gone};

/* ---- helpers ---- */

static void helper_serves(struct device *d, bool serves)
{
	if (d->class->serves)
		d->class->serves(d, &d->vm->loop, serves);
}

static void helper_ready(void *ctx)
{
	struct device *d = ctx;

	d->restored = false;
	helper_serves(d, true);
	if (d->plug && plug_helper_ready(d->plug))
		return;
	vm_helper_ready(d->vm, d);
	if (d == vm_vsock(d->vm))
		exec_vsock_ready(d->vm);
	vm_go(d->vm);
}

/* Once the guest runs, the next process may have more luck; the end of this one is counted. */
/* The program of the host behind it is ended, so that all that it had to say is heard: "" if that is
 * nothing, or there is none. */
static const char *peer_last(const struct device *d)
{
	struct child *peer = d->class->peer ? d->class->peer(d) : NULL;

	if (!peer)
		return "";
	child_kill(peer);
	return peer->last;
}

static void helper_not_started(const struct device *d, const struct msg_failed *f)
{
	const char *why = peer_last(d);

	if (*why)
		vm_end(d->vm, RUN_FAILED, "%s: %s: %s; %s", d->child.name, f->step, f->text, why);
	else
		not_started(d->vm, &d->child, f);
}

static bool helper_failed(void *ctx, const struct msg_failed *f)
{
	struct device *d = ctx;

	if (d->child.state != CHILD_STARTING)
		return false;
	if (d->plug)
		plug_helper_failed(d->plug, f);
	if (d->vm->running)
		log_error("%s: %s: %s", d->child.name, f->step, f->text);
	else
		helper_not_started(d, f);
	return true;
}

/* Before it was asked to stop it would not be started again when it dies. */
static bool helper_message(void *ctx, enum msg_type t, const void *body, size_t len)
{
	const struct msg_stats *s = body;
	struct device *d = ctx;

	if (t == MSG_COUNTED && len == sizeof(*s))
		return device_counted(d, s);
	if (t == MSG_IS_QUIET && len == sizeof(struct msg_quiet)) {
		save_quiet(d->vm, d, ((const struct msg_quiet *)body)->no);
		return true;
	}
	if (t == MSG_SAVED && len == sizeof(struct msg_saved)) {
		save_held(d->vm, d, body);
		return true;
	}
	if (t != MSG_STOPPED || len != sizeof(*s) || d->child.state != CHILD_STOPPING)
		return d->class->message && d->class->message(d->vm, d, t, body, len);
	for (unsigned i = 0; i < ARRAY_LEN(s->n); i++)
		d->stats.n[i] += s->n[i];
	device_count_end(d, s);
	d->child.state = CHILD_DONE;
	return true;
}

static void helper_gone(void *ctx, const struct child_end *end)
{
	struct device *d = ctx;

	helper_serves(d, false);
	faults_forget(d->vm, &d->child);
	device_count_end(d, NULL);
	save_helper_died(d->vm, d);
	vm_helper_died(d->vm, d, end->before, end->how);
}

static bool helper_faults(void *ctx, const struct msg_faults *m, int fd)
{
	struct device *d = ctx;

	return restore_faults(d->vm, &d->child, m, fd);
}

static const struct child_ops helper_ops = {helper_ready, helper_failed, helper_message,
					    helper_faults, helper_gone};

/* ---- a helper's program of the host (passt) ---- */

static struct child *peer_of(const struct device *d)
{
	return d->class->peer ? d->class->peer(d) : NULL;
}

/* Its helper sees the end of the connection and says so; then there is another one. But one that
 * gives up right at the beginning would do so again: what it was told cannot be. */
static void peer_gone(void *ctx, const struct child_end *end)
{
	struct device *d = ctx;
	const struct child *c = peer_of(d);
	struct vm *vm = d->vm;
	const char *colon = c->last[0] ? ": " : "";
	bool first = d->class->peer_began(d) && clock_ns() - vm->started_ns < PEER_START_NS;

	if (d->class->peer_over && d->class->peer_over(d, end))
		return;
	if (d->plug && plug_peer_died(d->plug, c->name, end->how, c->last))
		return;
	first &= !d->plug;
	if (!vm->running)
		vm_end(vm, RUN_FAILED, "%s %s before the guest ran%s%s", c->name, end->how, colon,
		       c->last);
	else if (first && end->status > 0)
		vm_end(vm, RUN_FAILED, "%s %s%s%s", c->name, end->how, colon, c->last);
	else if (!vm->ended)
		log_warn("%s %s%s%s", c->name, end->how, colon, c->last);
}

static const struct child_ops peer_ops = {.gone = peer_gone}; /* it has no channel */

/* ---- commands ---- */

static void command_ready(void *ctx)
{
	struct exec_proc *p = ctx;

	exec_ready(p->vm, p);
	vm_go(p->vm);
}

/* One that is not in its jail has it from the system: before the guest runs that is the end. */
static bool command_failed(void *ctx, const struct msg_failed *f)
{
	struct exec_proc *p = ctx;

	if (p->child->state != CHILD_STARTING)
		return false;
	if (!p->vm->running && !strcmp(f->step, CHILD_UNFIT))
		not_started(p->vm, p->child, f);
	exec_failed(p->vm, p, f->step, f->text);
	return true;
}

static bool command_message(void *ctx, enum msg_type t, const void *body, size_t len)
{
	struct exec_proc *p = ctx;

	return exec_message(p->vm, p, t, body, len);
}

static void command_gone(void *ctx, const struct child_end *end)
{
	struct exec_proc *p = ctx;

	exec_gone(p->vm, p, end->how);
}

static const struct child_ops command_ops = {command_ready, command_failed, command_message, NULL,
					     command_gone};

void vm_own_device(struct vm *vm, struct device *d)
{
	struct child *peer = peer_of(d);

	d->vm = vm;
	child_own(&d->child, &vm->loop, &helper_ops, d);
	if (peer)
		child_own(peer, &vm->loop, &peer_ops, d);
}

void vm_own_children(struct vm *vm)
{
	child_own(&vm->vmm, &vm->loop, &vmm_ops, vm);
	for (unsigned i = 0; i < vm->ndevices; i++)
		vm_own_device(vm, &vm->device[i]);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		vm->execs.place[i].vm = vm;
		child_own(&vm->exec[i], &vm->loop, &command_ops, &vm->execs.place[i]);
	}
}
