/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One x86 instruction that touches a device, emulated: MMIO in all forms that compilers and kernels
 * emit, and string port-IO, in 16, 32 and 64 bit code. Windows' hypervisor says only "this address
 * was accessed"; what was to be written, and where a value read goes, is in the instruction.
 *
 *   x86_begin()    fetch and decode, then run until the instruction needs a device
 *   x86_resume()   the device has answered: run on
 *
 * Pure C: no operating system, no allocation, no globals. Registers come and go as a copy (one
 * hypervisor call each way), memory through one callback. Any thread, one at a time per struct x86.
 *
 * How a device is waited for: nothing is kept of a half-run instruction but the list of answers so
 * far. x86_resume() runs the instruction again from its start; the accesses that were answered take
 * their answer from the list. So every operation is a plain function "read, compute, write, then
 * change registers", and registers change only when nothing can fail any more.
 *
 * Hostile input: all of it. The instruction's bytes, page tables and operands may change between
 * two looks; each look uses its own copy, and an instruction that is no longer the same is dropped
 * (X86_RETRY), at the cost of the guest alone. All loops are bounded.
 *
 * Not done: alignment checks (RFLAGS.AC at CPL 3), protection keys, SSE and AVX operands, LOCK as
 * an atomic operation on a device (a device sees a read and a write).
 *
 * Intel SDM vol. 2: 2 (formats), 3 to 5 (instructions), A (opcode map); vol. 3: 4 (paging), 5.3
 * (limits), 6.15 (exceptions).
 */
#ifndef INSULA_HV_WHP_X86_H
#define INSULA_HV_WHP_X86_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/hv.h>

#define X86_INSN_MAX 15   /* longest instruction */
#define X86_ACCESS_MAX 8  /* device accesses of one instruction, or of one round of a REP */
#define X86_PIO_BYTES 256 /* of a string instruction handed to the caller at once */

enum x86_gpr {
	X86_RAX,
	X86_RCX,
	X86_RDX,
	X86_RBX,
	X86_RSP,
	X86_RBP,
	X86_RSI,
	X86_RDI,
	X86_GPRS = 16
};
enum x86_sreg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SREGS };

/* All that an instruction depends on. `seg` are the hidden parts, attributes as in hv.h. */
struct x86_state {
	uint64_t gpr[X86_GPRS]; /* as the instruction encodes them */
	uint64_t rip, rflags, cr0, cr3, cr4, efer;
	struct hv_seg seg[X86_SREGS];
	uint8_t phys_bits; /* width of a guest physical address, 32 to 52 */
};

/*
 * Where guest memory is. `ram` returns the host address of [gpa, gpa + len), which never crosses a
 * page, or NULL if that is not memory (for a write: not writable memory), hence a device.
 */
struct x86_mem {
	uint8_t *(*ram)(void *ctx, uint64_t gpa, unsigned len, bool write);
	void *ctx;
};

enum x86_result {
	X86_DONE,    /* `s` is what the processor would have; write back what `changed` names */
	X86_MMIO,    /* answer x->log[x->nlog], then x86_resume() */
	X86_PIO,     /* answer x->pio, then x86_resume() */
	X86_FAULT,   /* inject x->fault; no register has changed */
	X86_UNKNOWN, /* not an instruction of this list */
	X86_RETRY,   /* let the guest run the instruction again */
};

enum x86_why { X86_WHY_MMIO, X86_WHY_PIO };

#define X86_CHANGED_RIP (1u << 16) /* after a bit per general register */
#define X86_CHANGED_RFLAGS (1u << 17)

struct x86_access {
	uint64_t gpa;
	uint8_t size; /* 1..8, inside one page */
	bool write;
	uint8_t data[8]; /* little endian; a read is filled in by the caller */
};

struct x86_fault {
	uint8_t vector;
	bool has_code;
	uint32_t code;
	uint64_t cr2; /* of a page fault */
};

struct x86_pio {
	uint16_t port;
	uint8_t size;
	bool out;
	uint32_t count;
	uint8_t data[X86_PIO_BYTES];
};

struct x86;
typedef int x86_exec_fn(struct x86 *x); /* enum x86_result */

/* One entry of the opcode tables (x86_table.c). */
struct x86_op {
	x86_exec_fn *exec;
	uint16_t flags; /* enum x86_op_flags */
	uint8_t arg;    /* for exec */
	const struct x86_op *group;
};

struct x86_insn {
	const struct x86_op *op;
	uint8_t len;
	uint8_t opcode;    /* its last byte */
	uint8_t size;      /* of the operand: 1, 2, 4, 8 */
	uint8_t addr_size; /* 2, 4, 8 */
	uint8_t reg;       /* register operand, REX included; of a group the operation */
	uint8_t seg;       /* of the memory operand, enum x86_sreg */
	uint8_t rep;       /* 0, 0xf2, 0xf3 */
	bool rex, rex_w, rex_r, rex_x, rex_b;
	bool lock, seg_given, operand_16, addr_other;
	uint64_t ea;  /* offset of the memory operand in its segment */
	uint64_t imm; /* sign-extended */
};

struct x86 {
	struct x86_state s;
	struct x86_mem mem;
	enum x86_why why;
	uint32_t changed; /* X86_CHANGED_*, or 1 << enum x86_gpr */
	bool trap;        /* after X86_DONE: RFLAGS.TF was set, so a single step is due */
	struct x86_insn insn;
	uint8_t bytes[X86_INSN_MAX]; /* the instruction, as far as fetched */
	uint8_t nbytes;
	uint8_t nlog; /* device accesses answered so far */
	uint8_t pos;  /* of them, used in this run */
	bool asked_port, pio_answered;
	struct x86_access log[X86_ACCESS_MAX];
	struct x86_fault fault;
	struct x86_pio pio;
};

/*
 * Emulate the instruction at s.rip. The caller has filled in `s` and `mem`, and gives the bytes of
 * the instruction that it knows (0 to 15; what is missing is fetched through the page tables).
 * `why` is the exit that led here: the processor has checked the right to a port only for an exit
 * of a port. Returns enum x86_result.
 */
int x86_begin(struct x86 *x, enum x86_why why, const uint8_t *bytes, unsigned nbytes);
int x86_resume(struct x86 *x);

#endif
