/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The instruction emulator: the guest chooses the instruction's bytes, all registers, the page
 * tables and what the device answers.
 *
 * Input: mode, why, number of bytes known, then registers, control registers, segments, then bytes
 * that are both code and memory (so page tables too). It must end within its bounds, touch nothing
 * outside the memory it was given, and change no register unless it is done.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/whp/x86.h"

#define RAM 0x4000u

struct input {
	const uint8_t *p;
	size_t left;
};

static void take(struct input *in, void *to, size_t n)
{
	size_t have = n < in->left ? n : in->left;

	memset(to, 0, n);
	if (have)
		memcpy(to, in->p, have);
	in->p += have;
	in->left -= have;
}

static uint64_t take_value(struct input *in, unsigned n)
{
	uint64_t v = 0;

	take(in, &v, n);
	return v;
}

static uint8_t *ram(void *ctx, uint64_t gpa, unsigned len, bool write)
{
	if (len == 0 || gpa / 4096 != (gpa + len - 1) / 4096)
		abort(); /* the promise of x86.h */
	if (gpa >= RAM || RAM - gpa < len)
		return NULL;
	return write && gpa < 0x1000 ? NULL : (uint8_t *)ctx + gpa;
}

static void take_state(struct input *in, struct x86_state *s)
{
	static const uint16_t code[] = {0x9b, 0xc9b, 0xa9b};
	unsigned mode = (unsigned)take_value(in, 1) % 4;

	take(in, s->gpr, sizeof(s->gpr));
	s->rip = take_value(in, 8);
	s->rflags = take_value(in, 4);
	s->cr0 = take_value(in, 4);
	s->cr3 = take_value(in, 2) & 0x3fe0;
	s->cr4 = take_value(in, 4);
	s->efer = take_value(in, 2);
	s->phys_bits = (uint8_t)take_value(in, 1);
	for (unsigned i = 0; i < X86_SREGS; i++) {
		s->seg[i].base = take_value(in, 4);
		s->seg[i].limit = (uint32_t)take_value(in, 4);
		s->seg[i].attr = (uint16_t)take_value(in, 2);
	}
	if (mode < 3)
		s->seg[X86_CS] = (struct hv_seg){0, UINT32_MAX, 8, code[mode]};
}

static void answer(struct input *in, struct x86 *x, int r)
{
	if (r == X86_MMIO) {
		struct x86_access *a = &x->log[x->nlog];

		if (a->size < 1 || a->size > 8)
			abort();
		if (!a->write)
			take(in, a->data, a->size);
	} else {
		if (x->pio.count < 1 || x->pio.count * x->pio.size > X86_PIO_BYTES)
			abort();
		if (!x->pio.out)
			take(in, x->pio.data, x->pio.count * x->pio.size);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint8_t *memory = calloc(1, RAM), bytes[X86_INSN_MAX];
	struct x86 x = {.mem = {ram, memory}};
	struct x86_state before;
	unsigned turns = 0, known;
	enum x86_why why;
	int r;

	if (!memory)
		abort();
	why = take_value(&in, 1) & 1 ? X86_WHY_PIO : X86_WHY_MMIO;
	known = (unsigned)take_value(&in, 1) % (X86_INSN_MAX + 1);
	take_state(&in, &x.s);
	take(&in, bytes, sizeof(bytes));
	take(&in, memory + 0x1000, in.left < RAM - 0x1000 ? in.left / 2 : RAM - 0x1000);
	before = x.s;
	r = x86_begin(&x, why, bytes, known);
	while (r == X86_MMIO || r == X86_PIO) {
		if (++turns > X86_ACCESS_MAX + 1)
			abort();
		answer(&in, &x, r);
		r = x86_resume(&x);
	}
	before.phys_bits = x.s.phys_bits;
	if (r != X86_DONE && memcmp(&before, &x.s, sizeof(before)) != 0)
		abort();
	free(memory);
	return 0;
}
