/* SPDX-License-Identifier: BSD-2-Clause */
/* Is a device's description one that can be executed? And its form on the wire. See
 * insula/device.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/device.h>
#include <insula/devpage.h>
#include <insula/memmap.h>

#define PAGE 4096u
#define PORTS 0x10000u
#define CONFIG_SIZE 256u

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

/* Memory of a device of the host is no event, nor is what it is known by. */
static bool is_memory(const struct device_desc *d, uint32_t slot)
{
	if (d->pci.host_slot && slot == d->pci.host_slot)
		return true;
	for (unsigned i = 0; i < d->nwindows && i < DEVICE_MAX_WINDOWS; i++) {
		if (d->window[i].serve == DEVICE_DIRECT && d->window[i].slot == slot)
			return true;
	}
	return false;
}

static bool is_event(const struct device_desc *d, uint32_t slot)
{
	return slot < d->nslots && slot != d->page_slot && !is_memory(d, slot);
}

static bool is_size(uint32_t n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

static bool is_bar(uint32_t space)
{
	return space >= DEVICE_BAR && space < DEVICE_BAR + DEVICE_BARS;
}

static int check_direct(const struct place *p, const struct device_window *w)
{
	if (!is_bar(w->space) || w->base % PAGE || w->len % PAGE)
		return refused(p, -EINVAL, "base", w->base,
			       "whole pages of a BAR for memory of the host's device");
	if (w->offset % PAGE || w->offset > INT64_MAX - w->len)
		return refused(p, -EINVAL, "offset", w->offset, "a multiple of 4096");
	return w->slot < p->d->nslots && w->slot != p->d->page_slot
		       ? 0
		       : refused(p, -EINVAL, "slot", w->slot, "the place of a descriptor");
}

/* In configuration space only whole words, that have no other one's meaning. */
static int check_calls(const struct place *p, const struct device_window *w)
{
	if (!device_is_pci(p->d))
		return refused(p, -EINVAL, "serve", w->serve, "a PCI function for calls alone");
	if (w->at > UINT32_MAX - w->len)
		return refused(p, -EINVAL, "place", w->at, "that it ends within 32 bits");
	return w->space == DEVICE_CONFIG && (w->base % 4 || w->len % 4)
		       ? refused(p, -EINVAL, "base", w->base, "whole registers of four bytes")
		       : 0;
}

static int check_served(const struct place *p, const struct device_window *w)
{
	if (w->serve == DEVICE_DIRECT)
		return check_direct(p, w);
	if (w->serve == DEVICE_CALLS)
		return check_calls(p, w);
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
	if (space == DEVICE_CONFIG)
		return CONFIG_SIZE;
	return space == DEVICE_PIO ? PORTS : UINT64_MAX;
}

static int check_window(const struct place *p, const struct device_window *w)
{
	bool pci = device_is_pci(p->d);

	if (pci ? !is_bar(w->space) && w->space != DEVICE_CONFIG
		: w->space != DEVICE_PIO && w->space != DEVICE_MMIO)
		return refused(p, -EINVAL, "space", w->space,
			       pci ? "8 to 13 (a BAR) or 3 (configuration)"
				   : "1 (ports) or 2 (memory)");
	if (!w->len || w->base + w->len < w->base || w->base + w->len > space_end(p->d, w->space))
		return refused(p, -EINVAL, "length", w->len, "some, within the space");
	if (w->serve < DEVICE_EXITS || w->serve > DEVICE_CALLS)
		return refused(p, -EINVAL, "serve", w->serve, "1 to 4");
	if (w->space == DEVICE_CONFIG && w->serve != DEVICE_CALLS)
		return refused(p, -EINVAL, "serve", w->serve, "4 in configuration space");
	for (unsigned k = 0; k < p->i; k++) {
		const struct device_window *o = &p->d->window[k];

		if (o->space == w->space && device_overlap(w->base, w->len, o->base, o->len))
			return refused(p, -EINVAL, "base", w->base, "that it overlaps no other");
		if (w->serve == o->serve && w->serve <= DEVICE_SHADOW &&
		    device_overlap(w->at, w->len, o->at, o->len))
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

static int check_bar(const struct place *p, const struct device_pci *f)
{
	uint64_t size = f->bar_size[p->i], at = f->bar_at[p->i];
	bool wide = at >= DEVICE_WIDE;

	if (size && (size < PAGE || (size & (size - 1))))
		return refused(p, -EINVAL, "size", size, "a power of two from 4096 on");
	if (size ? at % size : at)
		return refused(p, -EINVAL, "address", at, "a multiple of its size");
	if (at >= MEMMAP_END || size > MEMMAP_END - at || (!wide && size > DEVICE_WIDE - at))
		return refused(p, -EINVAL, "address", at, "a place that has room for it");
	return wide && (p->i == DEVICE_BARS - 1 || f->bar_size[p->i + 1])
		       ? refused(p, -EINVAL, "address", at, "below 4 GiB, or no BAR behind it")
		       : 0;
}

static int check_msi(const struct place *p)
{
	const struct device_pci *f = &p->d->pci;

	if (f->msi > 1 || p->d->nvectors != 1)
		return refused(p, -EINVAL, "msi", f->msi, "0, or 1 and one vector");
	return f->msix_bar || f->msix_table || f->msix_pba
		       ? refused(p, -EINVAL, "table", f->msix_table, "none beside MSI")
		       : 0;
}

/* In whole pages of their own, or beside registers that exit: there the core answers alone. */
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
		bool exits = w->serve == DEVICE_CALLS;
		uint64_t from = exits ? f->msix_table : first;
		uint64_t to = exits ? (uint64_t)f->msix_pba + 8 : end;

		if (w->space == DEVICE_BAR + f->msix_bar &&
		    device_overlap(w->base, w->len, from, to - from))
			return refused(p, -EINVAL, "table", f->msix_table,
				       "pages without a window");
	}
	return 0;
}

static bool is_cap(uint8_t kind)
{
	return kind == DEVICE_CAP_POWER || kind == DEVICE_CAP_VENDOR || kind == DEVICE_CAP_EXPRESS;
}

static int check_caps(const struct place *p)
{
	const struct device_pci *f = &p->d->pci;
	uint32_t at = 0;

	while (f->caps_len <= DEVICE_MAX_CAPS && at + 4 <= f->caps_len && is_cap(f->caps[at]) &&
	       f->caps[at + 1] >= 4 && f->caps[at + 1] % 4 == 0) {
		for (unsigned i = 0; i < DEVICE_MAX_CAN; i++) {
			if (f->can[i].bits && f->can[i].at == at)
				return refused(p, -EINVAL, "bits", f->can[i].bits,
					       "none where a capability begins");
		}
		at += f->caps[at + 1];
	}
	for (unsigned i = 0; i < DEVICE_MAX_CAN; i++) {
		if (f->can[i].bits && (f->can[i].at >= f->caps_len || f->can[i].at % 4))
			return refused(p, -EINVAL, "bits", f->can[i].at,
				       "a place in the capabilities");
	}
	return at == f->caps_len
		       ? 0
		       : refused(p, -EINVAL, "capabilities", f->caps_len,
				 "those of power, vendor or Express, of 4, 8 ... bytes each");
}

static int check_pci(const struct device_desc *d, struct err *e)
{
	struct place p = {d, "BAR", 0, e};
	const struct device_pci *f = &d->pci;
	int rc = 0;

	for (; p.i < DEVICE_BARS && !rc; p.i++)
		rc = check_bar(&p, f);
	p = (struct place){d, "function", f->number, e};
	if (!rc && (f->number < 1 || f->number > 31))
		rc = refused(&p, -EINVAL, "number", f->number, "1 to 31");
	if (!rc && (d->hid[0] || !d->nvectors))
		rc = refused(&p, -EINVAL, "vectors", d->nvectors,
			     "some, and no name in the ACPI tables");
	if (!rc && (f->host_slot >= d->nslots || (f->host_slot && f->host_slot == d->page_slot)))
		rc = refused(&p, -EINVAL, "host_slot", f->host_slot, "the place of a descriptor");
	if (!rc)
		rc = f->msi ? check_msi(&p) : check_msix(&p);
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
			       "1 to 14, and at most 24 doorbells and vectors");
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

/* What a device has to have is what a place must not have. */
static int check_place(const struct device_desc *d, unsigned nfds, struct err *e)
{
	const struct device_pci number = {.number = d->pci.number};
	struct place p = {d, "port", d->pci.number, e};

	if (!memchr(d->name, 0, sizeof(d->name)))
		return refused(&p, -EINVAL, "name", 0, "a name that ends");
	if (nfds != 1 || d->nslots != nfds || d->page_slot || d->call_slot != DEVICE_NO_SLOT ||
	    d->answer_slot != DEVICE_NO_SLOT)
		return refused(&p, -EINVAL, "slots", d->nslots, "its page alone");
	if (d->nwindows || d->ndoorbells || d->nvectors || d->hid[0] || d->uid || d->probe_at ||
	    d->probe_size || memcmp(&d->pci, &number, sizeof(number)) != 0)
		return refused(&p, -EINVAL, "windows", d->nwindows, "no part of a device");
	if (d->state_size != DP_STATE_SIZE)
		return refused(&p, -EINVAL, "state_size", d->state_size, "that of a virtio device");
	return d->pci.number < BOARD_PORT_NUMBER(0, BOARD_MAX_PLACES) || d->pci.number > 31
		       ? refused(&p, -EINVAL, "number", d->pci.number, "24 to 31")
		       : 0;
}

int device_check(const struct device_desc *d, unsigned nfds, struct err *e)
{
	int rc;

	if (d->version < DEVICE_VERSION || d->version > DEVICE_VERSION_PLACE)
		return err_set(e, -EPROTO, "device: a description of version %u; expected %u to %u",
			       d->version, DEVICE_VERSION, DEVICE_VERSION_PLACE);
	if (device_is_place(d))
		return check_place(d, nfds, e);
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
	return device_is_pci(d) || device_is_place(d) ? sizeof(d->pci) : 0;
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
