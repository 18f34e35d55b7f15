/* SPDX-License-Identifier: BSD-2-Clause */
/* Is a device's description one that can be executed? And its form on the wire. See
 * insula/device.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include <insula/base.h>
#include <insula/device.h>
#include <insula/devpage.h>

#define PAGE 4096u
#define PORTS 0x10000u

/* Where we are in it, for the message. */
struct place {
	const struct device_desc *d;
	const char *part; /* "window" */
	unsigned i;
	struct err *e;
};

static int refused(const struct place *p, int code, const char *field, uint64_t value,
		   const char *expected)
{
	return err_set(p->e, code, "device %u (%.*s): %s %u: %s 0x%" PRIx64 "; expected %s",
		       p->d->index, DEV_NAME_LEN - 1, p->d->name, p->part, p->i, field, value,
		       expected);
}

static bool is_event(const struct device_desc *d, uint32_t slot)
{
	return slot < d->nslots && slot != d->page_slot;
}

static bool is_size(uint32_t n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

static int check_served(const struct place *p, const struct device_window *w)
{
	if (w->at >= DP_SHADOW_SIZE || w->len > DP_SHADOW_SIZE - w->at)
		return refused(p, -EINVAL, "place", w->at, "that it ends within the 4096 bytes");
	if (w->shift > 3)
		return refused(p, -EINVAL, "shift", w->shift, "0 to 3");
	if (w->slot != DEVICE_NO_SLOT || w->offset)
		return refused(p, -EINVAL, "slot", w->slot, "none: only a direct window has one");
	if (w->serve == DEVICE_EXITS)
		return 0;
	if (w->space != DEVICE_MMIO || w->base % PAGE || w->len != PAGE || w->at)
		return refused(p, -EINVAL, "base", w->base,
			       "one whole page of memory for registers that are read in place");
	return w->call_reads
		       ? refused(p, -EINVAL, "call_reads", w->call_reads, "0: reads do not exit")
		       : 0;
}

static int check_window(const struct place *p, const struct device_window *w)
{
	if (w->space == DEVICE_PCI_CONFIG)
		return refused(p, -EOPNOTSUPP, "space", w->space,
			       "ports or memory: there is no PCI yet");
	if (w->space != DEVICE_PIO && w->space != DEVICE_MMIO)
		return refused(p, -EINVAL, "space", w->space, "1 (ports) or 2 (memory)");
	if (!w->len || w->base + w->len < w->base ||
	    (w->space == DEVICE_PIO && w->base + w->len > PORTS))
		return refused(p, -EINVAL, "length", w->len, "some, within the space");
	if (w->serve == DEVICE_DIRECT)
		return refused(p, -EOPNOTSUPP, "serve", w->serve,
			       "1 or 2: foreign memory is not mapped yet");
	if (w->serve != DEVICE_EXITS && w->serve != DEVICE_SHADOW)
		return refused(p, -EINVAL, "serve", w->serve, "1 to 3");
	for (unsigned k = 0; k < p->i; k++) {
		const struct device_window *o = &p->d->window[k];

		if (o->space == w->space && device_overlap(w->base, w->len, o->base, o->len))
			return refused(p, -EINVAL, "base", w->base, "that it overlaps no other");
		if (device_overlap(w->at, w->len, o->at, o->len))
			return refused(p, -EINVAL, "place", w->at, "that it overlaps no other");
	}
	return check_served(p, w);
}

static bool in_a_window(const struct device_desc *d, const struct device_doorbell *b)
{
	for (unsigned i = 0; i < d->nwindows; i++) {
		const struct device_window *w = &d->window[i];

		if (w->space == b->space && b->addr >= w->base && b->size <= w->len &&
		    b->addr - w->base <= w->len - b->size)
			return true;
	}
	return false;
}

static int check_doorbell(const struct place *p, const struct device_doorbell *b)
{
	if (!is_size(b->size))
		return refused(p, -EINVAL, "size", b->size, "1, 2, 4 or 8");
	if (!in_a_window(p->d, b))
		return refused(p, -EINVAL, "address", b->addr, "one in a window of the device");
	if (b->match > 1 || (b->size < 8 && b->value >> (8 * b->size)))
		return refused(p, -EINVAL, "value", b->value, "one of its size, and match 0 or 1");
	return is_event(p->d, b->slot)
		       ? 0
		       : refused(p, -EINVAL, "slot", b->slot, "the place of a descriptor");
}

static int check_vector(const struct place *p, const struct device_vector *v)
{
	if (v->kind == DEVICE_MSI)
		return refused(p, -EOPNOTSUPP, "kind", v->kind,
			       "1 (a pin): there are no message-signalled interrupts yet");
	if (v->kind != DEVICE_PIN)
		return refused(p, -EINVAL, "kind", v->kind, "1 (a pin) or 2 (a message)");
	if (v->ack_slot != DEVICE_NO_SLOT)
		return refused(p, -EOPNOTSUPP, "ack_slot", v->ack_slot,
			       "none: there are no level-triggered pins");
	return is_event(p->d, v->slot)
		       ? 0
		       : refused(p, -EINVAL, "slot", v->slot, "the place of a descriptor");
}

/* All but the parts. */
static int check_head(const struct device_desc *d, unsigned nfds, struct err *e)
{
	bool answers = word_events();
	struct place p = {d, "head", 0, e};

	if (d->nslots != nfds || nfds > DEVICE_MAX_SLOTS)
		return refused(&p, -EINVAL, "slots", d->nslots, "as many as came along");
	if (!memchr(d->name, 0, sizeof(d->name)) || !memchr(d->hid, 0, sizeof(d->hid)))
		return refused(&p, -EINVAL, "name", 0, "names that end");
	if (d->uid > 255)
		return refused(&p, -EINVAL, "uid", d->uid, "at most 255");
	if (!d->nwindows || d->nwindows > DEVICE_MAX_WINDOWS ||
	    d->ndoorbells > DEVICE_MAX_DOORBELLS || d->nvectors > DEVICE_MAX_VECTORS)
		return refused(&p, -EINVAL, "windows", d->nwindows,
			       "1 to 6, and at most 24 doorbells and vectors");
	if (d->page_slot >= nfds || !is_event(d, d->call_slot) ||
	    (answers ? !is_event(d, d->answer_slot) : d->answer_slot != DEVICE_NO_SLOT))
		return refused(&p, -EINVAL, "page_slot", d->page_slot,
			       "slots of page, call and answer that are there");
	if (!d->state_size || d->state_size % PAGE || d->state_size > DEVICE_MAX_STATE)
		return refused(&p, -EINVAL, "state_size", d->state_size,
			       "a multiple of 4096, at most 64 MiB");
	if (!is_size(d->probe_size) || d->probe_at > DP_SHADOW_SIZE - d->probe_size)
		return refused(&p, -EINVAL, "probe_at", d->probe_at, "a register of 1 to 8 bytes");
	return 0;
}

int device_check(const struct device_desc *d, unsigned nfds, struct err *e)
{
	int rc;

	if (d->version != DEVICE_VERSION)
		return err_set(e, -EPROTO, "device: a description of version %u; expected %u",
			       d->version, DEVICE_VERSION);
	rc = check_head(d, nfds, e);
	for (unsigned i = 0; i < d->nwindows && !rc; i++)
		rc = check_window(&(struct place){d, "window", i, e}, &d->window[i]);
	for (unsigned i = 0; i < d->ndoorbells && !rc; i++)
		rc = check_doorbell(&(struct place){d, "doorbell", i, e}, &d->doorbell[i]);
	for (unsigned i = 0; i < d->nvectors && !rc; i++)
		rc = check_vector(&(struct place){d, "vector", i, e}, &d->vector[i]);
	return rc;
}

/* ---- on the wire ---- */

#define HEAD_SIZE offsetof(struct device_desc, window)

/* 0: it counts more than it can have. */
static size_t packed_size(const struct device_desc *d)
{
	if (d->nwindows > DEVICE_MAX_WINDOWS || d->ndoorbells > DEVICE_MAX_DOORBELLS ||
	    d->nvectors > DEVICE_MAX_VECTORS)
		return 0;
	return HEAD_SIZE + d->nwindows * sizeof(*d->window) + d->ndoorbells * sizeof(*d->doorbell) +
	       d->nvectors * sizeof(*d->vector);
}

size_t device_pack(const struct device_desc *d, uint8_t body[sizeof(struct device_desc)])
{
	size_t windows = d->nwindows * sizeof(*d->window), size = packed_size(d);
	size_t doorbells = d->ndoorbells * sizeof(*d->doorbell);

	if (!size)
		panic("a device of %u windows, %u doorbells and %u vectors", d->nwindows,
		      d->ndoorbells, d->nvectors);
	memcpy(body, d, HEAD_SIZE);
	body += HEAD_SIZE;
	memcpy(body, d->window, windows);
	body += windows;
	memcpy(body, d->doorbell, doorbells);
	body += doorbells;
	memcpy(body, d->vector, d->nvectors * sizeof(*d->vector));
	return size;
}

int device_unpack(struct device_desc *d, const void *body, size_t len)
{
	const uint8_t *from = body;

	memset(d, 0, sizeof(*d));
	if (len < HEAD_SIZE)
		return -EPROTO;
	memcpy(d, from, HEAD_SIZE);
	if (len != packed_size(d))
		return -EPROTO;
	from += HEAD_SIZE;
	memcpy(d->window, from, d->nwindows * sizeof(*d->window));
	from += d->nwindows * sizeof(*d->window);
	memcpy(d->doorbell, from, d->ndoorbells * sizeof(*d->doorbell));
	from += d->ndoorbells * sizeof(*d->doorbell);
	memcpy(d->vector, from, d->nvectors * sizeof(*d->vector));
	return 0;
}
