/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operands in memory, which may be a device, or cross from one page into another.
 *
 * All of an operand is translated before any of it is touched, and devices come before memory: an
 * instruction that runs again for its next device has not changed memory yet.
 */
#include <string.h>

#include "hv/whp/x86_internal.h"

struct part {
	uint64_t gpa;
	unsigned at, len; /* of the operand */
	uint8_t *host;    /* NULL: a device */
};

struct operand {
	struct part part[2];
	unsigned n;
};

static int locate(struct x86 *x, unsigned seg, uint64_t off, unsigned size,
		  enum x86_access_kind kind, struct operand *o)
{
	uint64_t linear;
	int r = x86_linear(x, seg, off, size, kind, &linear);

	o->n = 0;
	for (unsigned at = 0; at < size && r == X86_DONE;) {
		uint64_t a = x86_is_64(&x->s) ? linear + at : (linear + at) & UINT32_MAX;
		unsigned left = X86_PAGE - (unsigned)(a % X86_PAGE);
		struct part *p = &o->part[o->n++];

		p->at = at;
		p->len = size - at < left ? size - at : left;
		r = x86_translate(x, a, kind, &p->gpa);
		if (r == X86_DONE)
			p->host = x->mem.ram(x->mem.ctx, p->gpa, p->len, kind == X86_WRITE);
		at += p->len;
	}
	return r;
}

/* The next device access of this run: answered before, or the one to wait for now. */
static int device(struct x86 *x, const struct part *p, bool write, uint8_t *buf)
{
	struct x86_access *a = &x->log[x->pos];

	if (x->pos == x->nlog) {
		if (x->nlog == X86_ACCESS_MAX - 1)
			return X86_UNKNOWN;
		*a = (struct x86_access){.gpa = p->gpa, .size = (uint8_t)p->len, .write = write};
		if (write)
			memcpy(a->data, buf + p->at, p->len);
		return X86_MMIO;
	}
	if (a->write != write || a->size != p->len)
		return X86_RETRY;
	if (!write)
		memcpy(buf + p->at, a->data, p->len);
	x->pos++;
	return X86_DONE;
}

static int devices(struct x86 *x, const struct operand *o, bool write, uint8_t *buf)
{
	int r = X86_DONE;

	for (unsigned i = 0; i < o->n && r == X86_DONE; i++)
		if (!o->part[i].host)
			r = device(x, &o->part[i], write, buf);
	return r;
}

static int read_operand(struct x86 *x, const struct operand *o, uint64_t *v)
{
	uint8_t buf[8] = {0};
	int r = devices(x, o, false, buf);

	for (unsigned i = 0; i < o->n; i++)
		if (o->part[i].host)
			memcpy(buf + o->part[i].at, o->part[i].host, o->part[i].len);
	memcpy(v, buf, sizeof(*v));
	return r;
}

int x86_read(struct x86 *x, unsigned seg, uint64_t off, unsigned size, uint64_t *v)
{
	struct operand o;
	int r = locate(x, seg, off, size, X86_READ, &o);

	return r == X86_DONE ? read_operand(x, &o, v) : r;
}

int x86_write(struct x86 *x, unsigned seg, uint64_t off, unsigned size, uint64_t v)
{
	struct operand o;
	uint8_t buf[8];
	int r = locate(x, seg, off, size, X86_WRITE, &o);

	memcpy(buf, &v, sizeof(buf));
	if (r == X86_DONE)
		r = devices(x, &o, true, buf);
	for (unsigned i = 0; i < o.n && r == X86_DONE; i++)
		if (o.part[i].host)
			memcpy(o.part[i].host, buf + o.part[i].at, o.part[i].len);
	return r;
}

int x86_probe_write(struct x86 *x, unsigned seg, uint64_t off, unsigned size)
{
	struct operand o;
	int r = locate(x, seg, off, size, X86_WRITE, &o);

	for (unsigned i = 0; i < o.n && r == X86_DONE; i++)
		if (!o.part[i].host)
			r = X86_UNKNOWN;
	return r;
}

int x86_read_for_write(struct x86 *x, uint64_t *v)
{
	const struct x86_insn *n = &x->insn;
	struct operand o;
	bool memory = true;
	int r = locate(x, n->seg, n->ea, n->size, X86_WRITE, &o);

	if (r != X86_DONE)
		return r;
	for (unsigned i = 0; i < o.n; i++)
		memory = memory && o.part[i].host;
	if (memory)
		return X86_RETRY;
	/* Read-only memory is a device for a write, but memory for a read. */
	for (unsigned i = 0; i < o.n; i++)
		o.part[i].host = x->mem.ram(x->mem.ctx, o.part[i].gpa, o.part[i].len, false);
	return read_operand(x, &o, v);
}
