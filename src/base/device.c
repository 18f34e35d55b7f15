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

static bool is_bar(uint32_t space)
{
	return space >= DEVICE_BAR && space < DEVICE_BAR + DEVICE_BARS;
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
	if (w->space == DEVICE_PIO || w->base % PAGE || w->len != PAGE || w->at)
		return refused(p, -EINVAL, "base", w->base,
			       "one whole page of memory for registers that are read in place");
	return w->call_reads
		       ? refused(p, -EINVAL, "call_reads", w->call_reads, "0: reads do not exit")
		       : 0;
}

static uint64_t space_end(const struct device_desc *d, uint32_t space)
{
	if (is_bar(space))
		return d->pci.bar_size[space - DEVICE_BAR];
	return space == DEVICE_PIO ? PORTS : UINT64_MAX;
}

static int check_window(const struct place *p, const struct device_window *w)
{
	bool pci = device_is_pci(p->d);

	if (pci ? !is_bar(w->space) : w->space != DEVICE_PIO && w->space != DEVICE_MMIO)
		return refused(p, -EINVAL, "space", w->space,
			       pci ? "8 to 13 (a BAR)" : "1 (ports) or 2 (memory)");
	if (!w->len || w->base + w->len < w->base || w->base + w->len > space_end(p->d, w->space))
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
		if (w->serve == o->serve && device_overlap(w->at, w->len, o->at, o->len))
			return refused(p, -EINVAL, "place", w->at, "that it overlaps no other");
	}
	return check_served(p, w);
}

static bool in_a_window(const struct device_desc *d, const struct device_doorbell *b)
{
	uint32_t size = b->size ? b->size : 1;

	for (unsigned i = 0; i < d->nwindows; i++) {
		const struct device_window *w = &d->window[i];

		if (w->space == b->space && b->addr >= w->base && size <= w->len &&
		    b->addr - w->base <= w->len - size)
			return true;
	}
	return false;
}

static int check_doorbell(const struct place *p, const struct device_doorbell *b)
{
	if (!is_size(b->size) && (b->size || b->match || b->space == DEVICE_PIO))
		return refused(p, -EINVAL, "size", b->size, "1, 2, 4 or 8, or in memory any");
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
	bool pci = device_is_pci(p->d);

	if (v->kind != (pci ? DEVICE_MSI : DEVICE_PIN))
		return refused(p, -EINVAL, "kind", v->kind, pci ? "2 (a message)" : "1 (a pin)");
	if (pci && v->number != p->i)
		return refused(p, -EINVAL, "number", v->number, "the entry of its place");
	if (v->ack_slot != DEVICE_NO_SLOT)
		return refused(p, -EOPNOTSUPP, "ack_slot", v->ack_slot,
			       "none: there are no level-triggered pins");
	return is_event(p->d, v->slot)
		       ? 0
		       : refused(p, -EINVAL, "slot", v->slot, "the place of a descriptor");
}

/* ---- a PCI function ---- */

static int check_bar(const struct place *p, uint32_t size, uint32_t at)
{
	if (size && (size < PAGE || (size & (size - 1))))
		return refused(p, -EINVAL, "size", size, "a power of two from 4096 on");
	return (size ? at % size : at)
		       ? refused(p, -EINVAL, "address", at, "a multiple of its size")
		       : 0;
}

/* In whole pages of their own: there the core answers, and nobody else. */
static int check_msix(const struct place *p)
{
	const struct device_pci *f = &p->d->pci;
	uint64_t first = f->msix_table / PAGE * PAGE, table = 16ull * p->d->nvectors;
	uint64_t end = ((uint64_t)f->msix_pba + 8 + PAGE - 1) / PAGE * PAGE;

	if (f->msix_bar >= DEVICE_BARS || f->msix_table % 8 || f->msix_pba % 8 ||
	    f->msix_pba < f->msix_table + table || end > f->bar_size[f->msix_bar])
		return refused(p, -EINVAL, "table", f->msix_table,
			       "a BAR with room for the table, and for the pending bits behind it");
	for (unsigned i = 0; i < p->d->nwindows; i++) {
		const struct device_window *w = &p->d->window[i];

		if (w->space == DEVICE_BAR + f->msix_bar &&
		    device_overlap(w->base, w->len, first, end - first))
			return refused(p, -EINVAL, "table", f->msix_table,
				       "pages without a window");
	}
	return 0;
}

static int check_caps(const struct place *p)
{
	const struct device_pci *f = &p->d->pci;
	uint32_t at = 0;

	/* Each begins with its kind, a place for the link, and its length. */
	while (f->caps_len <= DEVICE_MAX_CAPS && at + 4 <= f->caps_len &&
	       f->caps[at] == DEVICE_CAP_VENDOR && f->caps[at + 2] >= 4 && f->caps[at + 2] % 4 == 0)
		at += f->caps[at + 2];
	return at == f->caps_len ? 0
				 : refused(p, -EINVAL, "capabilities", f->caps_len,
					   "vendor-specific ones, of 4, 8 ... bytes each");
}

static int check_pci(const struct device_desc *d, struct err *e)
{
	struct place p = {d, "BAR", 0, e};
	const struct device_pci *f = &d->pci;
	int rc = 0;

	for (; p.i < DEVICE_BARS && !rc; p.i++)
		rc = check_bar(&p, f->bar_size[p.i], f->bar_at[p.i]);
	p = (struct place){d, "function", f->number, e};
	if (!rc && (f->number < 1 || f->number > 31))
		rc = refused(&p, -EINVAL, "number", f->number, "1 to 31");
	if (!rc && (d->hid[0] || !d->nvectors))
		rc = refused(&p, -EINVAL, "vectors", d->nvectors,
			     "some, and no name in the ACPI tables");
	if (!rc)
		rc = check_msix(&p);
	return rc ? rc : check_caps(&p);
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

	if (d->version != DEVICE_VERSION && d->version != DEVICE_VERSION_PCI)
		return err_set(e, -EPROTO, "device: a description of version %u; expected %u or %u",
			       d->version, DEVICE_VERSION, DEVICE_VERSION_PCI);
	rc = check_head(d, nfds, e);
	if (!rc && device_is_pci(d))
		rc = check_pci(d, e);
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

static size_t pci_size(const struct device_desc *d)
{
	return device_is_pci(d) ? sizeof(d->pci) : 0;
}

/* 0: it counts more than it can have. */
static size_t packed_size(const struct device_desc *d)
{
	if (d->nwindows > DEVICE_MAX_WINDOWS || d->ndoorbells > DEVICE_MAX_DOORBELLS ||
	    d->nvectors > DEVICE_MAX_VECTORS)
		return 0;
	return HEAD_SIZE + d->nwindows * sizeof(*d->window) + d->ndoorbells * sizeof(*d->doorbell) +
	       d->nvectors * sizeof(*d->vector) + pci_size(d);
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
	body += d->nvectors * sizeof(*d->vector);
	memcpy(body, &d->pci, pci_size(d));
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
	from += d->nvectors * sizeof(*d->vector);
	memcpy(&d->pci, from, pci_size(d));
	return 0;
}
