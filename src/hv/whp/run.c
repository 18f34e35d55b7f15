/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Running a virtual processor, and what it says afterwards, as one neutral exit.
 *
 * The hypervisor stops before the instruction and leaves it to us. A plain IN, OUT, RDMSR, WRMSR or
 * CPUID is finished with the registers of the exit; a memory access and a string instruction go to
 * the emulator (x86.h), which asks for each device access in turn: the first is the exit,
 * hv_vcpu_complete() runs on, and what it asks next is the next exit, without entering the guest.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "hv/whp/backend.h"

#define VECTOR_UD 6
#define VECTOR_GP 13
#define VECTOR_PF 14
#define RFLAGS_TF (1u << 8)
#define RFLAGS_RF (1u << 16)
#define ATTR_L (1u << 13)
#define TWO_BYTES 2 /* CPUID, RDMSR, WRMSR */

typedef int exit_fn(struct hv_vcpu *v, struct hv_exit *x); /* 0 or a negative errno */

/* ---- registers after an instruction ---- */

/* What ends with every instruction: the shadow of MOV SS and STI, RF, a single step. */
static void end_instruction(struct hv_vcpu *v, struct whp_batch *b, bool trap)
{
	if (v->exit.vp.state & WHP_VP_SHADOW)
		whp_put(b, (uint32_t)WHP_REG_INTERRUPT_STATE, 0);
	if (trap)
		whp_put(b, (uint32_t)WHP_REG_PENDING_DEBUG, WHP_DEBUG_STEP);
}

static void skip_instruction(struct hv_vcpu *v, struct whp_batch *b, unsigned len)
{
	const struct whp_vp_context *c = &v->exit.vp;
	uint64_t rip = c->rip + len;

	whp_put(b, WHP_REG_RIP, c->cs.attr & ATTR_L ? rip : rip & UINT32_MAX);
	if (c->rflags & RFLAGS_RF)
		whp_put(b, WHP_REG_RFLAGS, c->rflags & ~(uint64_t)RFLAGS_RF);
	end_instruction(v, b, c->rflags & RFLAGS_TF);
}

static int commit_emulated(struct hv_vcpu *v)
{
	const struct x86 *x = &v->x86;
	struct whp_batch b = {.n = 0};

	for (unsigned i = 0; i < X86_GPRS; i++)
		if (x->changed & 1u << i)
			whp_put(&b, i, x->s.gpr[i]);
	if (x->changed & X86_CHANGED_RIP)
		whp_put(&b, WHP_REG_RIP, x->s.rip);
	if (x->changed & X86_CHANGED_RFLAGS)
		whp_put(&b, WHP_REG_RFLAGS, x->s.rflags);
	end_instruction(v, &b, x->trap);
	return whp_write(v, &b);
}

static int inject(struct hv_vcpu *v, const struct x86_fault *f)
{
	struct whp_batch b = {.n = 0};

	if (f->vector == VECTOR_PF)
		whp_put(&b, WHP_REG_CR2, f->cr2);
	whp_put(&b, (uint32_t)WHP_REG_PENDING_EVENT, 0);
	b.value[b.n - 1].event = (struct whp_event){
		.what = WHP_EVENT_PENDING | (f->has_code ? WHP_EVENT_HAS_CODE : 0) |
			(uint32_t)f->vector << WHP_EVENT_VECTOR_SHIFT,
		.error_code = f->code,
		.parameter = f->cr2,
	};
	return whp_write(v, &b);
}

/* ---- errors ---- */

__attribute__((format(printf, 3, 4))) static int set_error(struct hv_vcpu *v, struct hv_exit *x,
							   const char *fmt, ...)
{
	va_list ap;

	x->kind = HV_EXIT_ERROR;
	x->u.error.code = v->exit.reason;
	x->u.error.pc = v->exit.vp.rip;
	va_start(ap, fmt);
	vsnprintf(x->u.error.text, sizeof(x->u.error.text), fmt, ap);
	va_end(ap);
	return 0;
}

/* Unprivileged code gets #UD, as it would from KVM: it must not be able to end the VM. */
static int on_unknown(struct hv_vcpu *v, struct hv_exit *x)
{
	static const struct x86_fault ud = {.vector = VECTOR_UD};
	const struct x86 *e = &v->x86;

	if ((v->exit.vp.state & 3) == 3)
		return inject(v, &ud);
	memcpy(x->u.error.insn, e->bytes, e->nbytes);
	x->u.error.ninsn = e->nbytes;
	return set_error(v, x, "an instruction that accesses a device cannot be emulated");
}

/* ---- the emulator ---- */

/* What the emulator's result means; also from hv_vcpu_complete(). */
static int settle_access(struct hv_vcpu *v, int result, struct hv_exit *x)
{
	const struct x86_access *a = &v->x86.log[v->x86.nlog];

	v->pending = result == X86_MMIO || result == X86_PIO ? WHP_EMULATION : WHP_NOTHING;
	if (result == X86_DONE)
		return commit_emulated(v);
	if (result == X86_FAULT)
		return inject(v, &v->x86.fault);
	if (result == X86_UNKNOWN)
		return on_unknown(v, x);
	if (result == X86_MMIO) {
		x->kind = HV_EXIT_MMIO;
		x->u.mmio.gpa = a->gpa;
		x->u.mmio.size = a->size;
		x->u.mmio.write = a->write;
		memcpy(x->u.mmio.data, a->data, sizeof(a->data));
	} else if (result == X86_PIO) {
		x->kind = HV_EXIT_PIO;
		x->u.pio.port = v->x86.pio.port;
		x->u.pio.size = v->x86.pio.size;
		x->u.pio.out = v->x86.pio.out;
		x->u.pio.count = v->x86.pio.count;
		x->u.pio.data = v->x86.pio.data;
	}
	return 0;
}

static int emulate(struct hv_vcpu *v, enum x86_why why, const struct whp_bytes *insn,
		   struct hv_exit *x)
{
	int r = whp_read_state(v, &v->x86.s);

	if (r < 0)
		return r;
	v->x86.mem = (struct x86_mem){whp_mem_find, v->vm};
	whp_lock_take_shared(&v->vm->mem_lock);
	r = x86_begin(&v->x86, why, insn->byte, insn->count);
	whp_lock_drop_shared(&v->vm->mem_lock);
	return settle_access(v, r, x);
}

/* ---- exits ---- */

static int on_memory(struct hv_vcpu *v, struct hv_exit *x)
{
	return emulate(v, X86_WHY_MMIO, &v->exit.u.memory.insn, x);
}

static int on_port(struct hv_vcpu *v, struct hv_exit *x)
{
	const struct whp_port_access *p = &v->exit.u.port;
	unsigned size = WHP_PORT_SIZE(p->info);

	if (p->info & WHP_PORT_STRING)
		return emulate(v, X86_WHY_PIO, &p->insn, x);
	if (size != 1 && size != 2 && size != 4)
		return set_error(v, x, "access of %u bytes to port 0x%x", size, p->port);
	v->port_data = (uint32_t)p->rax;
	v->pending = WHP_PORT;
	x->kind = HV_EXIT_PIO;
	x->u.pio.port = p->port;
	x->u.pio.size = (uint8_t)size;
	x->u.pio.out = p->info & WHP_PORT_WRITE;
	x->u.pio.count = 1;
	x->u.pio.data = &v->port_data;
	return 0;
}

static int on_msr(struct hv_vcpu *v, struct hv_exit *x)
{
	const struct whp_msr_access *m = &v->exit.u.msr;

	v->pending = WHP_MSR;
	x->kind = HV_EXIT_MSR;
	x->u.msr.index = m->index;
	x->u.msr.write = m->info & WHP_MSR_WRITE;
	x->u.msr.value = x->u.msr.write ? (m->rdx << 32 | (uint32_t)m->rax) : 0;
	x->u.msr.fault = false;
	return 0;
}

/* Answered here: the topology is the backend's (hv_vcpu_create()). */
static int on_cpuid(struct hv_vcpu *v, struct hv_exit *x)
{
	const struct whp_cpuid_access *c = &v->exit.u.cpuid;
	const struct hv_vm *vm = v->vm;
	struct whp_cpuid_params p = {v->index, vm->ncpus, vm->amd, vm->tsc_hz, vm->apic_hz};
	uint32_t r[4] = {(uint32_t)c->default_rax, (uint32_t)c->default_rbx,
			 (uint32_t)c->default_rcx, (uint32_t)c->default_rdx};
	struct whp_batch b = {.n = 0};

	(void)x;
	whp_cpuid_fix(&p, (uint32_t)c->rax, (uint32_t)c->rcx, r);
	whp_put(&b, X86_RAX, r[0]);
	whp_put(&b, X86_RBX, r[1]);
	whp_put(&b, X86_RCX, r[2]);
	whp_put(&b, X86_RDX, r[3]);
	skip_instruction(v, &b, TWO_BYTES);
	return whp_write(v, &b);
}

static int on_eoi(struct hv_vcpu *v, struct hv_exit *x)
{
	x->kind = HV_EXIT_EOI;
	x->u.eoi.vector = (uint8_t)v->exit.u.eoi_vector;
	return 0;
}

static int on_canceled(struct hv_vcpu *v, struct hv_exit *x)
{
	if (atomic_exchange(&v->kicked, false))
		x->kind = HV_EXIT_CANCELED;
	return 0;
}

static int on_invalid_register(struct hv_vcpu *v, struct hv_exit *x)
{
	return set_error(v, x, "the hypervisor refuses a register's value");
}

static int on_unsupported(struct hv_vcpu *v, struct hv_exit *x)
{
	const struct whp_unsupported *u = &v->exit.u.unsupported;

	return set_error(v, x, "unsupported feature %u, parameter 0x%llx", u->feature,
			 (unsigned long long)u->parameter);
}

static const struct {
	uint32_t reason;
	enum hv_exit_kind kind; /* before `fn` */
	exit_fn *fn;            /* NULL: the kind says it all */
} exits[] = {
	{WHP_EXIT_NONE, HV_EXIT_NONE, NULL},
	{WHP_EXIT_MEMORY, HV_EXIT_NONE, on_memory},
	{WHP_EXIT_PORT, HV_EXIT_NONE, on_port},
	{WHP_EXIT_UNRECOVERABLE, HV_EXIT_SHUTDOWN, NULL},
	{WHP_EXIT_INVALID_REGISTER, HV_EXIT_NONE, on_invalid_register},
	{WHP_EXIT_UNSUPPORTED, HV_EXIT_NONE, on_unsupported},
	{WHP_EXIT_WINDOW, HV_EXIT_IRQ_WINDOW, NULL},
	{WHP_EXIT_HALT, HV_EXIT_HALT, NULL},
	{WHP_EXIT_EOI, HV_EXIT_NONE, on_eoi},
	{WHP_EXIT_MSR, HV_EXIT_NONE, on_msr},
	{WHP_EXIT_CPUID, HV_EXIT_NONE, on_cpuid},
	{WHP_EXIT_CANCELED, HV_EXIT_NONE, on_canceled},
};

static int dispatch_exit(struct hv_vcpu *v, struct hv_exit *x)
{
	for (size_t i = 0; i < ARRAY_LEN(exits); i++) {
		if (exits[i].reason != v->exit.reason)
			continue;
		x->kind = exits[i].kind;
		return exits[i].fn ? exits[i].fn(v, x) : 0;
	}
	return set_error(v, x, "unexpected exit reason 0x%x", v->exit.reason);
}

int hv_vcpu_run(struct hv_vcpu *v, struct hv_exit *x)
{
	whp_hr hr;

	if (v->pending != WHP_NOTHING)
		return -EINVAL; /* hv_vcpu_complete() was left out */
	if (v->has_next) {
		v->has_next = false;
		*x = v->next;
		/* Only now is there something to complete. */
		v->pending = x->kind == HV_EXIT_ERROR ? WHP_NOTHING : WHP_EMULATION;
		return 0;
	}
	memset(x, 0, sizeof(*x));
	if (atomic_exchange(&v->kicked, false)) {
		x->kind = HV_EXIT_CANCELED;
		return 0;
	}
	memset(&v->exit, 0, sizeof(v->exit));
	hr = v->vm->api.run(v->vm->partition, v->index, &v->exit, sizeof(v->exit));
	return hr < 0 ? whp_errno(hr) : dispatch_exit(v, x);
}

/* ---- completion ---- */

static int complete_port(struct hv_vcpu *v, const struct hv_exit *x)
{
	unsigned size = x->u.pio.size, bits = size * 8;
	uint64_t keep = size == 4 ? 0 : ~((UINT64_C(1) << bits) - 1);
	uint64_t mask = (UINT64_C(1) << bits) - 1;
	struct whp_batch b = {.n = 0};

	if (!x->u.pio.out)
		whp_put(&b, X86_RAX, (v->exit.u.port.rax & keep) | (v->port_data & mask));
	skip_instruction(v, &b, v->exit.vp.insn_len & 15);
	return whp_write(v, &b);
}

static int complete_msr(struct hv_vcpu *v, const struct hv_exit *x)
{
	static const struct x86_fault gp = {.vector = VECTOR_GP, .has_code = true};
	struct whp_batch b = {.n = 0};

	if (x->u.msr.fault)
		return inject(v, &gp);
	if (!x->u.msr.write) {
		whp_put(&b, X86_RAX, (uint32_t)x->u.msr.value);
		whp_put(&b, X86_RDX, x->u.msr.value >> 32);
	}
	skip_instruction(v, &b, TWO_BYTES);
	return whp_write(v, &b);
}

static int complete_emulation(struct hv_vcpu *v, const struct hv_exit *x)
{
	struct hv_exit next = {.kind = HV_EXIT_NONE};
	struct x86_access *a = &v->x86.log[v->x86.nlog];
	int r;

	if (x->kind == HV_EXIT_MMIO && !a->write)
		memcpy(a->data, x->u.mmio.data, sizeof(a->data));
	whp_lock_take_shared(&v->vm->mem_lock);
	r = x86_resume(&v->x86);
	whp_lock_drop_shared(&v->vm->mem_lock);
	r = settle_access(v, r, &next);
	if (next.kind != HV_EXIT_NONE) {
		v->next = next;
		v->has_next = true;
		v->pending = WHP_NOTHING;
	}
	return r;
}

int hv_vcpu_complete(struct hv_vcpu *v, struct hv_exit *x)
{
	enum whp_pending p = v->pending;

	v->pending = WHP_NOTHING;
	if (p == WHP_PORT)
		return complete_port(v, x);
	if (p == WHP_MSR)
		return complete_msr(v, x);
	return p == WHP_EMULATION ? complete_emulation(v, x) : 0;
}
