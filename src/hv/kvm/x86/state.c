/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of a VM and of its vCPUs as records (insula/state.h): KVM's own structures, which are
 * an ABI of the kernel, one record each.
 *
 * A vCPU that has left KVM_RUN may be in the middle of an instruction, whose access the caller has
 * answered; KVM finishes it at the next KVM_RUN. So before anything is read, KVM_RUN is called with
 * immediate_exit, which does that and nothing else. An instruction that makes another access leaves
 * with that one: hv_vcpu_run() returns it, and the caller tries again.
 *
 * State is set in the order of the table, because parts depend on others: the LAPIC's mode is in
 * the special registers; the deadline of its timer, an MSR, counts only if the LAPIC is in its
 * mode; events come last, because setting registers clears some of them.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>
#include <insula/state.h>

#include "hv/kvm/backend.h"
#include "hv/records.h"

#define VERSION 1u
#define XSAVE_MAX 16384u /* AMX takes 8 KiB of it */

enum {
	REC_VCPU = STATE_KVM_X86,
	REC_MP_STATE,
	REC_REGS,
	REC_SREGS,
	REC_XSAVE,
	REC_XCRS,
	REC_DEBUGREGS,
	REC_LAPIC,
	REC_MSRS,
	REC_VCPU_EVENTS,
	REC_CLOCK, /* and REC_LINES behind it: hv_put_vm() */
};

struct rec_msr {
	uint64_t index, value;
};

#define SIMPLE(x, structure, name)                                                \
	{                                                                         \
		REC_##x, sizeof(struct structure), name, KVM_GET_##x, KVM_SET_##x \
	}
/* clang-format off */
static const struct part {
	uint32_t type, size;
	const char *name;
	unsigned long get, set; /* 0: no structure of KVM's */
} parts[] = {
	{REC_VCPU, sizeof(struct rec_vcpu), "the processor", 0, 0},
	SIMPLE(MP_STATE, kvm_mp_state, "the run state"),
	SIMPLE(REGS, kvm_regs, "the registers"),
	SIMPLE(SREGS, kvm_sregs, "the special registers"),
	SIMPLE(XSAVE, kvm_xsave, "the vector registers"),
	SIMPLE(XCRS, kvm_xcrs, "the extended control registers"),
	SIMPLE(DEBUGREGS, kvm_debugregs, "the debug registers"),
	SIMPLE(LAPIC, kvm_lapic_state, "the LAPIC"),
	{REC_MSRS, KVM_MSRS_MAX * sizeof(struct rec_msr), "the MSRs", 0, 0},
	SIMPLE(VCPU_EVENTS, kvm_vcpu_events, "the pending events"),
};
/* clang-format on */

union body {
	struct rec_vcpu vcpu;
	struct rec_msr msr[KVM_MSRS_MAX];
	_Alignas(16) uint8_t bytes[XSAVE_MAX];
};

static uint32_t size_of(const struct hv_vcpu *v, const struct part *p)
{
	return p->type == REC_XSAVE ? v->vm->arch.xsave_size : p->size;
}

/* ---- MSRs: one call each, so that the one that is refused can be named ---- */

static int msr_call(const struct hv_vcpu *v, unsigned long request, struct rec_msr *m)
{
	_Alignas(8) uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] = {0};
	struct kvm_msrs *k = (struct kvm_msrs *)room;
	int r;

	k->nmsrs = 1;
	k->entries[0].index = (uint32_t)m->index;
	k->entries[0].data = m->value;
	r = kvm_call(v->fd, request, k);
	m->value = k->entries[0].data;
	return r;
}

/* KVM lists some that it does not read for a guest whose CPUID lacks them. */
static uint32_t get_msrs(const struct hv_vcpu *v, struct rec_msr *m)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < v->vm->arch.nmsrs; i++) {
		m[n] = (struct rec_msr){.index = v->vm->arch.msr[i]};
		if (msr_call(v, KVM_GET_MSRS, &m[n]) == 1)
			n++;
	}
	return n;
}

static bool is_listed(const struct hv_vm *vm, uint64_t index)
{
	for (unsigned i = 0; i < vm->arch.nmsrs; i++)
		if (vm->arch.msr[i] == index)
			return true;
	return false;
}

static int check_msrs(const struct hv_vcpu *v, const struct state_part *p, struct err *e)
{
	struct rec_msr m;

	for (uint32_t at = 0; at < p->len; at += (uint32_t)sizeof(m)) {
		memcpy(&m, (const uint8_t *)p->body + at, sizeof(m));
		if (!is_listed(v->vm, m.index))
			return err_set(e, -EOPNOTSUPP, "state: MSR 0x%llx, which this KVM lacks",
				       (unsigned long long)m.index);
	}
	return 0;
}

/* KVM does not write all that it reads. Nothing is lost if the value is there already. */
static int set_msrs(const struct hv_vcpu *v, const struct state_part *p, struct err *e)
{
	struct rec_msr m, have;

	for (uint32_t at = 0; at < p->len; at += (uint32_t)sizeof(m)) {
		memcpy(&m, (const uint8_t *)p->body + at, sizeof(m));
		have = m;
		if (msr_call(v, KVM_SET_MSRS, &have) == 1)
			continue;
		if (msr_call(v, KVM_GET_MSRS, &have) != 1 || have.value != m.value)
			return err_set(e, -EOPNOTSUPP, "state: KVM refuses 0x%llx for MSR 0x%llx",
				       (unsigned long long)m.value, (unsigned long long)m.index);
	}
	return 0;
}

/* ---- what must be the same ---- */

static struct rec_vcpu describe_vcpu(const struct hv_vcpu *v)
{
	return (struct rec_vcpu){v->arch.cpuid_sum, kvm_x86_tsc_khz(v), v->vm->ncpus};
}

static int check_vcpu(const struct hv_vcpu *v, const void *body, struct err *e)
{
	struct rec_vcpu here = describe_vcpu(v), want;
	int r;

	memcpy(&want, body, sizeof(want));
	r = hv_check_vcpu(&want, &here, "KVM", e);
	if (r > 0)
		r = kvm_call_value(v->fd, KVM_SET_TSC_KHZ, want.tsc_khz) < 0
			    ? hv_other_tsc(&want, &here, e)
			    : 0;
	return r;
}

/* ---- a vCPU ---- */

/* The kick that immediate_exit stands for is not taken back: it may be somebody's. */
static int finish_instruction(struct hv_vcpu *v, struct err *e)
{
	int r;

	if (v->has_exit)
		return err_set(e, -EAGAIN, "vCPU %u: an exit waits to be answered", v->index);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	r = kvm_call_value(v->fd, KVM_RUN, 0);
	if (r == -EINTR)
		return 0;
	v->has_exit = r >= 0;
	return r < 0 ? err_sys(e, r, "vCPU %u: KVM_RUN", v->index)
		     : err_set(e, -EAGAIN, "vCPU %u: an exit waits to be answered", v->index);
}

/* Reading the run state makes KVM do what INIT and SIPI ask for that have come (api.rst, 4.38, and
 * kvm_apic_accept_events()), so that none of them is left to start the vCPU later. */
int hv_vcpu_park(struct hv_vcpu *v, struct err *e)
{
	struct kvm_mp_state s;
	int r = finish_instruction(v, e);

	if (r == 0)
		r = kvm_call(v->fd, KVM_GET_MP_STATE, &s);
	s.mp_state = KVM_MP_STATE_UNINITIALIZED;
	if (r == 0)
		r = kvm_call(v->fd, KVM_SET_MP_STATE, &s);
	return r < 0 && r != -EAGAIN ? err_sys(e, r, "vCPU %u cannot be parked", v->index) : r;
}

static int get_part(const struct hv_vcpu *v, const struct part *p, struct state_out *out,
		    struct err *e)
{
	uint32_t size = size_of(v, p);
	union body b;
	int r = 0;

	memset(&b, 0, sizeof(b));
	if (p->type == REC_VCPU)
		b.vcpu = describe_vcpu(v);
	else if (p->type == REC_MSRS)
		size = get_msrs(v, b.msr) * (uint32_t)sizeof(b.msr[0]);
	else
		r = kvm_call(v->fd, size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : p->get, &b);
	if (r == 0)
		r = state_put(out, p->type, VERSION, v->index, &b, size);
	return r < 0 ? err_sys(e, r, "vCPU %u: state: %s", v->index, p->name) : 0;
}

int hv_vcpu_state_get(struct hv_vcpu *v, struct state_out *out, struct err *e)
{
	size_t before = out->len;
	int r = finish_instruction(v, e);

	for (size_t i = 0; i < ARRAY_LEN(parts) && r == 0; i++)
		r = get_part(v, &parts[i], out, e);
	if (r < 0)
		out->len = before;
	return r;
}

static int set_part(const struct hv_vcpu *v, const struct part *p, const struct state_part *in,
		    struct err *e)
{
	union body b;
	int r;

	if (p->type == REC_VCPU)
		return 0;
	if (p->type == REC_MSRS)
		return set_msrs(v, in, e);
	memset(&b, 0, sizeof(b));
	memcpy(&b, in->body, in->len);
	r = kvm_call(v->fd, p->set, &b);
	return r < 0 ? err_sys(e, r, "vCPU %u: state: KVM refuses %s", v->index, p->name) : 0;
}

int hv_vcpu_state_set(struct hv_vcpu *v, const void *state, size_t len, struct err *e)
{
	struct state_part in[ARRAY_LEN(parts)] = {{0}};
	int r;

	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		in[i] = (struct state_part){.type = parts[i].type,
					    .version = VERSION,
					    .name = parts[i].name,
					    .size = size_of(v, &parts[i])};
		if (parts[i].type == REC_MSRS)
			in[i].unit = sizeof(struct rec_msr);
	}
	r = state_take(state, len, v->index, in, ARRAY_LEN(parts), e);
	for (size_t i = 0; i < ARRAY_LEN(parts) && r == 0; i++) {
		if (parts[i].type == REC_VCPU)
			r = check_vcpu(v, in[i].body, e);
		else if (parts[i].type == REC_MSRS)
			r = check_msrs(v, &in[i], e);
	}
	for (size_t i = 0; i < ARRAY_LEN(parts) && r == 0; i++)
		r = set_part(v, &parts[i], &in[i], e);
	return r;
}

/* ---- the VM ---- */

int hv_vm_state_get(struct hv_vm *vm, struct state_out *out, struct err *e)
{
	struct kvm_clock_data clock = {0};
	struct rec_line line[HV_MAX_LINES];
	int r = kvm_call(vm->fd, KVM_GET_CLOCK, &clock);

	if (r < 0)
		return err_sys(e, r, "state: KVM_GET_CLOCK");
	pthread_mutex_lock(&vm->lock);
	for (unsigned i = 0; i < vm->nlines; i++)
		line[i] =
			(struct rec_line){vm->route[i].addr, vm->route[i].data, vm->route[i].used};
	pthread_mutex_unlock(&vm->lock);
	return hv_put_vm(out, REC_CLOCK, &clock, sizeof(clock), line, vm->nlines, e);
}

int hv_vm_state_set(struct hv_vm *vm, const void *state, size_t len, struct err *e)
{
	struct kvm_clock_data clock;
	struct rec_line line[HV_MAX_LINES];
	int r = hv_check_state(state, len, STATE_KVM_X86, e);

	if (r == 0)
		r = hv_take_vm(state, len, REC_CLOCK, &clock, sizeof(clock), line, vm->nlines, e);
	if (r < 0)
		return r;
	clock.flags = 0; /* from where it was, not from what the time is now */
	r = kvm_call(vm->fd, KVM_SET_CLOCK, &clock);
	if (r < 0)
		return err_sys(e, r, "state: KVM_SET_CLOCK");
	return hv_set_lines(vm, line, vm->nlines, e);
}
