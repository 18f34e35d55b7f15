/* SPDX-License-Identifier: BSD-2-Clause */
/* The vCPU loop: run, look at the exit, let the bus answer, complete. No device logic here. */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "arch.h"
#include "cpus.h"
#include "save.h"
#include "vmm.h"

/* One access of a size that the bus knows. */
static bool mmio_part(struct vcpu *c, struct hv_exit *x, unsigned at, unsigned size,
		      struct bus_patience *w)
{
	uint64_t v = 0, gpa = x->u.mmio.gpa + at;
	bool claimed;

	if (x->u.mmio.write) {
		memcpy(&v, x->u.mmio.data + at, size);
		return bus_write(&c->vm->mmio, gpa, size, v, w);
	}
	claimed = bus_read(&c->vm->mmio, gpa, size, &v, w);
	memcpy(x->u.mmio.data + at, &v, size);
	return claimed;
}

static void handle_mmio(struct vcpu *c, struct hv_exit *x)
{
	unsigned size = x->u.mmio.size;
	bool whole = size == 1 || size == 2 || size == 4 || size == 8;
	struct bus_patience w = {0};

	for (unsigned at = 0; at < size; at += whole ? size : 1)
		c->unclaimed += !mmio_part(c, x, at, whole ? size : 1, &w);
}

static void handle_shutdown(struct vcpu *c, struct hv_exit *x)
{
	struct msg_vm_exit m = {.rip = arch_pc_of_shutdown(c)};

	(void)x;
	snprintf(m.text, sizeof(m.text), "vCPU %u", c->index);
	vmm_end(c->vm, VM_EXIT_TRIPLE_FAULT, &m);
}

static void handle_error(struct vcpu *c, struct hv_exit *x)
{
	struct msg_vm_exit m = {.rip = x->u.error.pc};

	m.ninsn = x->u.error.ninsn < sizeof(m.insn) ? x->u.error.ninsn : sizeof(m.insn);
	memcpy(m.insn, x->u.error.insn, m.ninsn);
	snprintf(m.text, sizeof(m.text), "vCPU %u: %.100s", c->index, x->u.error.text);
	vmm_end(c->vm, VM_EXIT_ERROR, &m);
}

static const struct exit_handler handlers[HV_EXIT_KINDS] = {
	[HV_EXIT_MMIO] = {handle_mmio, true},
	[HV_EXIT_SHUTDOWN] = {handle_shutdown, false},
	[HV_EXIT_ERROR] = {handle_error, false},
};

static int handle_exit(struct vcpu *c, struct hv_exit *x)
{
	const struct exit_handler *h;

	if (x->kind >= HV_EXIT_KINDS)
		panic("vCPU %u: exit of unknown kind %d", c->index, (int)x->kind);
	c->exits[x->kind]++;
	h = handlers[x->kind].handle ? &handlers[x->kind] : &arch_exit_handlers[x->kind];
	if (h->handle)
		h->handle(c, x);
	return h->complete ? hv_vcpu_complete(c->hv, x) : 0;
}

int vcpu_step(struct vcpu *c)
{
	struct hv_exit x;
	int rc = hv_vcpu_run(c->hv, &x);

	return rc ? rc : handle_exit(c, &x);
}

static bool must_rest(const struct vcpu *c, uint32_t paused)
{
	return paused & VMM_IS_PAUSED || cpus_is_out(c);
}

/* MSG_PAUSE, or a processor that is not there: out of the guest until MSG_RESUME, until it is let
 * in, or until the end. What was posted and what a helper owes goes on without us. */
static void rest(struct vcpu *c)
{
	struct vmm *vm = c->vm;
	uint32_t seen;

	atomic_fetch_add(&vm->resting, 1);
	event_signal(vm->main_event);
	while (must_rest(c, seen = atomic_load(&vm->paused)) && !atomic_load(&vm->ending)) {
		uint32_t no = atomic_load(&vm->save_no);

		if (no == atomic_load(&c->save_no)) {
			word_wait(&vm->paused, seen);
			continue;
		}
		save_vcpu(c);
		atomic_store(&c->save_no, no);
		event_signal(vm->main_event);
	}
	atomic_fetch_sub(&vm->resting, 1);
	hv_vcpu_was_paused(c->hv);
}

static void vcpu_run(struct vcpu *c)
{
	int rc = 0;

	while (!atomic_load_explicit(&c->vm->ending, memory_order_relaxed) && !rc) {
		if (must_rest(c, atomic_load(&c->vm->paused)))
			rest(c);
		else
			rc = cpus_runs(c) ? vcpu_step(c) : cpus_move(c);
	}
	if (rc) {
		struct msg_vm_exit m = {0};
		struct err e;

		err_sys(&e, rc, "vCPU %u", c->index);
		snprintf(m.text, sizeof(m.text), "%.120s", e.text);
		vmm_end(c->vm, VM_EXIT_ERROR, &m);
	}
}

static void wait_for_gate(struct vmm *vm)
{
	while (!atomic_load(&vm->gate))
		word_wait(&vm->gate, 0);
}

/* A finished thread sleeps until the process exits: leaving it would need system calls that the
 * jail has no reason to allow. */
static _Noreturn void park(struct vmm *vm)
{
	atomic_fetch_sub(&vm->running, 1);
	event_signal(vm->main_event);
	for (;;)
		word_wait(&vm->running, atomic_load(&vm->running));
}

void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	struct err e;

	if (hv_vcpu_bind(c->hv, &e))
		panic("vCPU %u: %s", c->index, e.text);
	pthread_barrier_wait(&c->vm->begun);
	wait_for_gate(c->vm);
	if (must_rest(c, atomic_load(&c->vm->paused)))
		rest(c);
	if (c->index == 0)
		c->vm->first_run_ns = clock_ns();
	if (c->vm->restored)
		hv_vcpu_was_paused(c->hv);
	vcpu_run(c);
	park(c->vm);
}
