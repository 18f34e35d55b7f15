/* SPDX-License-Identifier: BSD-2-Clause */
/* The two phases: see x86.h. */
#include <string.h>

#include "hv/whp/x86_internal.h"

static int run_instruction(struct x86 *x)
{
	bool trap = x->s.rflags & RFLAGS_TF;
	int r;

	x->pos = 0;
	r = x->insn.op->exec(x);
	x->trap = r == X86_DONE && trap;
	return r;
}

/* An exit of a port is a string instruction, or the guest has rewritten it meanwhile. */
static bool is_expected(const struct x86 *x)
{
	return x->why != X86_WHY_PIO || (x->insn.op->flags & OP_IO);
}

int x86_begin(struct x86 *x, enum x86_why why, const uint8_t *bytes, unsigned nbytes)
{
	int r;

	x->why = why;
	x->changed = 0;
	x->trap = false;
	x->nlog = x->pos = 0;
	x->asked_port = x->pio_answered = false;
	x->nbytes = (uint8_t)(nbytes < X86_INSN_MAX ? nbytes : X86_INSN_MAX);
	if (x->nbytes)
		memcpy(x->bytes, bytes, x->nbytes);
	if (x->s.phys_bits < 32 || x->s.phys_bits > 52)
		x->s.phys_bits = 52;
	r = x86_decode(x);
	if (r != X86_DONE)
		return r;
	return is_expected(x) ? run_instruction(x) : X86_RETRY;
}

/* What was asked last has been answered. */
int x86_resume(struct x86 *x)
{
	if (x->asked_port) {
		x->asked_port = false;
		x->pio_answered = true;
	} else {
		x->nlog++;
	}
	return run_instruction(x);
}
