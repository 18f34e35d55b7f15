/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers: one call for many, in both directions. */
#include <string.h>

#include <insula/base.h>

#include "hv/whp/backend.h"

/* The upper four attributes lie one nibble higher than in hv.h. */
struct hv_seg whp_seg_in(const struct whp_segment *w)
{
	return (struct hv_seg){
		.base = w->base,
		.limit = w->limit,
		.selector = w->selector,
		.attr = (uint16_t)((w->attr & 0xff) | (w->attr >> 4 & 0xf00)),
	};
}

struct whp_segment whp_seg_out(const struct hv_seg *s)
{
	return (struct whp_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.attr = (uint16_t)((s->attr & 0xff) | (s->attr & 0xf00) << 4),
	};
}

void whp_put(struct whp_batch *b, uint32_t name, uint64_t v)
{
	if (b->n == WHP_BATCH)
		panic("more than %d registers at a time", WHP_BATCH);
	b->name[b->n] = name;
	b->value[b->n] = (union whp_value){.u64 = v};
	b->n++;
}

int whp_write(struct hv_vcpu *v, const struct whp_batch *b)
{
	const struct hv_vm *vm = v->vm;

	return b->n ? whp_errno(vm->api.set_registers(vm->partition, v->index, b->name, b->n,
						      b->value))
		    : 0;
}

/* ---- what the emulator works on ---- */

#define STATE_SEGS (X86_GPRS + 2)
#define STATE_CONTROL (STATE_SEGS + X86_SREGS)

static const uint32_t state_names[] = {
	0,
	1,
	2,
	3,
	4,
	5,
	6,
	7,
	8,
	9,
	10,
	11,
	12,
	13,
	14,
	15,
	WHP_REG_RIP,
	WHP_REG_RFLAGS,
	WHP_REG_ES,
	WHP_REG_ES + 1,
	WHP_REG_ES + 2,
	WHP_REG_ES + 3,
	WHP_REG_ES + 4,
	WHP_REG_GS,
	WHP_REG_CR0,
	WHP_REG_CR3,
	WHP_REG_CR4,
	WHP_REG_EFER,
};

int whp_read_state(struct hv_vcpu *v, struct x86_state *s)
{
	_Alignas(16) union whp_value val[ARRAY_LEN(state_names)];
	const struct hv_vm *vm = v->vm;
	whp_hr hr;

	memset(val, 0, sizeof(val));
	hr = vm->api.get_registers(vm->partition, v->index, state_names, ARRAY_LEN(state_names),
				   val);
	if (hr < 0)
		return whp_errno(hr);
	for (unsigned i = 0; i < X86_GPRS; i++)
		s->gpr[i] = val[i].u64;
	s->rip = val[X86_GPRS].u64;
	s->rflags = val[X86_GPRS + 1].u64;
	for (unsigned i = 0; i < X86_SREGS; i++)
		s->seg[i] = whp_seg_in(&val[STATE_SEGS + i].seg);
	s->cr0 = val[STATE_CONTROL].u64;
	s->cr3 = val[STATE_CONTROL + 1].u64;
	s->cr4 = val[STATE_CONTROL + 2].u64;
	s->efer = val[STATE_CONTROL + 3].u64;
	s->phys_bits = vm->phys_bits;
	return 0;
}

/* ---- the contract's structure ---- */

enum kind { NUMBER, SEGMENT };
#define FIELD(name, field)                                    \
	{                                                     \
		name, NUMBER, offsetof(struct hv_regs, field) \
	}
#define SEG(name, field)                                       \
	{                                                      \
		name, SEGMENT, offsetof(struct hv_regs, field) \
	}

static const struct {
	uint32_t name;
	enum kind kind;
	size_t at;
} fields[] = {
	FIELD(0, rax),
	FIELD(1, rcx),
	FIELD(2, rdx),
	FIELD(3, rbx),
	FIELD(4, rsp),
	FIELD(5, rbp),
	FIELD(6, rsi),
	FIELD(7, rdi),
	FIELD(8, r8),
	FIELD(9, r9),
	FIELD(10, r10),
	FIELD(11, r11),
	FIELD(12, r12),
	FIELD(13, r13),
	FIELD(14, r14),
	FIELD(15, r15),
	FIELD(WHP_REG_RIP, rip),
	FIELD(WHP_REG_RFLAGS, rflags),
	SEG(WHP_REG_ES, es),
	SEG(WHP_REG_CS, cs),
	SEG(WHP_REG_ES + 2, ss),
	SEG(WHP_REG_ES + 3, ds),
	SEG(WHP_REG_ES + 4, fs),
	SEG(WHP_REG_GS, gs),
	SEG(WHP_REG_LDTR, ldt),
	SEG(WHP_REG_TR, tr),
	FIELD(WHP_REG_CR0, cr0),
	FIELD(WHP_REG_CR2, cr2),
	FIELD(WHP_REG_CR3, cr3),
	FIELD(WHP_REG_CR4, cr4),
	FIELD(WHP_REG_EFER, efer),
};
#define NFIELDS ARRAY_LEN(fields)
#define NREGS (NFIELDS + 2) /* and GDTR, IDTR */

static void fill_names(uint32_t *name)
{
	for (size_t i = 0; i < NFIELDS; i++)
		name[i] = fields[i].name;
	name[NFIELDS] = WHP_REG_GDTR;
	name[NFIELDS + 1] = WHP_REG_IDTR;
}

int hv_vcpu_get_regs(struct hv_vcpu *v, struct hv_regs *r, struct err *e)
{
	_Alignas(16) union whp_value val[NREGS];
	uint32_t name[NREGS];
	whp_hr hr;

	fill_names(name);
	memset(val, 0, sizeof(val));
	hr = v->vm->api.get_registers(v->vm->partition, v->index, name, NREGS, val);
	if (hr < 0)
		return whp_fail(e, hr, "vCPU %u: registers", v->index);
	for (size_t i = 0; i < NFIELDS; i++) {
		void *to = (char *)r + fields[i].at;

		if (fields[i].kind == SEGMENT)
			*(struct hv_seg *)to = whp_seg_in(&val[i].seg);
		else
			*(uint64_t *)to = val[i].u64;
	}
	r->gdt_base = val[NFIELDS].table.base;
	r->gdt_limit = val[NFIELDS].table.limit;
	r->idt_base = val[NFIELDS + 1].table.base;
	r->idt_limit = val[NFIELDS + 1].table.limit;
	return 0;
}

int hv_vcpu_set_regs(struct hv_vcpu *v, const struct hv_regs *r, struct err *e)
{
	_Alignas(16) union whp_value val[NREGS];
	uint32_t name[NREGS];
	whp_hr hr;

	fill_names(name);
	memset(val, 0, sizeof(val));
	for (size_t i = 0; i < NFIELDS; i++) {
		const void *from = (const char *)r + fields[i].at;

		if (fields[i].kind == SEGMENT)
			val[i].seg = whp_seg_out(from);
		else
			val[i].u64 = *(const uint64_t *)from;
	}
	val[NFIELDS].table = (struct whp_table){.base = r->gdt_base, .limit = r->gdt_limit};
	val[NFIELDS + 1].table = (struct whp_table){.base = r->idt_base, .limit = r->idt_limit};
	hr = v->vm->api.set_registers(v->vm->partition, v->index, name, NREGS, val);
	return hr < 0 ? whp_fail(e, hr, "vCPU %u: set registers", v->index) : 0;
}
