/* SPDX-License-Identifier: BSD-2-Clause */
/* The emulator's view of the processor: modes, registers by their encoding, faults. */
#include "hv/whp/x86_internal.h"

#define ATTR_L (1u << 9)
#define ATTR_DPL_SHIFT 5

bool x86_is_64(const struct x86_state *s)
{
	return (s->efer & EFER_LMA) && (s->seg[X86_CS].attr & ATTR_L);
}

bool x86_is_protected(const struct x86_state *s)
{
	return (s->cr0 & CR0_PE) && !(s->rflags & RFLAGS_VM);
}

/* The privilege level is that of the stack segment (SDM vol. 3, 5.5; AMD APM vol. 2, 15.5.1). */
unsigned x86_cpl(const struct x86_state *s)
{
	if (!(s->cr0 & CR0_PE))
		return 0;
	return s->rflags & RFLAGS_VM ? 3 : s->seg[X86_SS].attr >> ATTR_DPL_SHIFT & 3;
}

uint64_t x86_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

uint64_t x86_sign_extend(uint64_t v, unsigned size)
{
	uint64_t sign = UINT64_C(1) << (size * 8 - 1);

	return ((v & x86_mask(size)) ^ sign) - sign;
}

/* Without REX, the byte registers 4 to 7 are AH, CH, DH and BH. */
static bool is_high_byte(const struct x86 *x, unsigned reg, unsigned size)
{
	return size == 1 && !x->insn.rex && reg >= 4 && reg < 8;
}

uint64_t x86_get_reg(const struct x86 *x, unsigned reg, unsigned size)
{
	if (is_high_byte(x, reg, size))
		return x->s.gpr[reg - 4] >> 8 & 0xff;
	return x->s.gpr[reg & 15] & x86_mask(size);
}

void x86_set_reg(struct x86 *x, unsigned reg, unsigned size, uint64_t v)
{
	bool high = is_high_byte(x, reg, size);
	unsigned at = high ? reg - 4 : reg & 15, shift = high ? 8 : 0;
	/* 32-bit results are zero-extended, smaller ones leave the rest. */
	uint64_t keep = size >= 4 ? 0 : ~(x86_mask(size) << shift);

	x->s.gpr[at] = (x->s.gpr[at] & keep) | (v & x86_mask(size)) << shift;
	x->changed |= 1u << at;
}

void x86_set_flags(struct x86 *x, uint64_t flags)
{
	x->s.rflags = (x->s.rflags & ~(uint64_t)RFLAGS_STATUS) | (flags & RFLAGS_STATUS);
	x->changed |= X86_CHANGED_RFLAGS;
}

int x86_raise(struct x86 *x, enum x86_vector v)
{
	x->fault = (struct x86_fault){.vector = (uint8_t)v};
	return X86_FAULT;
}

/* Real mode has no error codes. */
int x86_raise_code(struct x86 *x, enum x86_vector v, uint32_t code)
{
	x->fault = (struct x86_fault){
		.vector = (uint8_t)v,
		.has_code = (x->s.cr0 & CR0_PE) != 0,
		.code = code,
	};
	return X86_FAULT;
}
