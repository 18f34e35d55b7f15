/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From bytes to struct x86_insn: prefixes, opcode, ModRM, SIB, displacement, immediate.
 *
 * An instruction without a memory operand, and everything that the tables do not list, is unknown:
 * it cannot have caused the exit, or we cannot help.
 */
#include "hv/whp/x86_internal.h"

#define ATTR_DB (1u << 10)

struct modrm {
	uint8_t mod, rm;
	uint8_t base, index, scale; /* registers with REX; NONE */
	uint8_t disp_size;
	bool rip_relative;
};
#define NONE 0xff

static void set_segment(struct x86_insn *n, unsigned seg)
{
	n->seg = (uint8_t)seg;
	n->seg_given = true;
}

/* Legacy prefixes, in any order and number (SDM vol. 2, 2.1.1). False: not one. */
static bool take_prefix(struct x86_insn *n, uint8_t b, bool is_64)
{
	static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};

	for (unsigned i = 0; i < X86_SREGS; i++) {
		if (b != segments[i])
			continue;
		if (!is_64 || i >= X86_FS)
			set_segment(n, i);
		return true;
	}
	if (b == 0x66)
		n->operand_16 = true;
	else if (b == 0x67)
		n->addr_other = true;
	else if (b == 0xf0)
		n->lock = true;
	else if (b == 0xf2 || b == 0xf3)
		n->rep = b;
	else
		return false;
	return true;
}

/* REX counts only right before the opcode: whatever prefix comes later takes it away. */
static bool take_rex(struct x86_insn *n, uint8_t b, bool is_64)
{
	n->rex = is_64 && (b & 0xf0) == 0x40;
	n->rex_w = n->rex && (b & 8);
	n->rex_r = n->rex && (b & 4);
	n->rex_x = n->rex && (b & 2);
	n->rex_b = n->rex && (b & 1);
	return n->rex;
}

/* All prefixes; *opcode is the first byte after them. */
static int decode_prefixes(struct x86 *x, uint64_t *opcode)
{
	bool is_64 = x86_is_64(&x->s);

	for (;;) {
		struct x86_insn before = x->insn;
		int r = x86_fetch(x, 1, opcode);
		uint8_t b = (uint8_t)*opcode;

		if (r != X86_DONE)
			return r;
		if (take_rex(&x->insn, b, is_64) || take_prefix(&x->insn, b, is_64))
			continue;
		/* The opcode: what was right before it counts. */
		before.len = x->insn.len;
		x->insn = before;
		return X86_DONE;
	}
}

static int decode_opcode(struct x86 *x)
{
	uint64_t b = 0;
	int r = decode_prefixes(x, &b);
	bool two = b == 0x0f;

	if (r == X86_DONE && two)
		r = x86_fetch(x, 1, &b);
	if (r != X86_DONE)
		return r;
	x->insn.opcode = (uint8_t)b;
	x->insn.op = two ? &x86_two_byte[b] : &x86_one_byte[b];
	return X86_DONE;
}

static void set_sizes(struct x86 *x)
{
	struct x86_insn *n = &x->insn;
	bool is_64 = x86_is_64(&x->s), big = x->s.seg[X86_CS].attr & ATTR_DB;

	/* Outside protected mode a code segment is 16 bit, unless it kept a D bit ("unreal"). */
	if (is_64) {
		n->size = n->rex_w ? 8 : n->operand_16 ? 2 : 4;
		n->addr_size = n->addr_other ? 4 : 8;
	} else {
		n->size = big != n->operand_16 ? 4 : 2;
		n->addr_size = big != n->addr_other ? 4 : 2;
	}
}

/* What the operation itself says about the operand's size. */
static void adjust_size(struct x86_insn *n)
{
	if ((n->op->flags & OP_NO16) && n->size == 2)
		n->size = 4;
	if ((n->op->flags & OP_BYTE_W) && !(n->opcode & 1))
		n->size = 1;
	if (n->op->flags & OP_SIZE16)
		n->size = 2;
}

static uint64_t reg_or_zero(const struct x86 *x, uint8_t reg)
{
	return reg == NONE ? 0 : x->s.gpr[reg];
}

/* 16-bit forms (SDM vol. 2, table 2-1). */
static int decode_rm16(struct x86 *x, struct modrm *m)
{
	static const uint8_t base[] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
				       X86_RSI, X86_RDI, X86_RBP, X86_RBX};
	static const uint8_t index[] = {X86_RSI, X86_RDI, X86_RSI, X86_RDI, NONE, NONE, NONE, NONE};

	(void)x;
	m->base = base[m->rm];
	m->index = index[m->rm];
	m->disp_size = m->mod;
	if (m->mod == 0 && m->rm == 6) {
		m->base = NONE;
		m->disp_size = 2;
	}
	return X86_DONE;
}

static int decode_sib(struct x86 *x, struct modrm *m)
{
	uint64_t sib = 0;
	int r = x86_fetch(x, 1, &sib);
	unsigned index = (sib >> 3 & 7) | (x->insn.rex_x ? 8 : 0);

	m->scale = (uint8_t)(sib >> 6);
	m->index = index == X86_RSP ? NONE : (uint8_t)index;
	m->base = (uint8_t)((sib & 7) | (x->insn.rex_b ? 8 : 0));
	if ((sib & 7) == X86_RBP && m->mod == 0) {
		m->base = NONE;
		m->disp_size = 4;
	}
	return r;
}

/* 32 and 64-bit forms (SDM vol. 2, table 2-2). */
static int decode_rm32(struct x86 *x, struct modrm *m)
{
	m->disp_size = m->mod == 1 ? 1 : m->mod == 2 ? 4 : 0;
	if (m->rm == X86_RSP)
		return decode_sib(x, m);
	m->base = (uint8_t)(m->rm | (x->insn.rex_b ? 8 : 0));
	if (m->rm == X86_RBP && m->mod == 0) {
		m->base = NONE;
		m->disp_size = 4;
		m->rip_relative = x86_is_64(&x->s);
	}
	return X86_DONE;
}

static void set_ea(struct x86 *x, const struct modrm *m, uint64_t disp)
{
	struct x86_insn *n = &x->insn;

	n->ea = (reg_or_zero(x, m->base) + (reg_or_zero(x, m->index) << m->scale) + disp) &
		x86_mask(n->addr_size);
	if (!n->seg_given && (m->base == X86_RSP || m->base == X86_RBP))
		n->seg = X86_SS;
}

static int decode_modrm(struct x86 *x, struct modrm *m)
{
	struct x86_insn *n = &x->insn;
	uint64_t b = 0, disp = 0;
	int r = x86_fetch(x, 1, &b);

	if (r != X86_DONE)
		return r;
	m->mod = (uint8_t)(b >> 6);
	m->rm = b & 7;
	n->reg = (b >> 3 & 7);
	if (n->op->flags & OP_GROUP)
		n->op = &n->op->group[n->reg];
	else
		n->reg = (uint8_t)(n->reg | (n->rex_r ? 8 : 0));
	if (m->mod == 3 || !n->op->exec)
		return X86_UNKNOWN;
	r = n->addr_size == 2 ? decode_rm16(x, m) : decode_rm32(x, m);
	if (r == X86_DONE)
		r = x86_fetch(x, m->disp_size, &disp);
	if (r == X86_DONE)
		set_ea(x, m, m->disp_size ? x86_sign_extend(disp, m->disp_size) : 0);
	return r;
}

static int decode_imm(struct x86 *x)
{
	unsigned size = x->insn.op->flags & OP_IMM8 ? 1 : x->insn.size > 4 ? 4 : x->insn.size;
	int r = x86_fetch(x, size, &x->insn.imm);

	x->insn.imm = x86_sign_extend(x->insn.imm, size);
	return r;
}

/* LOCK belongs to a list of operations that write memory; anywhere else it is #UD. */
static int check_decoded(struct x86 *x)
{
	const struct x86_insn *n = &x->insn;

	if (!n->op->exec || ((n->op->flags & OP_ONLY64) && !x86_is_64(&x->s)))
		return X86_UNKNOWN;
	return n->lock && !(n->op->flags & OP_LOCK) ? x86_raise(x, X86_VEC_UD) : X86_DONE;
}

int x86_decode(struct x86 *x)
{
	struct x86_insn *n = &x->insn;
	struct modrm m = {.base = NONE, .index = NONE};
	int r;

	*n = (struct x86_insn){.seg = X86_DS};
	r = decode_opcode(x);
	if (r != X86_DONE)
		return r;
	set_sizes(x);
	if (n->op->flags & OP_MODRM)
		r = decode_modrm(x, &m);
	if (r != X86_DONE)
		return r;
	adjust_size(n);
	if (n->op->flags & OP_MOFFS)
		r = x86_fetch(x, n->addr_size, &n->ea);
	if (r == X86_DONE && (n->op->flags & (OP_IMM | OP_IMM8)))
		r = decode_imm(x);
	if (r != X86_DONE)
		return r;
	if (m.rip_relative)
		n->ea = (n->ea + x->s.rip + n->len) & x86_mask(n->addr_size);
	return check_decoded(x);
}
