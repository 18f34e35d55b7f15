/* SPDX-License-Identifier: BSD-2-Clause */
/* The opcodes (SDM vol. 2, appendix A): what is not here is unknown. */
#include "hv/whp/x86_internal.h"

/* clang-format off */

#define M_W (OP_MODRM | OP_BYTE_W)
#define RMW (OP_MODRM | OP_BYTE_W | OP_LOCK)
#define STR (OP_STRING | OP_BYTE_W)

/* Four opcodes each: memory with register in two sizes, register with memory in two sizes. */
#define ALU(n, op, lockable) \
	[(n)] = {x86_alu_mem, M_W | (lockable), op, NULL}, \
	[(n) + 1] = {x86_alu_mem, M_W | (lockable), op, NULL}, \
	[(n) + 2] = {x86_alu_reg, M_W, op, NULL}, \
	[(n) + 3] = {x86_alu_reg, M_W, op, NULL}
#define PAIR(n, exec, flags, arg) \
	[(n)] = {exec, flags, arg, NULL}, \
	[(n) + 1] = {exec, flags, arg, NULL}

#define ALU_GROUP(imm) { \
	{x86_alu_mem, RMW | (imm), ALU_ADD, NULL}, {x86_alu_mem, RMW | (imm), ALU_OR, NULL}, \
	{x86_alu_mem, RMW | (imm), ALU_ADC, NULL}, {x86_alu_mem, RMW | (imm), ALU_SBB, NULL}, \
	{x86_alu_mem, RMW | (imm), ALU_AND, NULL}, {x86_alu_mem, RMW | (imm), ALU_SUB, NULL}, \
	{x86_alu_mem, RMW | (imm), ALU_XOR, NULL}, {x86_alu_mem, M_W | (imm), ALU_CMP, NULL}, \
}

static const struct x86_op group_80[8] = ALU_GROUP(OP_IMM);
static const struct x86_op group_83[8] = ALU_GROUP(OP_IMM8);
static const struct x86_op group_c6[8] = {
	[0] = {x86_mov_store, M_W | OP_IMM, 0, NULL},
};
static const struct x86_op group_f6[8] = {
	[0] = {x86_test, M_W | OP_IMM, 0, NULL},
	[1] = {x86_test, M_W | OP_IMM, 0, NULL},
	[2] = {x86_unary, RMW, ALU_NOT, NULL},
	[3] = {x86_unary, RMW, ALU_NEG, NULL},
};
static const struct x86_op group_fe[8] = {
	[0] = {x86_unary, RMW, ALU_INC, NULL},
	[1] = {x86_unary, RMW, ALU_DEC, NULL},
};
static const struct x86_op group_ba[8] = {
	[4] = {x86_bit, OP_MODRM | OP_IMM8, BIT_TEST, NULL},
	[5] = {x86_bit, OP_MODRM | OP_IMM8 | OP_LOCK, BIT_SET, NULL},
	[6] = {x86_bit, OP_MODRM | OP_IMM8 | OP_LOCK, BIT_RESET, NULL},
	[7] = {x86_bit, OP_MODRM | OP_IMM8 | OP_LOCK, BIT_FLIP, NULL},
};
#define GROUP(g) {NULL, OP_MODRM | OP_GROUP, 0, g}

const struct x86_op x86_one_byte[256] = {
	ALU(0x00, ALU_ADD, OP_LOCK),
	ALU(0x08, ALU_OR, OP_LOCK),
	ALU(0x10, ALU_ADC, OP_LOCK),
	ALU(0x18, ALU_SBB, OP_LOCK),
	ALU(0x20, ALU_AND, OP_LOCK),
	ALU(0x28, ALU_SUB, OP_LOCK),
	ALU(0x30, ALU_XOR, OP_LOCK),
	ALU(0x38, ALU_CMP, 0),
	[0x63] = {x86_movsx, OP_MODRM | OP_ONLY64, 4, NULL},
	PAIR(0x6c, x86_ins, STR | OP_IO, 0),
	PAIR(0x6e, x86_outs, STR | OP_IO, 0),
	[0x80] = GROUP(group_80),
	[0x81] = GROUP(group_80),
	[0x83] = GROUP(group_83),
	PAIR(0x84, x86_test, M_W, 0),
	PAIR(0x86, x86_xchg, RMW, 0),
	PAIR(0x88, x86_mov_store, M_W, 0),
	PAIR(0x8a, x86_mov_load, M_W, 0),
	[0x8c] = {x86_mov_sreg, OP_MODRM | OP_SIZE16, 0, NULL},
	PAIR(0xa0, x86_mov_load, OP_MOFFS | OP_BYTE_W | OP_ACC, 0),
	PAIR(0xa2, x86_mov_store, OP_MOFFS | OP_BYTE_W | OP_ACC, 0),
	PAIR(0xa4, x86_movs, STR, 0),
	PAIR(0xa6, x86_cmps, STR, 0),
	PAIR(0xaa, x86_stos, STR, 0),
	PAIR(0xac, x86_lods, STR, 0),
	PAIR(0xae, x86_scas, STR, 0),
	[0xc6] = GROUP(group_c6),
	[0xc7] = GROUP(group_c6),
	[0xf6] = GROUP(group_f6),
	[0xf7] = GROUP(group_f6),
	[0xfe] = GROUP(group_fe),
	[0xff] = GROUP(group_fe),
};

const struct x86_op x86_two_byte[256] = {
	[0xa3] = {x86_bit, OP_MODRM, BIT_TEST, NULL},
	[0xab] = {x86_bit, OP_MODRM | OP_LOCK, BIT_SET, NULL},
	[0xb3] = {x86_bit, OP_MODRM | OP_LOCK, BIT_RESET, NULL},
	[0xbb] = {x86_bit, OP_MODRM | OP_LOCK, BIT_FLIP, NULL},
	[0xba] = GROUP(group_ba),
	PAIR(0xb0, x86_cmpxchg, RMW, 0),
	PAIR(0xc0, x86_xadd, RMW, 0),
	[0xb6] = {x86_movzx, OP_MODRM, 1, NULL},
	[0xb7] = {x86_movzx, OP_MODRM, 2, NULL},
	[0xbe] = {x86_movsx, OP_MODRM, 1, NULL},
	[0xbf] = {x86_movsx, OP_MODRM, 2, NULL},
	[0xc3] = {x86_mov_store, OP_MODRM | OP_NO16, 0, NULL}, /* MOVNTI */
};
