/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * String operations (SDM vol. 2, REP). One call is one round of a repeated one: registers are
 * then those between two rounds, and RIP is still at the instruction, so an interrupt may come
 * in, and the guest carries on by itself. Only ports get several rounds at once.
 */
#include <string.h>

#include "hv/whp/x86_internal.h"

static uint64_t string_address(const struct x86 *x, unsigned reg)
{
	return x->s.gpr[reg] & x86_mask(x->insn.addr_size);
}

static uint64_t stride(const struct x86 *x)
{
	return x->s.rflags & RFLAGS_DF ? -(uint64_t)x->insn.size : x->insn.size;
}

static void move(struct x86 *x, unsigned reg, unsigned rounds)
{
	x86_set_reg(x, reg, x->insn.addr_size, string_address(x, reg) + stride(x) * rounds);
}

/* The end of `rounds` rounds; `stop` ends the repetition early. */
static int advance(struct x86 *x, unsigned rounds, bool stop)
{
	if (!x->insn.rep)
		return x86_finish(x);
	x86_set_reg(x, X86_RCX, x->insn.addr_size, string_address(x, X86_RCX) - rounds);
	return stop || string_address(x, X86_RCX) == 0 ? x86_finish(x) : X86_DONE;
}

static bool nothing_to_do(const struct x86 *x)
{
	return x->insn.rep && string_address(x, X86_RCX) == 0;
}

int x86_movs(struct x86 *x)
{
	const struct x86_insn *n = &x->insn;
	uint64_t v;
	int r;

	if (nothing_to_do(x))
		return x86_finish(x);
	r = x86_read(x, n->seg, string_address(x, X86_RSI), n->size, &v);
	if (r == X86_DONE)
		r = x86_write(x, X86_ES, string_address(x, X86_RDI), n->size, v);
	if (r != X86_DONE)
		return r;
	move(x, X86_RSI, 1);
	move(x, X86_RDI, 1);
	return advance(x, 1, false);
}

int x86_stos(struct x86 *x)
{
	unsigned size = x->insn.size;
	int r;

	if (nothing_to_do(x))
		return x86_finish(x);
	r = x86_write(x, X86_ES, string_address(x, X86_RDI), size, x86_get_reg(x, X86_RAX, size));
	if (r != X86_DONE)
		return r;
	move(x, X86_RDI, 1);
	return advance(x, 1, false);
}

int x86_lods(struct x86 *x)
{
	const struct x86_insn *n = &x->insn;
	uint64_t v;
	int r;

	if (nothing_to_do(x))
		return x86_finish(x);
	r = x86_read(x, n->seg, string_address(x, X86_RSI), n->size, &v);
	if (r != X86_DONE)
		return r;
	x86_set_reg(x, X86_RAX, n->size, v);
	move(x, X86_RSI, 1);
	return advance(x, 1, false);
}

/* REPE goes on while equal, REPNE while not. */
static int compare(struct x86 *x, uint64_t a, uint64_t b)
{
	uint64_t flags = x->s.rflags;
	bool equal;

	x86_compute(ALU_CMP, x->insn.size, a, b, &flags);
	x86_set_flags(x, flags);
	equal = flags & RFLAGS_ZF;
	return advance(x, 1, equal != (x->insn.rep == 0xf3));
}

int x86_cmps(struct x86 *x)
{
	const struct x86_insn *n = &x->insn;
	uint64_t a, b;
	int r;

	if (nothing_to_do(x))
		return x86_finish(x);
	r = x86_read(x, n->seg, string_address(x, X86_RSI), n->size, &a);
	if (r == X86_DONE)
		r = x86_read(x, X86_ES, string_address(x, X86_RDI), n->size, &b);
	if (r != X86_DONE)
		return r;
	move(x, X86_RSI, 1);
	move(x, X86_RDI, 1);
	return compare(x, a, b);
}

int x86_scas(struct x86 *x)
{
	unsigned size = x->insn.size;
	uint64_t v;
	int r;

	if (nothing_to_do(x))
		return x86_finish(x);
	r = x86_read(x, X86_ES, string_address(x, X86_RDI), size, &v);
	if (r != X86_DONE)
		return r;
	move(x, X86_RDI, 1);
	return compare(x, x86_get_reg(x, X86_RAX, size), v);
}

/* ---- ports ---- */

static unsigned port_size(const struct x86 *x)
{
	return x->insn.size > 4 ? 4 : x->insn.size;
}

/* The processor has checked the right to the port only if the port was what it stopped at. The
 * bitmap of the task is not looked at here: without IOPL, no. */
static int check_port(struct x86 *x)
{
	if (x->why == X86_WHY_PIO || x86_cpl(&x->s) <= (x->s.rflags >> RFLAGS_IOPL_SHIFT & 3))
		return X86_DONE;
	return x86_raise_code(x, X86_VEC_GP, 0);
}

static unsigned rounds_wanted(const struct x86 *x)
{
	unsigned most = X86_PIO_BYTES / x->insn.size;
	uint64_t left = string_address(x, X86_RCX);

	if (!x->insn.rep)
		return 1;
	return left < most ? (unsigned)left : most;
}

static uint64_t round_address(const struct x86 *x, unsigned reg, unsigned round)
{
	return (string_address(x, reg) + stride(x) * round) & x86_mask(x->insn.addr_size);
}

static int ask_port(struct x86 *x, bool out, unsigned count)
{
	x->asked_port = true;
	x->pio.port = (uint16_t)x->s.gpr[X86_RDX];
	x->pio.size = x->insn.size;
	x->pio.out = out;
	x->pio.count = count;
	return X86_PIO;
}

static bool later_round_stops(unsigned round, int r)
{
	return round > 0 && r != X86_DONE;
}

/* As many elements as can be read; what stops a later one is met again when it is the first, and
 * only the first may be in a device. */
static int gather(struct x86 *x)
{
	unsigned size = x->insn.size, want = rounds_wanted(x), n;

	for (n = 0; n < want; n++) {
		uint64_t v = 0;
		int r = x86_read(x, x->insn.seg, round_address(x, X86_RSI, n), size, &v);

		if (later_round_stops(n, r))
			break;
		if (r != X86_DONE)
			return r;
		memcpy(x->pio.data + n * size, &v, size);
	}
	return ask_port(x, true, n);
}

int x86_outs(struct x86 *x)
{
	int r = check_port(x);

	if (r != X86_DONE)
		return r;
	if (nothing_to_do(x))
		return x86_finish(x);
	x->insn.size = (uint8_t)port_size(x);
	if (!x->pio_answered)
		return gather(x);
	move(x, X86_RSI, x->pio.count);
	return advance(x, x->pio.count, false);
}

/* Nothing is read from the port before there is a place for it. A device as the place gets one
 * element at a time, and is asked after the port. */
static int reserve(struct x86 *x)
{
	unsigned size = x->insn.size, want = rounds_wanted(x), n;

	for (n = 0; n < want; n++) {
		int r = x86_probe_write(x, X86_ES, round_address(x, X86_RDI, n), size);

		if (later_round_stops(n, r))
			break;
		if (r == X86_UNKNOWN) {
			n = 1;
			break;
		}
		if (r != X86_DONE)
			return r;
	}
	return ask_port(x, false, n);
}

int x86_ins(struct x86 *x)
{
	int r = check_port(x);

	if (r != X86_DONE)
		return r;
	if (nothing_to_do(x))
		return x86_finish(x);
	x->insn.size = (uint8_t)port_size(x);
	if (!x->pio_answered)
		return reserve(x);
	for (unsigned i = 0; i < x->pio.count; i++) {
		uint64_t v = 0;

		memcpy(&v, x->pio.data + i * x->pio.size, x->pio.size);
		r = x86_write(x, X86_ES, round_address(x, X86_RDI, i), x->pio.size, v);
		if (r != X86_DONE)
			return r;
	}
	move(x, X86_RDI, x->pio.count);
	return advance(x, x->pio.count, false);
}
