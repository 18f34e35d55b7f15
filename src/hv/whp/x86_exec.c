/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operations with one memory operand. Each does its accesses first and changes registers last:
 * it is run again from the start after each answer of a device.
 */
#include "hv/whp/x86_internal.h"

int x86_finish(struct x86 *x)
{
	uint64_t rip = x->s.rip + x->insn.len;

	x->s.rip = x86_is_64(&x->s) ? rip : rip & UINT32_MAX;
	x->s.rflags &= ~(uint64_t)RFLAGS_RF;
	x->changed |= X86_CHANGED_RIP | X86_CHANGED_RFLAGS;
	return X86_DONE;
}

static unsigned register_operand(const struct x86_insn *n)
{
	return n->op->flags & OP_ACC ? X86_RAX : n->reg;
}

/* The operand that is not memory. */
static uint64_t source(const struct x86 *x)
{
	const struct x86_insn *n = &x->insn;

	if (n->op->flags & (OP_IMM | OP_IMM8))
		return n->imm & x86_mask(n->size);
	return x86_get_reg(x, register_operand(n), n->size);
}

static int load_operand(struct x86 *x, unsigned size, uint64_t *v)
{
	return x86_read(x, x->insn.seg, x->insn.ea, size, v);
}

static int store(struct x86 *x, uint64_t v)
{
	return x86_write(x, x->insn.seg, x->insn.ea, x->insn.size, v);
}

int x86_mov_store(struct x86 *x)
{
	int r = store(x, source(x));

	return r == X86_DONE ? x86_finish(x) : r;
}

int x86_mov_load(struct x86 *x)
{
	uint64_t v;
	int r = load_operand(x, x->insn.size, &v);

	if (r != X86_DONE)
		return r;
	x86_set_reg(x, register_operand(&x->insn), x->insn.size, v);
	return x86_finish(x);
}

int x86_mov_sreg(struct x86 *x)
{
	unsigned reg = x->insn.reg & 7;
	int r;

	if (reg >= X86_SREGS)
		return x86_raise(x, X86_VEC_UD);
	r = store(x, x->s.seg[reg].selector);
	return r == X86_DONE ? x86_finish(x) : r;
}

int x86_movzx(struct x86 *x)
{
	uint64_t v;
	int r = load_operand(x, x->insn.op->arg, &v);

	if (r != X86_DONE)
		return r;
	x86_set_reg(x, x->insn.reg, x->insn.size, v);
	return x86_finish(x);
}

int x86_movsx(struct x86 *x)
{
	unsigned from = x->insn.op->arg;
	uint64_t v;
	int r;

	if (from > x->insn.size) /* MOVSXD with a 16-bit operand is a plain move */
		from = x->insn.size;
	r = load_operand(x, from, &v);
	if (r != X86_DONE)
		return r;
	x86_set_reg(x, x->insn.reg, x->insn.size, x86_sign_extend(v, from));
	return x86_finish(x);
}

int x86_alu_mem(struct x86 *x)
{
	enum x86_alu op = x->insn.op->arg;
	bool only_flags = op == ALU_CMP;
	uint64_t v, flags = x->s.rflags, result;
	int r = only_flags ? load_operand(x, x->insn.size, &v) : x86_read_for_write(x, &v);

	if (r != X86_DONE)
		return r;
	result = x86_compute(op, x->insn.size, v, source(x), &flags);
	if (!only_flags)
		r = store(x, result);
	if (r != X86_DONE)
		return r;
	x86_set_flags(x, flags);
	return x86_finish(x);
}

int x86_alu_reg(struct x86 *x)
{
	enum x86_alu op = x->insn.op->arg;
	uint64_t v, flags = x->s.rflags, result;
	int r = load_operand(x, x->insn.size, &v);

	if (r != X86_DONE)
		return r;
	result = x86_compute(op, x->insn.size, source(x), v, &flags);
	if (op != ALU_CMP)
		x86_set_reg(x, x->insn.reg, x->insn.size, result);
	x86_set_flags(x, flags);
	return x86_finish(x);
}

int x86_test(struct x86 *x)
{
	uint64_t v, flags = x->s.rflags;
	int r = load_operand(x, x->insn.size, &v);

	if (r != X86_DONE)
		return r;
	x86_compute(ALU_AND, x->insn.size, v, source(x), &flags);
	x86_set_flags(x, flags);
	return x86_finish(x);
}

int x86_unary(struct x86 *x)
{
	uint64_t v, flags = x->s.rflags, result;
	int r = x86_read_for_write(x, &v);

	if (r != X86_DONE)
		return r;
	result = x86_compute(x->insn.op->arg, x->insn.size, v, 0, &flags);
	r = store(x, result);
	if (r != X86_DONE)
		return r;
	x86_set_flags(x, flags);
	return x86_finish(x);
}

/* A bit number in a register reaches beyond the operand: it moves the address (SDM vol. 2, BT). */
static unsigned choose_bit(struct x86 *x)
{
	struct x86_insn *n = &x->insn;
	unsigned bits = n->size * 8u;
	int64_t number;

	if (n->op->flags & OP_IMM8)
		return (unsigned)n->imm & (bits - 1);
	number = (int64_t)x86_sign_extend(source(x), n->size);
	n->ea = (n->ea + (uint64_t)(number >> __builtin_ctz(bits)) * n->size) &
		x86_mask(n->addr_size);
	return (unsigned)number & (bits - 1);
}

static uint64_t change_bit(enum x86_bit op, uint64_t v, uint64_t bit)
{
	return op == BIT_SET ? v | bit : op == BIT_RESET ? v & ~bit : v ^ bit;
}

static int bit_at(struct x86 *x, uint64_t bit)
{
	enum x86_bit op = x->insn.op->arg;
	bool only_flags = op == BIT_TEST;
	uint64_t v;
	int r = only_flags ? load_operand(x, x->insn.size, &v) : x86_read_for_write(x, &v);

	if (r == X86_DONE && !only_flags)
		r = store(x, change_bit(op, v, bit));
	if (r != X86_DONE)
		return r;
	x86_set_flags(x, (x->s.rflags & ~(uint64_t)RFLAGS_CF) | (v & bit ? RFLAGS_CF : 0));
	return x86_finish(x);
}

int x86_bit(struct x86 *x)
{
	uint64_t ea = x->insn.ea;
	int r = bit_at(x, UINT64_C(1) << choose_bit(x));

	x->insn.ea = ea; /* for the next run */
	return r;
}

int x86_xchg(struct x86 *x)
{
	uint64_t v;
	int r = x86_read_for_write(x, &v);

	if (r == X86_DONE)
		r = store(x, source(x));
	if (r != X86_DONE)
		return r;
	x86_set_reg(x, x->insn.reg, x->insn.size, v);
	return x86_finish(x);
}

/* Memory is written in either case, with its old value if it is not the expected one. */
int x86_cmpxchg(struct x86 *x)
{
	unsigned size = x->insn.size;
	uint64_t v, flags = x->s.rflags, expected = x86_get_reg(x, X86_RAX, size);
	int r = x86_read_for_write(x, &v);

	if (r == X86_DONE)
		r = store(x, v == expected ? source(x) : v);
	if (r != X86_DONE)
		return r;
	x86_compute(ALU_CMP, size, expected, v, &flags);
	if (v != expected)
		x86_set_reg(x, X86_RAX, size, v);
	x86_set_flags(x, flags);
	return x86_finish(x);
}

int x86_xadd(struct x86 *x)
{
	uint64_t v, flags = x->s.rflags, sum;
	int r = x86_read_for_write(x, &v);

	if (r != X86_DONE)
		return r;
	sum = x86_compute(ALU_ADD, x->insn.size, v, source(x), &flags);
	r = store(x, sum);
	if (r != X86_DONE)
		return r;
	x86_set_reg(x, x->insn.reg, x->insn.size, v);
	x86_set_flags(x, flags);
	return x86_finish(x);
}
