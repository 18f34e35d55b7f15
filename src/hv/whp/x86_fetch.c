/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The instruction's bytes: those that the hypervisor gave, then, because it may stop at the end of
 * a page or give none, more of them through the page tables.
 */
#include <string.h>

#include "hv/whp/x86_internal.h"

/* As many as lie in one page and may still belong to the instruction. */
static int fetch_more(struct x86 *x)
{
	uint64_t off = x->s.rip + x->nbytes, linear, gpa;
	unsigned want = X86_INSN_MAX - x->nbytes, left;
	const uint8_t *p;
	int r;

	if (!x86_is_64(&x->s))
		off &= UINT32_MAX;
	r = x86_linear(x, X86_CS, off, 1, X86_FETCH, &linear);
	if (r == X86_DONE)
		r = x86_translate(x, linear, X86_FETCH, &gpa);
	if (r != X86_DONE)
		return r;
	left = X86_PAGE - (unsigned)(gpa % X86_PAGE);
	if (want > left)
		want = left;
	p = x->mem.ram(x->mem.ctx, gpa, want, false);
	if (!p)
		return X86_UNKNOWN; /* code in a device */
	memcpy(x->bytes + x->nbytes, p, want);
	x->nbytes = (uint8_t)(x->nbytes + want);
	return X86_DONE;
}

static int fetch_byte(struct x86 *x, uint8_t *b)
{
	int r = X86_DONE;

	if (x->insn.len == X86_INSN_MAX)
		return x86_raise_code(x, X86_VEC_GP, 0);
	if (x->insn.len == x->nbytes)
		r = fetch_more(x);
	if (r == X86_DONE)
		*b = x->bytes[x->insn.len++];
	return r;
}

int x86_fetch(struct x86 *x, unsigned n, uint64_t *v)
{
	*v = 0;
	for (unsigned i = 0; i < n; i++) {
		uint8_t b = 0;
		int r = fetch_byte(x, &b);

		if (r != X86_DONE)
			return r;
		*v |= (uint64_t)b << i * 8;
	}
	return X86_DONE;
}
