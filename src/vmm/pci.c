/* SPDX-License-Identifier: BSD-2-Clause */
/* The PCI bus. See pci.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "pci_parts.h"

#define MSIX_ID 0x11u
#define MSIX_SIZE 12u
#define MSI_ID 0x05u /* of 32 bits and without a mask it has 12 bytes, too */

_Static_assert(CFG_MSIX + MSIX_SIZE == DEVICE_CAPS_AT, "what descriptions count on");

static const struct device_pci *about(const struct pci_function *f)
{
	return &f->dev->desc.pci;
}

/* ---- BARs: the lock is held, or no vCPU runs ---- */

static uint32_t bar_of(const struct device_window *w)
{
	return w->space - DEVICE_BAR;
}

/* Is it a memory slot of the guest? */
static bool has_slot(const struct device_window *w)
{
	return w->serve == DEVICE_SHADOW || w->serve == DEVICE_DIRECT;
}

static bool decodes(const struct pci_function *f)
{
	return pci_word(f->config, CFG_COMMAND) & CMD_MEMORY;
}

static int for_doorbells(struct pci *p, const struct pci_function *f, uint32_t bar, uint64_t at,
			 int (*fn)(struct hv_vm *, const struct hv_doorbell *, struct err *),
			 struct err *e)
{
	const struct device_desc *m = &f->dev->desc;
	int rc = 0;

	for (unsigned i = 0; i < m->ndoorbells && !rc; i++) {
		struct hv_doorbell h = remote_doorbell(f->dev, i, at);

		if (m->doorbell[i].space - DEVICE_BAR == bar)
			rc = fn(p->vm, &h, e);
		rc = rc == -ENOENT ? 0 : rc; /* one that is not there is taken away already */
	}
	return rc;
}

/* What is there of it, which may not be all. If the hypervisor keeps a part, it stays where it is,
 * and the next attempt finds the rest. */
static int take_away(struct pci *p, struct pci_function *f, uint32_t bar, struct err *e)
{
	const struct device_desc *m = &f->dev->desc;
	uint64_t at = atomic_load(&f->at[bar]);
	int rc = 0;

	if (!at)
		return 0;
	for (unsigned i = 0; i < m->nwindows && !rc; i++) {
		if (bar_of(&m->window[i]) == bar && has_slot(&m->window[i]))
			rc = hv_mem_unmap(p->vm, f->slot[i], e);
		rc = rc == -ENOENT ? 0 : rc;
	}
	if (!rc)
		rc = for_doorbells(p, f, bar, at, hv_doorbell_unbind, e);
	if (!rc)
		atomic_store(&f->at[bar], 0);
	return rc;
}

static int put_there(struct pci *p, struct pci_function *f, uint32_t bar, uint64_t at,
		     struct err *e)
{
	const struct device_desc *m = &f->dev->desc;
	int rc = 0;

	atomic_store(&f->at[bar], at);
	for (unsigned i = 0; i < m->nwindows && !rc; i++) {
		const struct device_window *w = &m->window[i];

		if (bar_of(w) == bar && w->serve == DEVICE_SHADOW)
			rc = hv_mem_map(p->vm, f->slot[i], at + w->base, f->dev->shadow,
					DP_SHADOW_SIZE, HV_MEM_READONLY, e);
		else if (bar_of(w) == bar && w->serve == DEVICE_DIRECT)
			rc = hv_mem_map(p->vm, f->slot[i], at + w->base, f->dev->direct[i], w->len,
					HV_MEM_RW, e);
	}
	return rc ? rc : for_doorbells(p, f, bar, at, hv_doorbell_bind, e);
}

static bool is_within(uint64_t at, uint64_t size, uint64_t from, uint64_t to)
{
	return at >= from && at < to && size <= to - at;
}

/* Whoever is there and does not decode goes. -EEXIST: one who decodes is there, or no board; or
 * what the hypervisor said. */
static int make_room(struct pci *p, const struct pci_function *f, uint64_t at, uint64_t size,
		     struct err *e)
{
	int rc = 0;

	if (!is_within(at, size, BOARD_PCI_MMIO, BOARD_PCI_MMIO_END) &&
	    !is_within(at, size, p->wide_from, p->wide_to))
		return err_set(e, -EEXIST,
			       "a BAR at 0x%llx: expected a place in the board's window",
			       (unsigned long long)at);
	for (unsigned i = 0; i < p->n * DEVICE_BARS && !rc; i++) {
		struct pci_function *o = &p->fn[i / DEVICE_BARS];
		uint32_t bar = i % DEVICE_BARS;
		uint64_t there = atomic_load(&o->at[bar]);

		if (!there || !device_overlap(at, size, there, about(o)->bar_size[bar]))
			continue;
		if (o == f || decodes(o))
			return err_set(e, -EEXIST, "a BAR at 0x%llx: %s is there",
				       (unsigned long long)at, o->dev->desc.name);
		rc = take_away(p, o, bar, e);
	}
	return rc;
}

static bool is_wide(const struct device_pci *m, uint32_t bar)
{
	return m->bar_at[bar] >= DEVICE_WIDE;
}

/* Where its registers say that it is. */
static uint64_t bar_wanted(const struct pci_function *f, uint32_t bar)
{
	uint64_t low = pci_word(f->config, CFG_BAR + bar * 4) & ~BAR_FLAGS;

	return is_wide(about(f), bar)
		       ? low | (uint64_t)pci_word(f->config, CFG_BAR + bar * 4 + 4) << 32
		       : low;
}

/* -EEXIST: there is no room for it where it wants to be. */
static int pci_place(struct pci *p, struct pci_function *f, uint32_t bar, struct err *e)
{
	uint64_t want = bar_wanted(f, bar), size = about(f)->bar_size[bar];
	int rc;

	if (!size || atomic_load(&f->at[bar]) == want)
		return 0;
	rc = take_away(p, f, bar, e);
	if (!rc)
		rc = make_room(p, f, want, size, e);
	if (rc)
		return rc;
	rc = put_there(p, f, bar, want, e);
	if (rc)
		(void)take_away(p, f, bar, &(struct err){0});
	return rc;
}

/* Make it what its configuration space says. */
static int pci_apply(struct pci *p, struct pci_function *f, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < f->dev->desc.nvectors; i++)
		pci_msix_update(f, &f->entry[i]);
	for (uint32_t bar = 0; bar < DEVICE_BARS && decodes(f) && !rc; bar++)
		rc = pci_place(p, f, bar, e);
	return rc;
}

/* The guest has changed it: who had no place may have one now. That it has none is how a BAR is
 * sized, and nothing to be said. */
static int pci_apply_all(struct pci *p, struct pci_function *first, struct err *e)
{
	int rc = pci_apply(p, first, e);

	for (unsigned i = 0; i < p->n && (!rc || rc == -EEXIST); i++) {
		if (&p->fn[i] != first)
			rc = pci_apply(p, &p->fn[i], e);
	}
	return rc == -EEXIST ? 0 : rc;
}

/* ---- configuration space ---- */

/* Within one word. The lock is held. */
static void config_write_word(struct pci *p, struct pci_function *f, unsigned off, unsigned size,
			      uint32_t v)
{
	uint32_t old = pci_word(f->config, off), ones;
	uint32_t new = pci_written(old, f->writable[off / 4], off, size, v, &ones);
	struct err e;
	int rc;

	if (new == old)
		return;
	pci_store(f->config, off, new);
	rc = pci_apply_all(p, f, &e);
	if (rc)
		log_error("%s: PCI: %s", f->dev->desc.name, e.text);
}

/* What is in a place cannot be let go between these two. */
static void enter(struct pci_function *f)
{
	if (f && f->place)
		atomic_fetch_add(&f->place->accesses, 1);
}

static void leave(struct pci_function *f)
{
	if (f && f->place)
		atomic_fetch_sub(&f->place->accesses, 1);
}

/* Of bus 0. */
static struct pci_function *function_at(struct pci *p, uint64_t off)
{
	for (unsigned i = 0; i < pci_fixed(p); i++) {
		if (about(&p->fn[i])->number == off >> 15 && !(off >> 12 & 7))
			return &p->fn[i];
	}
	return NULL;
}

static struct pci_place *port_at(struct pci *p, uint64_t off)
{
	uint64_t first = BOARD_PORT_NUMBER(0, p->nplaces), number = off >> 15;

	if (number < first || number > 31 || off >> 12 & 7)
		return NULL;
	return &p->place[number - first];
}

/* The lock is held. NULL: nothing can be reached there. */
static struct pci_function *function_of(struct pci *p, uint64_t off)
{
	uint64_t bus = off / BOARD_PCI_ECAM_SIZE;

	if (bus == 0)
		return function_at(p, off);
	if (bus > p->nplaces || off % BOARD_PCI_ECAM_SIZE >= HV_PAGE ||
	    !pci_port_is_up(&p->place[bus - 1].port))
		return NULL;
	return p->place[bus - 1].fn;
}

/* Behind the last device of bus 0: what is before that is a memory slot, and does not exit. */
static uint64_t config_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	unsigned reg = off % HV_PAGE;
	struct pci_function *f;
	struct pci *p = self;
	uint64_t v = ~0ull;

	(void)w;
	if (off < BOARD_PCI_ECAM_SIZE)
		return v;
	pthread_mutex_lock(&p->lock);
	f = function_of(p, off);
	if (f) {
		v = 0;
		for (unsigned i = 0; i < size && reg + i < PCI_CONFIG; i++)
			v |= (uint64_t)((const uint8_t *)f->config)[reg + i] << 8 * i;
	}
	pthread_mutex_unlock(&p->lock);
	return v;
}

/* The device's own side of a register that has just changed: without the lock, a helper may take
 * its time. */
static void config_tell(struct pci_function *f, unsigned reg, unsigned size, uint64_t v,
			struct bus_patience *w)
{
	const struct device_desc *m = &f->dev->desc;

	for (unsigned i = 0; i < m->nwindows; i++) {
		const struct device_window *win = &m->window[i];

		if (win->space == DEVICE_CONFIG && reg >= win->base &&
		    reg + size <= win->base + win->len)
			remote_call_or_wait(&f->dev->window[i], reg - win->base, size, v, w);
	}
}

static void config_write(void *self, uint64_t off, unsigned size, uint64_t v,
			 struct bus_patience *w)
{
	unsigned reg = off % HV_PAGE, step = size <= 4 && reg % size == 0 ? size : 1;
	struct pci_function *f, *off_now = NULL;
	struct pci_place *l;
	struct pci *p = self;

	if (reg + size > PCI_CONFIG)
		return;
	pthread_mutex_lock(&p->lock);
	f = function_of(p, off);
	l = port_at(p, off);
	for (unsigned i = 0; i < size; i += step) {
		if (f)
			config_write_word(p, f, reg + i, step, (uint32_t)(v >> 8 * i));
		else if (l && pci_place_write(p, l, reg + i, step, (uint32_t)(v >> 8 * i)))
			off_now = l->fn;
	}
	enter(f);
	enter(off_now);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < size && f; i += step)
		config_tell(f, reg + i, step, v >> 8 * i & ((1ull << 8 * step) - 1), w);
	leave(f);
	if (off_now) /* it masters the bus no more, nor before it is told to */
		config_tell(off_now, CFG_COMMAND, 2, 0, w);
	leave(off_now);
}

/* ---- the window of the BARs ---- */

/* Has entered it; NULL: nothing is there. */
static struct pci_function *find_bar(struct pci *p, uint64_t gpa, unsigned size, uint32_t *bar,
				     uint64_t *off)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct pci_function *f = &p->fn[i];

		enter(f);
		for (*bar = 0; *bar < DEVICE_BARS; ++*bar) {
			uint64_t at = atomic_load(&f->at[*bar]);

			*off = gpa - at;
			if (at && *off < about(f)->bar_size[*bar] &&
			    size <= about(f)->bar_size[*bar] - *off)
				return f;
		}
		leave(f);
	}
	return NULL;
}

/* NULL: no window is there. */
static struct remote_window *window_of(struct pci_function *f, uint32_t bar, uint64_t off,
				       unsigned size)
{
	const struct device_desc *m = &f->dev->desc;

	for (unsigned i = 0; i < m->nwindows; i++) {
		const struct device_window *w = &m->window[i];

		if (bar_of(w) == bar && off >= w->base && off + size <= w->base + w->len)
			return &f->dev->window[i];
	}
	return NULL;
}

/* Has the core its MSI-X table in that part of the BAR? */
static bool is_msix(const struct pci_function *f, uint32_t bar, uint64_t at)
{
	return !about(f)->msi && bar == about(f)->msix_bar && at <= UINT32_MAX;
}

/* What is read where nothing answers: ones; in the windows of the ports zeros. The bus leaves that
 * open (2.3.2), and drivers of Linux wait for a register of a device that was pulled out to become
 * 0. */
static uint64_t nobody(const struct pci *p, uint64_t gpa)
{
	return gpa - BOARD_PCI_PORT_MMIO < p->nplaces * BOARD_PCI_PORT_SIZE ? 0 : ~0ull;
}

static uint64_t bar_get(struct pci *p, uint64_t gpa, unsigned size, struct bus_patience *w)
{
	uint32_t bar;
	uint64_t at;
	struct pci_function *f = find_bar(p, gpa, size, &bar, &at);
	struct remote_window *win = f ? window_of(f, bar, at, size) : NULL;
	uint64_t v = nobody(p, gpa);

	if (win)
		v = remote_bus_ops.read(win, at - win->w->base, size, w);
	else if (f)
		v = is_msix(f, bar, at) ? pci_msix_read(p, f, (uint32_t)at, size) : 0;
	leave(f);
	return v;
}

static void bar_put(struct pci *p, uint64_t gpa, unsigned size, uint64_t v, struct bus_patience *w)
{
	uint32_t bar;
	uint64_t at;
	struct pci_function *f = find_bar(p, gpa, size, &bar, &at);
	struct remote_window *win = f ? window_of(f, bar, at, size) : NULL;

	if (win)
		remote_bus_ops.write(win, at - win->w->base, size, v, w);
	else if (f && is_msix(f, bar, at))
		pci_msix_write(p, f, (uint32_t)at, size, v);
	leave(f);
}

static uint64_t bar_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	return bar_get(self, BOARD_PCI_MMIO + off, size, w);
}

static void bar_write(void *self, uint64_t off, unsigned size, uint64_t v, struct bus_patience *w)
{
	bar_put(self, BOARD_PCI_MMIO + off, size, v, w);
}

static uint64_t wide_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	return bar_get(self, ((struct pci *)self)->wide_from + off, size, w);
}

static void wide_write(void *self, uint64_t off, unsigned size, uint64_t v, struct bus_patience *w)
{
	bar_put(self, ((struct pci *)self)->wide_from + off, size, v, w);
}

/* ---- set-up ---- */

/* The host bridge, 00:00.0: an identity, a class, and a capability of PCI Express (7.5.3) that says
 * that it is an endpoint of the root complex. Nothing of it can be written. FreeBSD and OpenBSD use
 * MSI-X only if they find such a chipset; Linux does not look. */
static void make_bridge(uint32_t *config)
{
	config[CFG_ID / 4] = 0x0d578086;
	config[CFG_COMMAND / 4] = STATUS_CAPS;
	config[CFG_CLASS / 4] = 0x06000000;
	config[CFG_CAPS / 4] = CFG_FIRST_CAP;
	config[CFG_FIRST_CAP / 4] = 0x00920010; /* version 2, type 9 */
}

/* How it interrupts. */
static void config_make_messages(struct pci_function *f, const struct device_desc *d)
{
	const struct device_pci *m = &d->pci;

	if (m->msi) {
		f->config[CFG_MSI / 4] = MSI_ID;
		f->writable[CFG_MSI / 4] = MSI_ON;
		f->writable[CFG_MSI / 4 + 1] = ~3u;
		f->writable[CFG_MSI / 4 + 2] = MSI_DATA_BITS;
		return;
	}
	f->config[CFG_MSIX / 4] = MSIX_ID | (d->nvectors - 1) << 16;
	f->config[CFG_MSIX / 4 + 1] = m->msix_table | m->msix_bar;
	f->config[CFG_MSIX / 4 + 2] = m->msix_pba | m->msix_bar;
	f->writable[CFG_MSIX / 4] = MSIX_ON | MSIX_MASKED;
}

static void config_make(struct pci_function *f, const struct device_desc *d)
{
	const struct device_pci *m = &d->pci;
	uint8_t *bytes = (uint8_t *)f->config;
	unsigned at = CFG_MSIX + MSIX_SIZE, link = CFG_MSIX + 1;

	memset(bytes, 0, PCI_CONFIG);
	memset(f->writable, 0, sizeof(f->writable));
	f->config[CFG_ID / 4] = m->vendor | (uint32_t)m->device << 16;
	f->config[CFG_COMMAND / 4] = STATUS_CAPS | (f->place ? 0 : CMD_MEMORY);
	f->config[CFG_CLASS / 4] = m->class_revision;
	f->config[CFG_SUBSYSTEM / 4] = m->subsystem_vendor | (uint32_t)m->subsystem << 16;
	f->config[CFG_CAPS / 4] = CFG_FIRST_CAP;
	config_make_messages(f, d);
	for (unsigned i = 0; i < m->caps_len; i += m->caps[i + 1]) {
		memcpy(bytes + at, m->caps + i, m->caps[i + 1]);
		bytes[link] = (uint8_t)at;
		link = at + 1;
		bytes[link] = 0;
		at += m->caps[i + 1];
	}
	for (unsigned i = 0; i < DEVICE_MAX_CAN; i++)
		f->writable[(DEVICE_CAPS_AT + m->can[i].at) / 4] |= m->can[i].bits;
	f->writable[CFG_COMMAND / 4] = CMD_MEMORY | CMD_MASTER | CMD_NO_INTX;
	for (unsigned i = 0; i < DEVICE_BARS; i++) {
		uint64_t can = m->bar_size[i] ? ~(m->bar_size[i] - 1) : 0;

		if (i && is_wide(m, i - 1))
			continue; /* its upper half */
		f->config[CFG_BAR / 4 + i] = (uint32_t)m->bar_at[i];
		f->writable[CFG_BAR / 4 + i] = (uint32_t)can;
		if (!is_wide(m, i))
			continue;
		f->config[CFG_BAR / 4 + i] |= BAR_WIDE;
		f->config[CFG_BAR / 4 + i + 1] = (uint32_t)(m->bar_at[i] >> 32);
		f->writable[CFG_BAR / 4 + i + 1] = (uint32_t)(can >> 32);
	}
}
_Static_assert(CFG_MSIX + MSIX_SIZE + DEVICE_MAX_CAPS <= PCI_CONFIG, "all capabilities fit");

unsigned pci_count_lines(const struct remote *dev, unsigned ndevices)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ndevices; i++) {
		n += device_is_pci(&dev[i].desc) ? dev[i].desc.nvectors : 0;
		n += device_is_place(&dev[i].desc) ? 1 + DEVICE_MAX_VECTORS : 0;
	}
	return n;
}

int pci_function_new(struct pci *p, struct pci_function *f, struct err *e)
{
	int rc = 0, held;

	for (uint32_t bar = 0; bar < DEVICE_BARS && !rc; bar++)
		rc = take_away(p, f, bar, e);
	for (unsigned i = 0; i < f->dev->desc.nvectors; i++) {
		held = line_hold(&f->entry[i].line, e);
		f->entry[i] = (struct pci_entry){.control = ENTRY_MASKED, .line = f->entry[i].line};
		rc = rc ? rc : held;
	}
	config_make(f, &f->dev->desc);
	return rc;
}

void pci_init(struct pci *p, struct hv_vm *vm, const struct line_ops *ops)
{
	pthread_mutex_init(&p->lock, NULL);
	p->vm = vm;
	p->ops = ops;
	p->n = p->nplaces = 0;
	p->wide_from = UINT64_MAX;
	p->wide_to = 0;
}

int pci_add(struct pci *p, struct remote *dev, unsigned *line, unsigned *slot, struct err *e)
{
	const struct device_desc *d = &dev->desc;
	uint64_t place = (uint64_t)d->pci.number << 15;
	struct pci_function *f = &p->fn[p->n];

	if (p->n == BOARD_MAX_PCI)
		return err_set(e, -ENOSPC, "%s: more than %d PCI functions", d->name,
			       BOARD_MAX_PCI);
	if (p->nplaces)
		return err_set(e, -EINVAL, "%s: expected places behind all functions", d->name);
	if (function_at(p, place))
		return err_set(e, -EEXIST, "%s: PCI device %u is another one", d->name,
			       d->pci.number);
	device_wide_range(d, &p->wide_from, &p->wide_to);
	memset(f, 0, sizeof(*f));
	f->dev = dev;
	f->config = pci_page(p, place);
	config_make(f, d);
	for (unsigned i = 0; i < d->nvectors; i++)
		f->entry[i] = (struct pci_entry){.control = ENTRY_MASKED,
						 .line = {.ops = p->ops,
							  .vm = p->vm,
							  .number = (*line)++,
							  .event = dev->slot[d->vector[i].slot]}};
	for (unsigned i = 0; i < d->nwindows; i++) {
		if (has_slot(&d->window[i]))
			f->slot[i] = (*slot)++;
	}
	p->n++;
	return pci_apply(p, f, e);
}

static int check_ports(struct pci *p, struct err *e)
{
	for (unsigned i = 0; i < p->nplaces; i++) {
		const struct device_desc *d = &p->place[i].empty;
		unsigned number = BOARD_PORT_NUMBER(i, p->nplaces);

		if (d->pci.number != number)
			return err_set(e, -EINVAL, "%s: port %u; expected %u", d->name,
				       d->pci.number, number);
		if (function_at(p, (uint64_t)number << 15))
			return err_set(e, -EEXIST, "%s: PCI device %u is another one", d->name,
				       number);
	}
	return 0;
}

int pci_on_bus(struct pci *p, struct bus *mmio, unsigned slot, struct err *e)
{
	static const struct bus_ops config_ops = {config_read, config_write};
	static const struct bus_ops bar_ops = {bar_read, bar_write};
	static const struct bus_ops wide_ops = {wide_read, wide_write};
	uint64_t end = 0, buses = (1 + p->nplaces) * BOARD_PCI_ECAM_SIZE;
	int rc = check_ports(p, e);

	for (unsigned i = 0; i < p->n; i++) {
		uint64_t behind = ((uint64_t)about(&p->fn[i])->number + 1) << 15;

		end = end < behind ? behind : end;
	}
	if (!end || rc)
		return rc;
	make_bridge(pci_page(p, 0));
	for (uint64_t at = HV_PAGE; at < end; at += HV_PAGE) {
		if (!function_at(p, at) && !port_at(p, at))
			memset(pci_page(p, at), 0xff, HV_PAGE);
	}
	rc = hv_mem_map(p->vm, slot, BOARD_PCI_ECAM, p->ecam, end, HV_MEM_READONLY, e);
	if (!rc)
		rc = bus_add(mmio, BOARD_PCI_ECAM, buses, &config_ops, p, e);
	if (!rc)
		rc = bus_add(mmio, BOARD_PCI_MMIO, BOARD_PCI_MMIO_END - BOARD_PCI_MMIO, &bar_ops, p,
			     e);
	if (!rc && p->wide_to)
		rc = bus_add(mmio, p->wide_from, p->wide_to - p->wide_from, &wide_ops, p, e);
	return rc;
}

/* ---- a snapshot ---- */

void pci_get(struct pci *p, unsigned i, struct pci_state *s)
{
	const struct pci_function *f = &p->fn[i];

	memset(s, 0, sizeof(*s));
	pthread_mutex_lock(&p->lock);
	s->command = pci_word(f->config, CFG_COMMAND);
	s->msix = pci_word(f->config, CFG_MSIX);
	for (unsigned k = 0; k < DEVICE_BARS; k++)
		s->bar[k] = pci_word(f->config, CFG_BAR + k * 4);
	for (unsigned k = 0; k < f->dev->desc.nvectors; k++) {
		s->entry[k].addr = f->entry[k].addr;
		s->entry[k].data = f->entry[k].data;
		s->entry[k].control = f->entry[k].control;
	}
	pthread_mutex_unlock(&p->lock);
}

static void pci_restore_word(struct pci_function *f, unsigned off, uint32_t v)
{
	uint32_t can = f->writable[off / 4];

	pci_store(f->config, off, (pci_word(f->config, off) & ~can) | (v & can));
}

/* First who is elsewhere is nowhere: two may have changed places. */
static int pci_restore(struct pci *p, struct pci_function *f, const struct pci_state *s,
		       struct err *e)
{
	int rc = 0;

	pci_restore_word(f, CFG_COMMAND, s->command);
	pci_restore_word(f, CFG_MSIX, s->msix);
	for (uint32_t k = 0; k < DEVICE_BARS; k++)
		pci_restore_word(f, CFG_BAR + k * 4, s->bar[k]);
	for (uint32_t k = 0; k < DEVICE_BARS && !rc; k++) {
		if (atomic_load(&f->at[k]) != bar_wanted(f, k))
			rc = take_away(p, f, k, e);
	}
	for (unsigned k = 0; k < f->dev->desc.nvectors; k++) {
		struct pci_entry *n = &f->entry[k];

		n->addr = s->entry[k].addr & ~3ull;
		n->data = s->entry[k].data;
		n->control = s->entry[k].control & ENTRY_MASKED;
		if (n->addr)
			event_signal((int)n->line.event);
	}
	return rc;
}

int pci_set(struct pci *p, const struct pci_state *s, struct err *e)
{
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < pci_fixed(p) && !rc; i++)
		rc = pci_restore(p, &p->fn[i], &s[i], e);
	if (p->n && !rc)
		rc = pci_apply_all(p, p->fn, e);
	pthread_mutex_unlock(&p->lock);
	return rc;
}
