/* SPDX-License-Identifier: BSD-2-Clause */
/* Between the files of the emulator: see x86.h. Functions that return int return enum x86_result.
 */
#ifndef INSULA_HV_WHP_X86_INTERNAL_H
#define INSULA_HV_WHP_X86_INTERNAL_H

#include "hv/whp/x86.h"

#define X86_PAGE 4096u

#define CR0_PE (1u << 0)
#define CR0_WP (1u << 16)
#define CR0_PG (1u << 31)
#define CR4_PSE (1u << 4)
#define CR4_PAE (1u << 5)
#define CR4_LA57 (1u << 12)
#define CR4_SMEP (1u << 20)
#define CR4_SMAP (1u << 21)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

#define RFLAGS_CF (1u << 0)
#define RFLAGS_PF (1u << 2)
#define RFLAGS_AF (1u << 4)
#define RFLAGS_ZF (1u << 6)
#define RFLAGS_SF (1u << 7)
#define RFLAGS_TF (1u << 8)
#define RFLAGS_DF (1u << 10)
#define RFLAGS_OF (1u << 11)
#define RFLAGS_IOPL_SHIFT 12
#define RFLAGS_RF (1u << 16)
#define RFLAGS_VM (1u << 17)
#define RFLAGS_AC (1u << 18)
#define RFLAGS_STATUS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

enum x86_vector { X86_VEC_UD = 6, X86_VEC_SS = 12, X86_VEC_GP = 13, X86_VEC_PF = 14 };

enum x86_op_flags {
	OP_MODRM = 1 << 0,
	OP_GROUP = 1 << 1,   /* modrm.reg chooses from `group` */
	OP_BYTE_W = 1 << 2,  /* one byte if bit 0 of the opcode is clear */
	OP_IMM = 1 << 3,     /* immediate of the operand's size, at most 32 bits */
	OP_IMM8 = 1 << 4,    /* one byte, sign-extended */
	OP_MOFFS = 1 << 5,   /* address in the instruction, register rAX */
	OP_STRING = 1 << 6,  /* may be repeated */
	OP_LOCK = 1 << 7,    /* LOCK is allowed */
	OP_ONLY64 = 1 << 8,  /* another instruction outside 64-bit mode */
	OP_NO16 = 1 << 9,    /* the operand size prefix has no effect */
	OP_ACC = 1 << 10,    /* the register operand is rAX */
	OP_IO = 1 << 11,     /* a port */
	OP_SIZE16 = 1 << 12, /* two bytes, whatever the prefixes say */
};

enum x86_alu {
	ALU_ADD,
	ALU_OR,
	ALU_ADC,
	ALU_SBB,
	ALU_AND,
	ALU_SUB,
	ALU_XOR,
	ALU_CMP,
	ALU_INC,
	ALU_DEC,
	ALU_NEG,
	ALU_NOT
};
enum x86_bit { BIT_TEST, BIT_SET, BIT_RESET, BIT_FLIP };
enum x86_access_kind { X86_READ, X86_WRITE, X86_FETCH };

extern const struct x86_op x86_one_byte[256];
extern const struct x86_op x86_two_byte[256];

/* x86_state.c: modes, registers, faults */
bool x86_is_64(const struct x86_state *s);
bool x86_is_protected(const struct x86_state *s); /* and not virtual 8086 */
unsigned x86_cpl(const struct x86_state *s);
uint64_t x86_mask(unsigned size);
uint64_t x86_sign_extend(uint64_t v, unsigned size);
uint64_t x86_get_reg(const struct x86 *x, unsigned reg, unsigned size);
void x86_set_reg(struct x86 *x, unsigned reg, unsigned size, uint64_t v);
void x86_set_flags(struct x86 *x, uint64_t flags);
int x86_raise(struct x86 *x, enum x86_vector v); /* without an error code */
int x86_raise_code(struct x86 *x, enum x86_vector v, uint32_t code);

/* x86_fetch.c */
int x86_fetch(struct x86 *x, unsigned n, uint64_t *v); /* the next n bytes, little endian */

/* x86_decode.c: fills x->insn */
int x86_decode(struct x86 *x);

/* x86_walk.c */
int x86_linear(struct x86 *x, unsigned seg, uint64_t off, unsigned size, enum x86_access_kind kind,
	       uint64_t *linear);
/* One page: the bytes around the translated one may be anywhere else. Sets accessed and dirty. */
int x86_translate(struct x86 *x, uint64_t linear, enum x86_access_kind kind, uint64_t *gpa);

/* x86_mem.c: operands in memory or a device, 1, 2, 4 or 8 bytes */
int x86_read(struct x86 *x, unsigned seg, uint64_t off, unsigned size, uint64_t *v);
int x86_write(struct x86 *x, unsigned seg, uint64_t off, unsigned size, uint64_t v);
/* Would a write of plain memory work? Not one of a device: X86_UNKNOWN. */
int x86_probe_write(struct x86 *x, unsigned seg, uint64_t off, unsigned size);
/* Before a read and write of the memory operand: its address is checked for both, and an operand
 * that is plain memory is left to the processor, which does it atomically. */
int x86_read_for_write(struct x86 *x, uint64_t *v);

/* x86_alu.c */
uint64_t x86_compute(enum x86_alu op, unsigned size, uint64_t a, uint64_t b, uint64_t *flags);

/* x86_exec.c, x86_string.c: one function per operation */
x86_exec_fn x86_mov_store, x86_mov_load, x86_mov_sreg, x86_movzx, x86_movsx, x86_alu_mem,
	x86_alu_reg, x86_test, x86_unary, x86_bit, x86_xchg, x86_cmpxchg, x86_xadd;
x86_exec_fn x86_movs, x86_stos, x86_lods, x86_cmps, x86_scas, x86_ins, x86_outs;

/* The instruction is over: RIP after it, RF clear. */
int x86_finish(struct x86 *x);

#endif
