/* SPDX-License-Identifier: BSD-2-Clause */
/* Results and status flags (SDM vol. 1, 3.4.3.1; vol. 2 for each operation). */
#include "hv/whp/x86_internal.h"

static bool top_bit(uint64_t v, unsigned size)
{
	return v >> (size * 8 - 1) & 1;
}

/* Zero, sign and parity depend on the result alone. */
static uint64_t result_flags(uint64_t r, unsigned size)
{
	return (r == 0 ? RFLAGS_ZF : 0) | (top_bit(r, size) ? RFLAGS_SF : 0) |
	       (__builtin_parity((unsigned)r & 0xff) ? 0 : RFLAGS_PF);
}

/* `carries` has a bit for each position that a carry or borrow left. */
static uint64_t sum_flags(uint64_t r, uint64_t carries, uint64_t overflow, unsigned size)
{
	return result_flags(r, size) | (top_bit(carries, size) ? RFLAGS_CF : 0) |
	       (carries & 8 ? RFLAGS_AF : 0) | (top_bit(overflow, size) ? RFLAGS_OF : 0);
}

static uint64_t alu_add(unsigned size, uint64_t a, uint64_t b, bool carry, uint64_t *flags)
{
	uint64_t r = (a + b + carry) & x86_mask(size);

	*flags = sum_flags(r, (a & b) | ((a | b) & ~r), (a ^ r) & (b ^ r), size);
	return r;
}

static uint64_t subtract(unsigned size, uint64_t a, uint64_t b, bool borrow, uint64_t *flags)
{
	uint64_t r = (a - b - borrow) & x86_mask(size);

	*flags = sum_flags(r, (~a & b) | ((~a | b) & r), (a ^ b) & (a ^ r), size);
	return r;
}

static uint64_t logic(enum x86_alu op, unsigned size, uint64_t a, uint64_t b, uint64_t *flags)
{
	uint64_t r = op == ALU_AND ? a & b : op == ALU_OR ? a | b : a ^ b;

	*flags = result_flags(r, size);
	return r;
}

uint64_t x86_compute(enum x86_alu op, unsigned size, uint64_t a, uint64_t b, uint64_t *flags)
{
	uint64_t carry = *flags & RFLAGS_CF, r = a;

	a &= x86_mask(size);
	b &= x86_mask(size);
	switch (op) {
	case ALU_ADD:
		return alu_add(size, a, b, false, flags);
	case ALU_ADC:
		return alu_add(size, a, b, carry, flags);
	case ALU_SUB:
	case ALU_CMP:
		return subtract(size, a, b, false, flags);
	case ALU_SBB:
		return subtract(size, a, b, carry, flags);
	case ALU_NEG:
		return subtract(size, 0, a, false, flags);
	case ALU_INC: /* these two keep the carry */
		r = alu_add(size, a, 1, false, flags);
		break;
	case ALU_DEC:
		r = subtract(size, a, 1, false, flags);
		break;
	case ALU_AND:
	case ALU_OR:
	case ALU_XOR:
		return logic(op, size, a, b, flags);
	case ALU_NOT: /* no flag at all */
		return ~a & x86_mask(size);
	}
	*flags = (*flags & ~(uint64_t)RFLAGS_CF) | carry;
	return r;
}
