/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A world for the emulator in the tests: some memory, everything else a device that remembers what
 * was done to it.
 */
#ifndef INSULA_TEST_X86DEV_H
#define INSULA_TEST_X86DEV_H

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/whp/x86.h"

#define WORLD_RAMS 4
#define WORLD_LOG 64

struct world_ram {
	uint64_t gpa, size;
	uint8_t *host;
	bool readonly;
};

struct world {
	struct world_ram ram[WORLD_RAMS];
	struct x86_access log[WORLD_LOG]; /* device accesses, with their answers */
	unsigned nlog;
	uint8_t *device; /* contents of the device, or NULL: a pattern */
	uint64_t device_gpa, device_size;
	uint8_t port[512]; /* bytes that went to or came from ports */
	unsigned nport;
	uint16_t last_port;
};

/* What a device without contents answers: depends on place and time. */
static inline uint64_t world_pattern(uint64_t gpa, unsigned n)
{
	uint64_t v = gpa * UINT64_C(0x9e3779b97f4a7c15) + n * UINT64_C(0xc2b2ae3d27d4eb4f);

	v ^= v >> 29;
	return v & 16 ? v : v & 8 ? 0 : v * UINT64_C(0xbf58476d1ce4e5b9);
}

static inline uint8_t *world_find(void *ctx, uint64_t gpa, unsigned len, bool write)
{
	struct world *w = ctx;

	for (unsigned i = 0; i < WORLD_RAMS; i++) {
		const struct world_ram *r = &w->ram[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size && r->size - (gpa - r->gpa) >= len)
			return write && r->readonly ? NULL : r->host + (gpa - r->gpa);
	}
	return NULL;
}

static inline void world_answer(struct world *w, struct x86_access *a)
{
	uint64_t off = a->gpa - w->device_gpa, v;

	if (w->device && off < w->device_size && w->device_size - off >= a->size) {
		if (a->write)
			memcpy(w->device + off, a->data, a->size);
		else
			memcpy(a->data, w->device + off, a->size);
	} else if (!a->write) {
		v = world_pattern(a->gpa, w->nlog);
		memset(a->data, 0, sizeof(a->data));
		memcpy(a->data, &v, a->size);
	}
	if (w->nlog < WORLD_LOG)
		w->log[w->nlog++] = *a;
}

static inline uint8_t world_port_byte(const struct world *w)
{
	return (uint8_t)(w->nport * 37 + 11);
}

static inline void world_port(struct world *w, uint16_t port, unsigned bytes, bool out,
			      uint8_t *data)
{
	w->last_port = port;
	for (unsigned i = 0; i < bytes && w->nport < sizeof(w->port); i++) {
		if (!out)
			data[i] = world_port_byte(w);
		w->port[w->nport++] = data[i];
	}
}

/* One instruction, or one round of a repeated one. */
static inline int world_step(struct world *w, struct x86 *x, enum x86_why why, const uint8_t *b,
			     unsigned n)
{
	int r;

	x->mem = (struct x86_mem){world_find, w};
	r = x86_begin(x, why, b, n);
	for (unsigned i = 0; i < 64 && (r == X86_MMIO || r == X86_PIO); i++) {
		if (r == X86_MMIO)
			world_answer(w, &x->log[x->nlog]);
		else
			world_port(w, x->pio.port, x->pio.size * x->pio.count, x->pio.out,
				   x->pio.data);
		r = x86_resume(x);
	}
	return r;
}

/* Until RIP has moved on, as a guest that is entered again and again would. */
static inline int world_run(struct world *w, struct x86 *x, const uint8_t *b, unsigned n)
{
	uint64_t rip = x->s.rip;
	int r = X86_DONE;

	for (unsigned i = 0; i < 64 && r == X86_DONE && x->s.rip == rip; i++)
		r = world_step(w, x, X86_WHY_MMIO, b, n);
	return r;
}

#endif
