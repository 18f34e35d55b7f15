/* SPDX-License-Identifier: BSD-2-Clause */
/* Processors that come and go. See cpus.h. */
#include <errno.h>

#include <insula/base.h>
#include <insula/log.h>

#include "cpus.h"

static uint32_t first_cpus(unsigned n)
{
	return (uint32_t)((UINT64_C(1) << n) - 1);
}

static uint32_t cpu_bit(const struct vcpu *c)
{
	return 1u << c->index;
}

void cpus_init(struct vmm *vm, unsigned n)
{
	atomic_store(&vm->cpus_in, first_cpus(n));
	atomic_store(&vm->cpus_parked, first_cpus(vm->ncpus) & ~first_cpus(n));
}

/* ---- the main thread ---- */

/* Those with the highest numbers first. The others may stay, whoever had been asked before. */
static void ask_back(struct vmm *vm, uint32_t in, unsigned n)
{
	uint32_t asked = 0;

	for (unsigned i = vm->ncpus; i-- > 1 && (unsigned)__builtin_popcount(in & ~asked) > n;)
		asked |= in & 1u << i;
	atomic_store(&vm->cpus_asked, asked);
	if (asked)
		event_signal(vm->acpi_event);
}

void cpus_want(struct vmm *vm, uint32_t n)
{
	if (!vm->cpus_change || n < 1 || n > vm->ncpus)
		return;
	vm->cpus_wanted = n;
	ask_back(vm, atomic_load(&vm->cpus_in), n);
}

/* As many as are wanted, those with the lowest numbers. One that is still on its way out comes when
 * it is out. What the guest gives back later is its own wish. */
static void let_in(struct vmm *vm)
{
	uint32_t in = atomic_load(&vm->cpus_in), add = 0;

	for (unsigned i = 1; i < vm->ncpus; i++) {
		if ((unsigned)__builtin_popcount(in | add) < vm->cpus_wanted)
			add |= 1u << i & ~in & atomic_load(&vm->cpus_parked);
	}
	if ((unsigned)__builtin_popcount(in | add) >= vm->cpus_wanted)
		vm->cpus_wanted = 0;
	if (add) {
		atomic_fetch_or(&vm->cpus_in, add);
		vmm_wake_resting(vm);
	}
}

void cpus_turn(struct vmm *vm)
{
	struct msg_cpus m = {vm->ncpus};

	if (!vm->cpus_change)
		return;
	let_in(vm);
	m.n -= (uint32_t)__builtin_popcount(atomic_load(&vm->cpus_parked));
	if (m.n != vm->cpus_told)
		(void)msg_send(MSG_CHANNEL_FD, MSG_CPUS_ARE, &m, sizeof(m), NULL, 0);
	vm->cpus_told = m.n;
}

/* ---- vCPU threads ---- */

bool cpus_runs(const struct vcpu *c)
{
	const struct vmm *vm = c->vm;

	return atomic_load_explicit(&vm->cpus_in, memory_order_relaxed) &
	       ~atomic_load_explicit(&vm->cpus_parked, memory_order_relaxed) & cpu_bit(c);
}

bool cpus_is_out(const struct vcpu *c)
{
	return atomic_load(&c->vm->cpus_parked) & ~atomic_load(&c->vm->cpus_in) & cpu_bit(c);
}

int cpus_move(struct vcpu *c)
{
	struct vmm *vm = c->vm;
	bool comes = atomic_load(&vm->cpus_parked) & cpu_bit(c);
	struct err e;
	int rc;

	do
		rc = hv_vcpu_park(c->hv, &e);
	while (rc == -EAGAIN && !atomic_load(&vm->ending) && !vcpu_step(c));
	if (rc && atomic_load(&vm->ending))
		return 0;
	if (rc) {
		log_error("%s", e.text);
		return rc;
	}
	if (comes) {
		atomic_fetch_and(&vm->cpus_parked, ~cpu_bit(c));
		atomic_fetch_or(&vm->cpus_news, cpu_bit(c));
		event_signal(vm->acpi_event);
	} else {
		atomic_fetch_or(&vm->cpus_parked, cpu_bit(c));
	}
	event_signal(vm->main_event);
	return 0;
}

/* ---- the board's registers ---- */

uint32_t cpus_present(const struct vmm *vm)
{
	return atomic_load(&vm->cpus_in) & ~atomic_load(&vm->cpus_parked);
}

void cpus_eject(struct vmm *vm, uint64_t index)
{
	unsigned i = index < vm->ncpus ? (unsigned)index : 0;

	if (i == 0 || !(cpus_present(vm) & cpu_bit(&vm->vcpu[i])))
		return;
	atomic_fetch_and(&vm->cpus_in, ~cpu_bit(&vm->vcpu[i]));
	hv_vcpu_kick(vm->vcpu[i].hv);
}
