/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of a VM and of its vCPUs as records (insula/state.h): registers by the platform's
 * names, and the vector registers and the local APIC as it gives them.
 *
 * Everything that the hypervisor stops for is finished by hv_vcpu_complete() with registers, so a
 * vCPU that has no access left to answer is between two instructions.
 *
 * State is set in the order of the table. What the processor's mode is made of goes in one call,
 * for the hypervisor may look at it as a whole; the rest register by register, so that the one that
 * is refused can be named. What a Windows or a processor does not have is not in the record, and a
 * record with what is not there is refused.
 *
 * Microsoft, Hypervisor Platform API: WHV_REGISTER_NAME, WHvGetVirtualProcessorXsaveState,
 * WHvGetVirtualProcessorInterruptControllerState2, WHvPartitionPropertyCodeReferenceTime.
 */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/state.h>

#include "hv/whp/backend.h"
#include "hv/records.h"

#define VERSION 1u
#define XSAVE_MAX 16384u
#define LAPIC_MAX 4096u

enum {
	REC_VCPU = STATE_WHP_X86,
	REC_REGISTERS,
	REC_XSAVE,
	REC_LAPIC,
	REC_CLOCK, /* and REC_LINES behind it: hv_put_vm() */
};

struct rec_register {
	uint32_t name, zero;
	uint8_t value[sizeof(union whp_value)];
};

struct rec_clock {
	uint64_t reference; /* 100 ns */
};

enum group {
	MODE,   /* set together; always there */
	ALWAYS, /* always there, too */
	MAYBE,  /* not with every Windows or processor */
};

/* The APIC's mode comes before its state, and GUEST_OS before what needs it. `last`: behind the
 * local APIC. A deadline is taken only while its timer is in that mode, and is measured with the
 * TSC. */
static const struct range {
	uint32_t first, n;
	enum group group;
	bool last;
} ranges[] = {
	{WHP_REG_RAX, 16, MODE, false},
	{WHP_REG_RIP, 2, MODE, false}, /* and RFLAGS */
	{WHP_REG_ES, 8, MODE, false},  /* and LDTR, TR */
	{WHP_REG_IDTR, 2, MODE, false},
	{WHP_REG_CR0, 4, MODE, false}, /* and CR2 to CR4 */
	{WHP_REG_EFER, 1, MODE, false},
	{WHP_REG_DR0, 6, ALWAYS, false},
	{WHP_REG_XCR0, 1, MAYBE, false},
	{WHP_REG_XSS, 1, MAYBE, false},
	{WHP_REG_APIC_BASE, 1, ALWAYS, false},
	{WHP_REG_CR8, 1, ALWAYS, false},
	{WHP_REG_KERNEL_GS, 1, ALWAYS, false},
	{WHP_REG_PAT, 1, ALWAYS, false},
	{WHP_REG_SYSENTER_CS, 3, ALWAYS, false},
	{WHP_REG_STAR, 4, ALWAYS, false},
	{WHP_REG_MTRR_BASE, 16, MAYBE, false},
	{WHP_REG_MTRR_MASK, 16, MAYBE, false},
	{WHP_REG_MTRR_FIXED, 11, MAYBE, false},
	{WHP_REG_MTRR_DEF_TYPE, 1, ALWAYS, false},
	{WHP_REG_TSC_AUX, 1, MAYBE, false},
	{WHP_REG_SPEC_CTRL, 1, MAYBE, false},
	{WHP_REG_TSX_CTRL, 1, MAYBE, false},
	{WHP_REG_U_CET, 8, MAYBE, false},
	{WHP_REG_UMWAIT, 1, MAYBE, false},
	{WHP_REG_XFD, 2, MAYBE, false},
	{WHP_REG_GUEST_OS, 1, MAYBE, false},
	{WHP_REG_HYPERCALL, 1, MAYBE, false},
	{WHP_REG_VP_ASSIST, 1, MAYBE, false},
	{WHP_REG_REFERENCE_TSC, 1, MAYBE, false},
	{WHP_REG_TSC, 1, ALWAYS, false}, /* it may take the next one with it */
	{WHP_REG_TSC_ADJUST, 1, MAYBE, false},
	{WHP_REG_TSC_DEADLINE, 1, MAYBE, true},
	{(uint32_t)WHP_REG_INTERRUPT_STATE, 1, ALWAYS, true},
	{(uint32_t)WHP_REG_PENDING_DEBUG, 1, MAYBE, true},
	{(uint32_t)WHP_REG_PENDING_INTERRUPTION, 1, ALWAYS, true},
	{(uint32_t)WHP_REG_PENDING_EVENT, 1, ALWAYS, true},
	{(uint32_t)WHP_REG_ACTIVITY, 1, ALWAYS, true},
};

#define MAX_REGISTERS 160u
#define MAX_MODE 40u

struct list {
	unsigned n, nmode;
	uint32_t name[MAX_REGISTERS];
	enum group group[MAX_REGISTERS];
	bool last[MAX_REGISTERS];
};

static void make_list(struct list *l)
{
	l->n = l->nmode = 0;
	for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
		for (uint32_t k = 0; k < ranges[i].n; k++) {
			if (l->n == MAX_REGISTERS)
				panic("more than %u registers", MAX_REGISTERS);
			l->name[l->n] = ranges[i].first + k;
			l->last[l->n] = ranges[i].last;
			l->group[l->n++] = ranges[i].group;
			l->nmode += ranges[i].group == MODE;
		}
	}
}

union body {
	struct rec_vcpu vcpu;
	struct rec_register reg[MAX_REGISTERS];
	_Alignas(16) uint8_t bytes[XSAVE_MAX];
};

/* ---- what this Windows can ---- */

static int check_api(const struct hv_vm *vm, struct err *e)
{
	const struct whp_api *a = &vm->api;

	if (a->get_property && a->get_xsave && a->set_xsave && a->get_lapic && a->set_lapic &&
	    a->cpuid)
		return 0;
	return err_set(e, -EOPNOTSUPP,
		       "the state of a VM cannot be taken or set: expected Windows 10 20H2 or "
		       "newer");
}

/* ---- registers ---- */

static whp_hr get_register(const struct hv_vcpu *v, uint32_t name, uint8_t out[16])
{
	_Alignas(16) union whp_value val = {.u64 = 0};
	whp_hr hr = v->vm->api.get_registers(v->vm->partition, v->index, &name, 1, &val);

	memcpy(out, &val, sizeof(val));
	return hr;
}

static int get_all(const struct hv_vcpu *v, struct rec_register *to, uint32_t *n, struct err *e)
{
	struct list l;

	make_list(&l);
	*n = 0;
	for (unsigned i = 0; i < l.n; i++) {
		struct rec_register *r = &to[*n];
		whp_hr hr;

		*r = (struct rec_register){.name = l.name[i]};
		hr = get_register(v, r->name, r->value);
		if (hr < 0 && l.group[i] != MAYBE)
			return whp_fail(e, hr, "vCPU %u: state: register 0x%x", v->index, r->name);
		*n += hr >= 0;
	}
	return 0;
}

static struct rec_register at(const struct state_part *p, unsigned i)
{
	struct rec_register r;

	memcpy(&r, (const uint8_t *)p->body + i * sizeof(r), sizeof(r));
	return r;
}

/* Each register of the list at most once and in its order, all that there have to be, and none that
 * is not here. */
static int check_registers(const struct hv_vcpu *v, const struct state_part *p, struct err *e)
{
	unsigned n = p->len / (uint32_t)sizeof(struct rec_register), i = 0;
	struct list l;

	make_list(&l);
	for (unsigned k = 0; k < l.n; k++) {
		struct rec_register r = i < n ? at(p, i) : (struct rec_register){.zero = 1};
		uint8_t here[16];

		if (!r.zero && r.name == l.name[k])
			i++;
		else if (l.group[k] != MAYBE)
			return err_set(e, -EPROTO, "state: register 0x%x is missing", l.name[k]);
		else
			continue;
		if (l.group[k] == MAYBE && get_register(v, r.name, here) < 0)
			return err_set(e, -EOPNOTSUPP,
				       "state: register 0x%x, which this host lacks", r.name);
	}
	return i == n ? 0
		      : err_set(e, -EPROTO, "state: register 0x%x is not expected", at(p, i).name);
}

static int set_mode(const struct hv_vcpu *v, const struct state_part *p, unsigned n, struct err *e)
{
	_Alignas(16) union whp_value val[MAX_MODE];
	uint32_t name[MAX_MODE];
	whp_hr hr;

	if (n > MAX_MODE)
		panic("more than %u registers of the mode", MAX_MODE);
	for (unsigned i = 0; i < n; i++) {
		struct rec_register r = at(p, i);

		name[i] = r.name;
		memcpy(&val[i], r.value, sizeof(val[i]));
	}
	hr = v->vm->api.set_registers(v->vm->partition, v->index, name, n, val);
	return hr < 0 ? whp_fail(e, hr, "vCPU %u: state: the registers", v->index) : 0;
}

/* One that cannot be written is right if it has its value. */
static int set_one(const struct hv_vcpu *v, const struct rec_register *r, struct err *e)
{
	_Alignas(16) union whp_value val;
	uint8_t have[16];
	whp_hr hr;

	memcpy(&val, r->value, sizeof(val));
	hr = v->vm->api.set_registers(v->vm->partition, v->index, &r->name, 1, &val);
	if (hr >= 0 ||
	    (get_register(v, r->name, have) >= 0 && !memcmp(have, r->value, sizeof(have))))
		return 0;
	return err_set(e, -EOPNOTSUPP,
		       "vCPU %u: state: the hypervisor refuses 0x%llx for register "
		       "0x%x",
		       v->index, (unsigned long long)val.u64, r->name);
}

/* Where setting TSC_ADJUST has taken the TSC with it, the TSC is set once more: it counts for more.
 * Time stands still, so it is about what it was set to. */
static int keep_tsc(const struct hv_vcpu *v, const struct rec_register *r, struct err *e)
{
	uint64_t have = 0, want;
	uint8_t here[16];

	if (get_register(v, r->name, here) < 0)
		return err_set(e, -EIO, "vCPU %u: state: register 0x%x", v->index, r->name);
	memcpy(&have, here, sizeof(have));
	memcpy(&want, r->value, sizeof(want));
	return have - want <= v->vm->tsc_hz ? 0 : set_one(v, r, e);
}

/* `last`: those that come behind the local APIC, or else the others. */
static int set_registers(const struct hv_vcpu *v, const struct state_part *p, bool last,
			 struct err *e)
{
	unsigned n = p->len / (uint32_t)sizeof(struct rec_register), k;
	struct rec_register r, tsc = {0};
	struct list l;
	int rc;

	make_list(&l);
	rc = last ? 0 : set_mode(v, p, l.nmode, e);
	k = l.nmode;
	for (unsigned i = l.nmode; i < n && !rc; i++) {
		r = at(p, i);
		while (l.name[k] != r.name) /* it is there: check_registers() */
			k++;
		if (l.last[k] == last)
			rc = set_one(v, &r, e);
		if (r.name == WHP_REG_TSC)
			tsc = r;
	}
	return rc || last ? rc : keep_tsc(v, &tsc, e);
}

/* ---- what must be the same ---- */

/* What the guest may do by CPUID, without what differs from one vCPU or moment to the next: APIC
 * ids, OSXSAVE, OSPKE, and the sizes that depend on XCR0. */
static const struct leaf {
	uint32_t leaf, subleaf;
	uint32_t mask[4];
} leaves[] = {
	{0, 0, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}},
	{1, 0, {UINT32_MAX, 0xff00, ~(1u << 27), UINT32_MAX}},
	{7, 0, {UINT32_MAX, UINT32_MAX, ~(1u << 4), UINT32_MAX}},
	{7, 1, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}},
	{0xd, 0, {UINT32_MAX, 0, UINT32_MAX, UINT32_MAX}},
	{0xd, 1, {UINT32_MAX, 0, UINT32_MAX, UINT32_MAX}},
	{0x80000001, 0, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}},
	{0x80000007, 0, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}},
	{0x80000008, 0, {UINT32_MAX, UINT32_MAX, 0, UINT32_MAX}},
};

static int describe_vcpu(const struct hv_vcpu *v, struct rec_vcpu *r, struct err *e)
{
	const struct hv_vm *vm = v->vm;
	uint64_t sum = 14695981039346656037ull; /* FNV-1a */

	for (size_t i = 0; i < ARRAY_LEN(leaves); i++) {
		const struct leaf *l = &leaves[i];
		uint32_t is[4] = {0};
		whp_hr hr = vm->api.cpuid(vm->partition, v->index, l->leaf, l->subleaf, is);

		if (hr < 0)
			return whp_fail(e, hr, "vCPU %u: state: CPUID 0x%x", v->index, l->leaf);
		for (unsigned k = 0; k < 4; k++)
			sum = (sum ^ (is[k] & l->mask[k])) * 1099511628211ull;
	}
	*r = (struct rec_vcpu){sum, (uint32_t)(vm->tsc_hz / 1000), vm->ncpus};
	return 0;
}

static int check_vcpu(const struct hv_vcpu *v, const void *body, struct err *e)
{
	struct rec_vcpu here, want;
	int r = describe_vcpu(v, &here, e);

	if (r < 0)
		return r;
	memcpy(&want, body, sizeof(want));
	r = hv_check_vcpu(&want, &here, "Windows", e);
	return r > 0 ? hv_other_tsc(&want, &here, e) : r;
}

/* ---- a vCPU ---- */

typedef whp_hr get_fn(void *p, uint32_t index, void *buf, uint32_t size, uint32_t *written);

static int put_bytes(const struct hv_vcpu *v, uint32_t type, get_fn *get, uint32_t max,
		     struct state_out *out, struct err *e)
{
	union body b;
	uint32_t written = 0;
	whp_hr hr;
	int r;

	memset(&b, 0, sizeof(b));
	hr = get(v->vm->partition, v->index, &b, max, &written);
	if (hr < 0 || written > max)
		return whp_fail(e, hr, "vCPU %u: state: record 0x%x of %u bytes", v->index, type,
				written);
	r = state_put(out, type, VERSION, v->index, &b, written);
	return r < 0 ? err_sys(e, r, "vCPU %u: state", v->index) : 0;
}

static int put_vcpu(const struct hv_vcpu *v, struct state_out *out, struct err *e)
{
	struct rec_vcpu c;
	int r = describe_vcpu(v, &c, e);

	if (r == 0 && state_put(out, REC_VCPU, VERSION, v->index, &c, sizeof(c)))
		r = err_sys(e, -ENOSPC, "vCPU %u: state", v->index);
	return r;
}

static int put_registers(const struct hv_vcpu *v, struct state_out *out, struct err *e)
{
	union body b;
	uint32_t n;
	int r = get_all(v, b.reg, &n, e);

	if (r == 0 &&
	    state_put(out, REC_REGISTERS, VERSION, v->index, b.reg, n * (uint32_t)sizeof(b.reg[0])))
		r = err_sys(e, -ENOSPC, "vCPU %u: state", v->index);
	return r;
}

int hv_vcpu_state_get(struct hv_vcpu *v, struct state_out *out, struct err *e)
{
	size_t before = out->len;
	int r = check_api(v->vm, e);

	if (r == 0 && (v->pending != WHP_NOTHING || v->has_next))
		r = err_set(e, -EAGAIN, "vCPU %u: an exit waits to be answered", v->index);
	if (r == 0)
		r = put_vcpu(v, out, e);
	if (r == 0)
		r = put_registers(v, out, e);
	if (r == 0)
		r = put_bytes(v, REC_XSAVE, v->vm->api.get_xsave, XSAVE_MAX, out, e);
	if (r == 0)
		r = put_bytes(v, REC_LAPIC, v->vm->api.get_lapic, LAPIC_MAX, out, e);
	if (r < 0)
		out->len = before;
	return r;
}

typedef whp_hr set_fn(void *p, uint32_t index, const void *buf, uint32_t size);

/* How many bytes the hypervisor has of it; 0: it does not say. */
static uint32_t bytes_here(const struct hv_vcpu *v, get_fn *get, uint32_t max)
{
	union body b;
	uint32_t written = 0;

	return get(v->vm->partition, v->index, &b, max, &written) < 0 || written > max ? 0
										       : written;
}

static int set_bytes(const struct hv_vcpu *v, const struct state_part *p, set_fn *set,
		     struct err *e)
{
	union body b;
	whp_hr hr;

	memset(&b, 0, sizeof(b));
	memcpy(&b, p->body, p->len);
	hr = set(v->vm->partition, v->index, &b, p->len);
	return hr < 0 ? whp_fail(e, hr, "vCPU %u: state: %s", v->index, p->name) : 0;
}

int hv_vcpu_state_set(struct hv_vcpu *v, const void *state, size_t len, struct err *e)
{
	enum { VCPU, REGISTERS, XSAVE, LAPIC };
	struct state_part in[] = {
		[VCPU] = {.type = REC_VCPU,
			  .name = "the processor",
			  .size = sizeof(struct rec_vcpu)},
		[REGISTERS] = {.type = REC_REGISTERS,
			       .name = "the registers",
			       .size = MAX_REGISTERS * sizeof(struct rec_register),
			       .unit = sizeof(struct rec_register)},
		[XSAVE] = {.type = REC_XSAVE, .name = "the vector registers"},
		[LAPIC] = {.type = REC_LAPIC, .name = "the LAPIC"},
	};
	const struct whp_api *api = &v->vm->api;
	int r = check_api(v->vm, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(in); i++)
		in[i].version = VERSION;
	in[XSAVE].size = bytes_here(v, api->get_xsave, XSAVE_MAX);
	in[LAPIC].size = bytes_here(v, api->get_lapic, LAPIC_MAX);
	r = state_take(state, len, v->index, in, ARRAY_LEN(in), e);
	if (r == 0)
		r = check_vcpu(v, in[VCPU].body, e);
	if (r == 0)
		r = check_registers(v, &in[REGISTERS], e);
	if (r == 0)
		r = set_registers(v, &in[REGISTERS], false, e);
	if (r == 0)
		r = set_bytes(v, &in[XSAVE], api->set_xsave, e);
	if (r == 0)
		r = set_bytes(v, &in[LAPIC], api->set_lapic, e);
	return r == 0 ? set_registers(v, &in[REGISTERS], true, e) : r;
}

/* ---- the VM ---- */

int hv_vm_state_get(struct hv_vm *vm, struct state_out *out, struct err *e)
{
	struct rec_clock clock = {0};
	struct rec_line line[HV_MAX_LINES];
	uint32_t written = 0;
	int r = check_api(vm, e);
	whp_hr hr;

	if (r < 0)
		return r;
	hr = vm->api.get_property(vm->partition, WHP_PROP_TIME, &clock.reference,
				  sizeof(clock.reference), &written);
	if (hr < 0)
		return whp_fail(e, hr, "state: ReferenceTime");
	whp_lock_take(&vm->lock);
	for (unsigned i = 0; i < vm->nlines; i++)
		line[i] = (struct rec_line){vm->line[i].addr, vm->line[i].data, vm->line[i].routed};
	whp_lock_drop(&vm->lock);
	return hv_put_vm(out, REC_CLOCK, &clock, sizeof(clock), line, vm->nlines, e);
}

/* Until the first vCPU runs: then it goes on from where it was. */
static int set_clock(struct hv_vm *vm, const struct rec_clock *clock, struct err *e)
{
	whp_hr hr;
	int r = hv_vm_suspend_time(vm, e);

	if (r < 0 && r != -ENOSYS) /* one that cannot: time goes on, as after a pause */
		return r;
	hr = vm->api.set_property(vm->partition, WHP_PROP_TIME, &clock->reference,
				  sizeof(clock->reference));
	return hr < 0 ? whp_fail(e, hr, "state: ReferenceTime") : 0;
}

int hv_vm_state_set(struct hv_vm *vm, const void *state, size_t len, struct err *e)
{
	struct rec_clock clock;
	struct rec_line line[HV_MAX_LINES];
	int r = hv_check_state(state, len, STATE_WHP_X86, e);

	if (r == 0)
		r = check_api(vm, e);
	if (r == 0)
		r = hv_take_vm(state, len, REC_CLOCK, &clock, sizeof(clock), line, vm->nlines, e);
	if (r == 0)
		r = set_clock(vm, &clock, e);
	return r == 0 ? hv_set_lines(vm, line, vm->nlines, e) : r;
}
