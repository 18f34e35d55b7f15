/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random instructions with one memory operand, or of the string kind, for the tests that compare
 * the emulator with a processor. The list is the test's own: it shares nothing with the tables of
 * the emulator.
 */
#ifndef INSULA_TEST_X86GEN_H
#define INSULA_TEST_X86GEN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A number from the environment: a seed, a length. */
static inline uint64_t gen_setting(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

struct rng {
	uint64_t s;
};

static inline uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 7;
	r->s ^= r->s << 17;
	return r->s * UINT64_C(0x2545f4914f6cdd1d);
}

static inline unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng_next(r) >> 33) % n);
}

static inline bool rng_one_in(struct rng *r, unsigned n)
{
	return rng_below(r, n) == 0;
}

/* Values near the edges, where carries and signs live. */
static inline uint64_t rng_value(struct rng *r)
{
	static const uint64_t edges[] = {
		0,          1,          0x7f,       0x80,       0xff,       0x7fff,
		0x8000,     0xffff,     0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
		1ull << 63, UINT64_MAX,
	};

	return rng_one_in(r, 2) ? rng_next(r) : edges[rng_below(r, sizeof(edges) / 8)];
}

enum gen_flags {
	G_REG = 1,     /* modrm.reg is a register */
	G_BYTE = 2,    /* byte operand; otherwise 16, 32, 64 */
	G_IMM = 4,     /* immediate of the operand's size */
	G_IMM8 = 8,    /* one byte */
	G_LOCK = 16,   /* LOCK is possible */
	G_BITOFF = 32, /* the register is a bit number: keep it small */
	G_STRING = 64,
	G_SRC = 128, /* the string operation reads [rSI] */
	G_DST = 256, /* ... uses [rDI] */
	G_CMP = 512, /* ... compares: REPNE is possible too */
	G_PORT = 1024,
	G_MOFFS = 2048,
	G_64 = 4096,   /* 64-bit mode only */
	G_NO16 = 8192, /* never with an operand size prefix */
};

#define GF_CF 0x1u
#define GF_PF 0x4u
#define GF_AF 0x10u
#define GF_ZF 0x40u
#define GF_SF 0x80u
#define GF_OF 0x800u
#define GF_ALL (GF_CF | GF_PF | GF_AF | GF_ZF | GF_SF | GF_OF)

struct gen_op {
	const char *name;
	uint8_t opcode;
	bool two_byte;
	int8_t digit; /* modrm.reg of a group, or -1 */
	uint16_t flags;
	uint16_t undefined; /* status flags that the manual leaves open */
	uint8_t fixed_mem;  /* bytes of memory, if not the operand's size */
};

/* clang-format off */
#define GEN_ALU(name, base, lock, undef) \
	{name " r/m8, r8", (base), 0, -1, G_REG | G_BYTE | (lock), undef, 0}, \
	{name " r/m, r", (base) + 1, 0, -1, G_REG | (lock), undef, 0}, \
	{name " r8, r/m8", (base) + 2, 0, -1, G_REG | G_BYTE, undef, 0}, \
	{name " r, r/m", (base) + 3, 0, -1, G_REG, undef, 0}, \
	{name " r/m8, imm8", 0x80, 0, (base) >> 3, G_BYTE | G_IMM | (lock), undef, 0}, \
	{name " r/m, imm", 0x81, 0, (base) >> 3, G_IMM | (lock), undef, 0}, \
	{name " r/m, simm8", 0x83, 0, (base) >> 3, G_IMM8 | (lock), undef, 0}
#define GEN_BIT (GF_PF | GF_AF | GF_SF | GF_OF)
#define GEN_ONE(name, opcode, digit, flags, undef) \
	{name " r/m8", opcode, 0, digit, G_BYTE | (flags), undef, 0}, \
	{name " r/m", (opcode) + 1, 0, digit, (flags), undef, 0}
#define GEN_STR(name, opcode, flags) \
	{name "b", opcode, 0, -1, G_STRING | G_BYTE | (flags), 0, 0}, \
	{name, (opcode) + 1, 0, -1, G_STRING | (flags), 0, 0}

static const struct gen_op gen_ops[] = {
	GEN_ALU("add", 0x00, G_LOCK, 0),
	GEN_ALU("or", 0x08, G_LOCK, GF_AF),
	GEN_ALU("adc", 0x10, G_LOCK, 0),
	GEN_ALU("sbb", 0x18, G_LOCK, 0),
	GEN_ALU("and", 0x20, G_LOCK, GF_AF),
	GEN_ALU("sub", 0x28, G_LOCK, 0),
	GEN_ALU("xor", 0x30, G_LOCK, GF_AF),
	GEN_ALU("cmp", 0x38, 0, 0),
	GEN_ONE("test imm", 0xf6, 0, G_IMM, GF_AF),
	GEN_ONE("not", 0xf6, 2, G_LOCK, 0),
	GEN_ONE("neg", 0xf6, 3, G_LOCK, 0),
	GEN_ONE("inc", 0xfe, 0, G_LOCK, 0),
	GEN_ONE("dec", 0xfe, 1, G_LOCK, 0),
	GEN_ONE("test", 0x84, -1, G_REG, GF_AF),
	GEN_ONE("xchg", 0x86, -1, G_REG | G_LOCK, 0),
	GEN_ONE("mov store", 0x88, -1, G_REG, 0),
	GEN_ONE("mov load", 0x8a, -1, G_REG, 0),
	GEN_ONE("mov imm", 0xc6, 0, G_IMM, 0),
	GEN_ONE("mov load moffs", 0xa0, -1, G_MOFFS, 0),
	GEN_ONE("mov store moffs", 0xa2, -1, G_MOFFS, 0),
	{"movsxd", 0x63, 0, -1, G_REG | G_64 | G_NO16, 0, 4},
	{"movzx 8", 0xb6, 1, -1, G_REG, 0, 1},
	{"movzx 16", 0xb7, 1, -1, G_REG, 0, 2},
	{"movsx 8", 0xbe, 1, -1, G_REG, 0, 1},
	{"movsx 16", 0xbf, 1, -1, G_REG, 0, 2},
	{"movnti", 0xc3, 1, -1, G_REG | G_NO16, 0, 0},
	{"bt", 0xa3, 1, -1, G_REG | G_BITOFF, GEN_BIT, 0},
	{"bts", 0xab, 1, -1, G_REG | G_BITOFF | G_LOCK, GEN_BIT, 0},
	{"btr", 0xb3, 1, -1, G_REG | G_BITOFF | G_LOCK, GEN_BIT, 0},
	{"btc", 0xbb, 1, -1, G_REG | G_BITOFF | G_LOCK, GEN_BIT, 0},
	{"bt imm", 0xba, 1, 4, G_IMM8, GEN_BIT, 0},
	{"bts imm", 0xba, 1, 5, G_IMM8 | G_LOCK, GEN_BIT, 0},
	{"btr imm", 0xba, 1, 6, G_IMM8 | G_LOCK, GEN_BIT, 0},
	{"btc imm", 0xba, 1, 7, G_IMM8 | G_LOCK, GEN_BIT, 0},
	{"cmpxchg8", 0xb0, 1, -1, G_REG | G_BYTE | G_LOCK, 0, 0},
	{"cmpxchg", 0xb1, 1, -1, G_REG | G_LOCK, 0, 0},
	{"xadd8", 0xc0, 1, -1, G_REG | G_BYTE | G_LOCK, 0, 0},
	{"xadd", 0xc1, 1, -1, G_REG | G_LOCK, 0, 0},
	GEN_STR("movs", 0xa4, G_SRC | G_DST),
	GEN_STR("cmps", 0xa6, G_SRC | G_DST | G_CMP),
	GEN_STR("stos", 0xaa, G_DST),
	GEN_STR("lods", 0xac, G_SRC),
	GEN_STR("scas", 0xae, G_DST | G_CMP),
	GEN_STR("ins", 0x6c, G_DST | G_PORT),
	GEN_STR("outs", 0x6e, G_SRC | G_PORT),
};
/* clang-format on */
#define GEN_OPS (sizeof(gen_ops) / sizeof(gen_ops[0]))

#define GEN_SPAN 0x400u /* the operand lies within so many bytes of its target */

struct gen {
	/* what the test wants */
	unsigned bits;     /* 16, 32, 64 */
	uint16_t no_regs;  /* registers that must not be used at all: bit per register */
	bool ports;        /* ins and outs too */
	uint64_t code;     /* linear address of the instruction */
	uint64_t mem;      /* offset, in its segment, of the memory operand's target */
	uint64_t src, dst; /* the same for [rSI] and [rDI] */
	/* the result */
	const struct gen_op *op;
	uint8_t bytes[15];
	unsigned n;
	uint64_t gpr[16];
	unsigned size, addr_size;
};

static inline void gen_byte(struct gen *g, uint64_t b)
{
	if (g->n < sizeof(g->bytes))
		g->bytes[g->n++] = (uint8_t)b;
}

static inline void gen_bytes(struct gen *g, uint64_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		gen_byte(g, v >> i * 8);
}

static inline uint64_t gen_mask(unsigned size)
{
	return size == 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

static inline unsigned gen_reg(struct rng *r, const struct gen *g, uint16_t also_not)
{
	unsigned n = g->bits == 64 ? 16 : 8, reg;

	do
		reg = rng_below(r, n);
	while ((g->no_regs | also_not) >> reg & 1);
	return reg;
}

static inline const struct gen_op *gen_choose(struct rng *r, const struct gen *g)
{
	const struct gen_op *op;

	do
		op = &gen_ops[rng_below(r, GEN_OPS)];
	while (((op->flags & G_64) && g->bits != 64) || ((op->flags & G_PORT) && !g->ports));
	return op;
}

/* Set register `reg` so that `rest + reg` is `want`, in the address size. */
static inline void gen_aim(struct gen *g, unsigned reg, uint64_t want, uint64_t rest)
{
	uint64_t m = gen_mask(g->addr_size);

	g->gpr[reg] = (g->gpr[reg] & ~m) | ((want - rest) & m); /* the upper part is ignored */
}

static inline uint64_t gen_disp(struct rng *r, unsigned size)
{
	uint64_t d = rng_next(r) & gen_mask(size);

	if (size == 1)
		return (uint64_t)(int64_t)(int8_t)d;
	return size == 2 ? (uint64_t)(int64_t)(int16_t)d : (uint64_t)(int64_t)(int32_t)d;
}

/* 16-bit forms. */
static inline void gen_modrm16(struct rng *r, struct gen *g, unsigned reg, uint64_t want)
{
	static const int8_t bases[8][2] = {{3, 6},  {3, 7},  {5, 6},  {5, 7},
					   {6, -1}, {7, -1}, {5, -1}, {3, -1}};
	unsigned mod = rng_below(r, 3), rm = rng_below(r, 8);
	uint64_t disp = mod ? gen_disp(r, mod) : 0;
	uint64_t rest = disp;

	gen_byte(g, mod << 6 | (reg & 7) << 3 | rm);
	if (mod == 0 && rm == 6) {
		gen_bytes(g, want, 2);
		return;
	}
	if (bases[rm][1] >= 0)
		rest += g->gpr[(int)bases[rm][1]];
	gen_aim(g, (unsigned)bases[rm][0], want, rest);
	gen_bytes(g, disp, mod);
}

/* 32 and 64-bit forms; *rip_at is where a RIP-relative displacement is to be filled in. */
static inline void gen_modrm32(struct rng *r, struct gen *g, unsigned reg, unsigned rex_at,
			       uint64_t want, unsigned *rip_at)
{
	unsigned mod = rng_below(r, 3), size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	uint64_t disp = size ? gen_disp(r, size) : 0;
	bool sib = rng_one_in(r, 2), has_index = false;
	unsigned base = gen_reg(r, g, 0), index = 4, scale = rng_below(r, 4);
	unsigned rm = base & 7;

	if (rm == 4)
		sib = true;
	if (mod == 0 && rng_one_in(r, 4)) { /* no base register */
		gen_byte(g, (reg & 7) << 3 | (sib ? 4 : 5));
		if (sib)
			gen_byte(g, 0x25);
		if (!sib && g->bits == 64)
			*rip_at = g->n;
		gen_bytes(g, want, 4);
		return;
	}
	if (mod == 0 && rm == 5) {
		mod = 1;
		size = 1;
		disp = gen_disp(r, 1);
	}
	if (sib && !rng_one_in(r, 4)) {
		index = gen_reg(r, g, (uint16_t)(1u << base | 1u << 4));
		has_index = true;
	}
	gen_byte(g, mod << 6 | (reg & 7) << 3 | (sib ? 4 : rm));
	if (sib)
		gen_byte(g, scale << 6 | (index & 7) << 3 | rm);
	if (rex_at)
		g->bytes[rex_at - 1] |= (uint8_t)((base >> 3) | (has_index && index > 7 ? 2 : 0));
	gen_aim(g, base, want, disp + (has_index ? g->gpr[index] << scale : 0));
	gen_bytes(g, disp, size);
}

static inline void gen_prefixes(struct rng *r, struct gen *g, bool *operand_16, bool *addr_other)
{
	const struct gen_op *op = g->op;

	*operand_16 = rng_one_in(r, 3) && !(op->flags & G_NO16);
	*addr_other = rng_one_in(r, 4);
	if (*operand_16)
		gen_byte(g, 0x66);
	if (*addr_other)
		gen_byte(g, 0x67);
	if ((op->flags & G_LOCK) && rng_one_in(r, 3))
		gen_byte(g, 0xf0);
	if ((op->flags & G_STRING) && rng_one_in(r, 2))
		gen_byte(g, (op->flags & G_CMP) && rng_one_in(r, 2) ? 0xf2 : 0xf3);
}

static inline void gen_sizes(struct gen *g, bool operand_16, bool addr_other, bool rex_w)
{
	if (g->bits == 64) {
		g->size = rex_w ? 8 : operand_16 ? 2 : 4;
		g->addr_size = addr_other ? 4 : 8;
	} else {
		g->size = (g->bits == 32) != operand_16 ? 4 : 2;
		g->addr_size = (g->bits == 32) != addr_other ? 4 : 2;
	}
	if (g->op->flags & G_BYTE)
		g->size = 1;
}

static inline void gen_string(struct rng *r, struct gen *g)
{
	uint64_t high = g->addr_size == 4 && g->bits == 64 ? 0 : ~gen_mask(g->addr_size);

	g->gpr[6] = (g->gpr[6] & high) | g->src;
	g->gpr[7] = (g->gpr[7] & high) | g->dst;
	g->gpr[1] = (g->gpr[1] & high) | rng_below(r, 6);
}

static inline void gen_operand(struct rng *r, struct gen *g, unsigned rex_at, uint64_t want)
{
	const struct gen_op *op = g->op;
	unsigned reg = (unsigned)(op->digit < 0 ? 0 : op->digit), rip_at = 0, imm = 0;

	if (op->flags & G_REG)
		reg = gen_reg(r, g, 0);
	if (op->flags & G_BITOFF) {
		reg = gen_reg(r, g, 0);
		g->no_regs |= (uint16_t)(1u << reg);
		g->gpr[reg] = (uint64_t)((int64_t)rng_below(r, 1024) - 512);
	}
	if (rex_at && reg > 7)
		g->bytes[rex_at - 1] |= 4;
	else
		reg &= 7;
	if (op->flags & G_MOFFS)
		gen_bytes(g, want, g->addr_size);
	else if (g->addr_size == 2)
		gen_modrm16(r, g, reg, want);
	else
		gen_modrm32(r, g, reg, rex_at, want, &rip_at);
	if (op->flags & G_IMM)
		imm = g->size > 4 ? 4 : g->size;
	if (op->flags & G_IMM8)
		imm = 1;
	gen_bytes(g, rng_value(r), imm);
	for (unsigned i = 0; rip_at && i < 4; i++)
		g->bytes[rip_at + i] = (uint8_t)((want - g->code - g->n) >> i * 8);
}

/* One instruction, and the registers that it needs (gpr, 16 of them; RSP stays the caller's). */
static inline void gen_make(struct rng *r, struct gen *g)
{
	bool operand_16, addr_other, rex_w = false;
	unsigned rex_at = 0;
	uint16_t no_regs = g->no_regs;

	g->op = gen_choose(r, g);
	g->n = 0;
	for (unsigned i = 0; i < 16; i++)
		if (i != 4)
			g->gpr[i] = rng_value(r);
	gen_prefixes(r, g, &operand_16, &addr_other);
	if (g->bits == 64) { /* without REX the extended registers cannot be named */
		rex_w = rng_one_in(r, 3);
		if (rex_w || rng_one_in(r, 2)) {
			gen_byte(g, 0x40 | (rex_w ? 8 : 0));
			rex_at = g->n;
		} else {
			g->no_regs |= 0xff00;
		}
	}
	/* CMPXCHG: a comparison that holds is as interesting as one that does not. */
	if (g->op->two_byte && (g->op->opcode & 0xfe) == 0xb0) {
		g->no_regs |= 1;
		g->gpr[0] *= rng_below(r, 2);
	}
	gen_sizes(g, operand_16, addr_other, rex_w);
	if (g->op->two_byte)
		gen_byte(g, 0x0f);
	gen_byte(g, g->op->opcode);
	if (g->op->flags & G_STRING)
		gen_string(r, g);
	else
		gen_operand(r, g, rex_at, g->mem + rng_below(r, GEN_SPAN));
	g->no_regs = no_regs;
}

#endif
