/* SPDX-License-Identifier: BSD-2-Clause */
/* The PCI bus. See pci.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "pci.h"

/* Configuration space, type 0: 7.5.1. Words of 4 bytes. */
#define CFG_ID 0x00
#define CFG_COMMAND 0x04 /* and status in the upper half */
#define CFG_CLASS 0x08
#define CFG_BAR 0x10
#define CFG_SUBSYSTEM 0x2c
#define CFG_CAPS 0x34
#define CFG_SIZE 256u /* there is nothing beyond */

#define CMD_MEMORY 0x0002u
#define CMD_MASTER 0x0004u
#define CMD_NO_INTX 0x0400u /* there is none; kernels set it all the same */
#define STATUS_CAPS 0x00100000u

/* MSI-X: 7.7.2. The first capability. */
#define CFG_FIRST_CAP 0x40
#define CFG_MSIX CFG_FIRST_CAP /* and its control in the upper half */
#define MSIX_ID 0x11u
#define MSIX_SIZE 12u
#define MSIX_MASKED 0x40000000u
#define MSIX_ON 0x80000000u
#define ENTRY_SIZE 16u
#define ENTRY_MASKED 1u

#define MSI_WINDOW 0x100000ull /* addresses from BOARD_LAPIC on are interrupts */

static uint32_t pci_word(const struct pci_function *f, unsigned off)
{
	return __atomic_load_n(&f->config[off / 4], __ATOMIC_RELAXED);
}

static void pci_store(struct pci_function *f, unsigned off, uint32_t v)
{
	__atomic_store_n(&f->config[off / 4], v, __ATOMIC_RELEASE);
}

static const struct device_pci *about(const struct pci_function *f)
{
	return &f->dev->desc.pci;
}

/* ---- MSI-X ---- */

static bool entry_delivers(const struct pci_function *f, const struct pci_entry *n)
{
	return (pci_word(f, CFG_MSIX) & (MSIX_ON | MSIX_MASKED)) == MSIX_ON &&
	       (pci_word(f, CFG_COMMAND) & CMD_MASTER) && !(n->control & ENTRY_MASKED) &&
	       n->addr - BOARD_LAPIC < MSI_WINDOW;
}

static void entry_update(const struct pci_function *f, struct pci_entry *n)
{
	struct err e = {0};
	int rc = entry_delivers(f, n) ? line_deliver(&n->line, n->addr, n->data, &e)
				      : line_hold(&n->line, &e);

	if (rc)
		log_error("%s: interrupt %u: %s", f->dev->desc.name, (unsigned)(n - f->entry),
			  e.text);
}

static bool entry_pending(const struct pci_entry *n)
{
	return !n->line.bound && event_pending((int)n->line.event);
}

static uint32_t table_word(const struct pci_function *f, uint32_t off)
{
	const struct pci_entry *n = &f->entry[off / ENTRY_SIZE];
	const uint32_t word[] = {(uint32_t)n->addr, (uint32_t)(n->addr >> 32), n->data, n->control};

	return word[off % ENTRY_SIZE / 4];
}

static void table_write(struct pci_function *f, uint32_t off, uint32_t v)
{
	struct pci_entry *n = &f->entry[off / ENTRY_SIZE];

	switch (off % ENTRY_SIZE / 4) {
	case 0:
		n->addr = (n->addr & ~0xffffffffull) | (v & ~3u);
		break;
	case 1:
		n->addr = (n->addr & 0xffffffffull) | (uint64_t)v << 32;
		break;
	case 2:
		n->data = v;
		break;
	default:
		n->control = v & ENTRY_MASKED;
	}
	entry_update(f, n);
}

static uint32_t pending_word(const struct pci_function *f, uint32_t off)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 32 && off * 8 + i < f->dev->desc.nvectors; i++)
		v |= (uint32_t)entry_pending(&f->entry[off * 8 + i]) << i;
	return v;
}

/* The word at `off` of the BAR. */
static uint32_t msix_word(const struct pci_function *f, uint32_t off)
{
	const struct device_pci *m = about(f);

	if (off - m->msix_table < f->dev->desc.nvectors * ENTRY_SIZE)
		return table_word(f, off - m->msix_table);
	if (off - m->msix_pba < 8)
		return pending_word(f, off - m->msix_pba);
	return 0;
}

static uint64_t msix_read(struct pci *p, const struct pci_function *f, uint32_t off, unsigned size)
{
	uint32_t first = off & ~3u;
	uint64_t v[2] = {0};

	pthread_mutex_lock(&p->lock);
	for (unsigned at = first; at < off + size; at += 4)
		v[(at - first) / 8] |= (uint64_t)msix_word(f, at) << (at - first) % 8 * 8;
	pthread_mutex_unlock(&p->lock);
	return off == first ? v[0] : v[0] >> 8 * (off - first) | v[1] << (64 - 8 * (off - first));
}

/* Whole words alone, one or two: what else a driver writes means nothing. */
static void msix_write(struct pci *p, struct pci_function *f, uint32_t off, unsigned size,
		       uint64_t v)
{
	uint32_t at = off - about(f)->msix_table, table = f->dev->desc.nvectors * ENTRY_SIZE;

	if (size < 4 || at % size || at >= table)
		return;
	pthread_mutex_lock(&p->lock);
	for (; size; size -= 4, at += 4, v >>= 32)
		table_write(f, at, (uint32_t)v);
	pthread_mutex_unlock(&p->lock);
}

/* ---- BARs: the lock is held, or no vCPU runs ---- */

static uint32_t bar_of(const struct device_window *w)
{
	return w->space - DEVICE_BAR;
}

static bool decodes(const struct pci_function *f)
{
	return pci_word(f, CFG_COMMAND) & CMD_MEMORY;
}

static int for_doorbells(struct pci *p, const struct pci_function *f, uint32_t bar, uint32_t at,
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
	uint32_t at = atomic_load(&f->at[bar]);
	int rc = 0;

	if (!at)
		return 0;
	for (unsigned i = 0; i < m->nwindows && !rc; i++) {
		if (bar_of(&m->window[i]) == bar && m->window[i].serve == DEVICE_SHADOW)
			rc = hv_mem_unmap(p->vm, f->slot[i], e);
		rc = rc == -ENOENT ? 0 : rc;
	}
	if (!rc)
		rc = for_doorbells(p, f, bar, at, hv_doorbell_unbind, e);
	if (!rc)
		atomic_store(&f->at[bar], 0);
	return rc;
}

static int put_there(struct pci *p, struct pci_function *f, uint32_t bar, uint32_t at,
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
	}
	return rc ? rc : for_doorbells(p, f, bar, at, hv_doorbell_bind, e);
}

/* Whoever is there and does not decode goes. -EEXIST: one who decodes is there, or no board; or
 * what the hypervisor said. */
static int make_room(struct pci *p, const struct pci_function *f, uint32_t at, uint32_t size,
		     struct err *e)
{
	int rc = 0;

	if (at < BOARD_PCI_MMIO || at + (uint64_t)size > BOARD_PCI_MMIO_END)
		return err_set(e, -EEXIST, "a BAR at 0x%x: expected a place in the board's window",
			       at);
	for (unsigned i = 0; i < p->n * DEVICE_BARS && !rc; i++) {
		struct pci_function *o = &p->fn[i / DEVICE_BARS];
		uint32_t bar = i % DEVICE_BARS, there = atomic_load(&o->at[bar]);

		if (!there || !device_overlap(at, size, there, about(o)->bar_size[bar]))
			continue;
		if (o == f || decodes(o))
			return err_set(e, -EEXIST, "a BAR at 0x%x: %s is there", at,
				       o->dev->desc.name);
		rc = take_away(p, o, bar, e);
	}
	return rc;
}

/* -EEXIST: there is no room for it where it wants to be. */
static int pci_place(struct pci *p, struct pci_function *f, uint32_t bar, struct err *e)
{
	uint32_t want = pci_word(f, CFG_BAR + bar * 4), size = about(f)->bar_size[bar];
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
		entry_update(f, &f->entry[i]);
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
	uint32_t can = f->writable[off / 4] & (uint32_t)((1ull << 8 * size) - 1) << off % 4 * 8;
	uint32_t old = pci_word(f, off), new = (old & ~can) | ((v << off % 4 * 8) & can);
	struct err e;
	int rc;

	if (new == old)
		return;
	pci_store(f, off, new);
	rc = pci_apply_all(p, f, &e);
	if (rc)
		log_error("%s: PCI: %s", f->dev->desc.name, e.text);
}

static struct pci_function *function_of(struct pci *p, uint64_t off)
{
	for (unsigned i = 0; i < p->n; i++) {
		if (about(&p->fn[i])->number == off >> 15 && !(off >> 12 & 7))
			return &p->fn[i];
	}
	return NULL;
}

/* Behind the last device: what is before that is a memory slot, and does not exit. */
static uint64_t config_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	(void)self, (void)off, (void)size, (void)w;
	return ~0ull;
}

static void config_write(void *self, uint64_t off, unsigned size, uint64_t v,
			 struct bus_patience *w)
{
	struct pci *p = self;
	struct pci_function *f = function_of(p, off);
	unsigned reg = off % HV_PAGE, step = size <= 4 && reg % size == 0 ? size : 1;

	(void)w;
	if (!f || reg + size > CFG_SIZE)
		return;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i += step)
		config_write_word(p, f, reg + i, step, (uint32_t)(v >> 8 * i));
	pthread_mutex_unlock(&p->lock);
}

/* ---- the window of the BARs ---- */

static struct pci_function *find_bar(struct pci *p, uint64_t gpa, unsigned size, uint32_t *bar,
				     uint32_t *off)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct pci_function *f = &p->fn[i];

		for (*bar = 0; *bar < DEVICE_BARS; ++*bar) {
			uint32_t at = atomic_load_explicit(&f->at[*bar], memory_order_acquire);

			*off = (uint32_t)gpa - at;
			if (at && *off < about(f)->bar_size[*bar] &&
			    size <= about(f)->bar_size[*bar] - *off)
				return f;
		}
	}
	return NULL;
}

/* NULL: no window is there. */
static struct remote_window *window_of(struct pci_function *f, uint32_t bar, uint32_t off,
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

static uint64_t bar_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	uint32_t bar, at;
	struct pci_function *f = find_bar(self, BOARD_PCI_MMIO + off, size, &bar, &at);
	struct remote_window *win = f ? window_of(f, bar, at, size) : NULL;

	if (win)
		return remote_bus_ops.read(win, at - win->w->base, size, w);
	if (f)
		return bar == about(f)->msix_bar ? msix_read(self, f, at, size) : 0;
	return ~0ull;
}

static void bar_write(void *self, uint64_t off, unsigned size, uint64_t v, struct bus_patience *w)
{
	uint32_t bar, at;
	struct pci_function *f = find_bar(self, BOARD_PCI_MMIO + off, size, &bar, &at);
	struct remote_window *win = f ? window_of(f, bar, at, size) : NULL;

	if (win)
		remote_bus_ops.write(win, at - win->w->base, size, v, w);
	else if (f && bar == about(f)->msix_bar)
		msix_write(self, f, at, size, v);
}

/* ---- set-up ---- */

static uint32_t *ecam_page(struct pci *p, uint64_t off)
{
	return (uint32_t *)(void *)(p->ecam + off);
}

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

static void config_make(struct pci_function *f, const struct device_desc *d)
{
	const struct device_pci *m = &d->pci;
	uint8_t *bytes = (uint8_t *)f->config;
	unsigned at = CFG_MSIX + MSIX_SIZE, link = CFG_MSIX + 1;

	f->config[CFG_ID / 4] = m->vendor | (uint32_t)m->device << 16;
	f->config[CFG_COMMAND / 4] = STATUS_CAPS | CMD_MEMORY;
	f->config[CFG_CLASS / 4] = m->class_revision;
	f->config[CFG_SUBSYSTEM / 4] = m->subsystem_vendor | (uint32_t)m->subsystem << 16;
	f->config[CFG_CAPS / 4] = CFG_MSIX;
	f->config[CFG_MSIX / 4] = MSIX_ID | (d->nvectors - 1) << 16;
	f->config[CFG_MSIX / 4 + 1] = m->msix_table | m->msix_bar;
	f->config[CFG_MSIX / 4 + 2] = m->msix_pba | m->msix_bar;
	for (unsigned i = 0; i < m->caps_len; i += m->caps[i + 2]) {
		memcpy(bytes + at, m->caps + i, m->caps[i + 2]);
		bytes[link] = (uint8_t)at;
		link = at + 1;
		bytes[link] = 0;
		at += m->caps[i + 2];
	}
	f->writable[CFG_COMMAND / 4] = CMD_MEMORY | CMD_MASTER | CMD_NO_INTX;
	f->writable[CFG_MSIX / 4] = MSIX_ON | MSIX_MASKED;
	for (unsigned i = 0; i < DEVICE_BARS; i++) {
		f->config[CFG_BAR / 4 + i] = m->bar_at[i];
		f->writable[CFG_BAR / 4 + i] = m->bar_size[i] ? ~(m->bar_size[i] - 1) : 0;
	}
}
_Static_assert(CFG_MSIX + MSIX_SIZE + DEVICE_MAX_CAPS <= CFG_SIZE, "all capabilities fit");

unsigned pci_count_lines(const struct remote *dev, unsigned ndevices)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ndevices; i++)
		n += device_is_pci(&dev[i].desc) ? dev[i].desc.nvectors : 0;
	return n;
}

void pci_init(struct pci *p, struct hv_vm *vm, const struct line_ops *ops)
{
	pthread_mutex_init(&p->lock, NULL);
	p->vm = vm;
	p->ops = ops;
	p->n = 0;
}

int pci_add(struct pci *p, struct remote *dev, unsigned *line, unsigned *slot, struct err *e)
{
	const struct device_desc *d = &dev->desc;
	uint64_t place = (uint64_t)d->pci.number << 15;
	struct pci_function *f = &p->fn[p->n];

	if (p->n == BOARD_MAX_PCI)
		return err_set(e, -ENOSPC, "%s: more than %d PCI functions", d->name,
			       BOARD_MAX_PCI);
	if (function_of(p, place))
		return err_set(e, -EEXIST, "%s: PCI device %u is another one", d->name,
			       d->pci.number);
	memset(f, 0, sizeof(*f));
	f->dev = dev;
	f->config = ecam_page(p, place);
	config_make(f, d);
	for (unsigned i = 0; i < d->nvectors; i++)
		f->entry[i] = (struct pci_entry){.control = ENTRY_MASKED,
						 .line = {.ops = p->ops,
							  .vm = p->vm,
							  .number = (*line)++,
							  .event = dev->slot[d->vector[i].slot]}};
	for (unsigned i = 0; i < d->nwindows; i++) {
		if (d->window[i].serve == DEVICE_SHADOW)
			f->slot[i] = (*slot)++;
	}
	p->n++;
	return pci_apply(p, f, e);
}

int pci_on_bus(struct pci *p, struct bus *mmio, unsigned slot, struct err *e)
{
	static const struct bus_ops config_ops = {config_read, config_write};
	static const struct bus_ops bar_ops = {bar_read, bar_write};
	uint64_t end = 0;
	int rc;

	for (unsigned i = 0; i < p->n; i++) {
		uint64_t behind = ((uint64_t)about(&p->fn[i])->number + 1) << 15;

		end = end < behind ? behind : end;
	}
	if (!end)
		return 0;
	make_bridge(ecam_page(p, 0));
	for (uint64_t at = HV_PAGE; at < end; at += HV_PAGE) {
		if (!function_of(p, at))
			memset(ecam_page(p, at), 0xff, HV_PAGE);
	}
	rc = hv_mem_map(p->vm, slot, BOARD_PCI_ECAM, p->ecam, end, HV_MEM_READONLY, e);
	if (!rc)
		rc = bus_add(mmio, BOARD_PCI_ECAM, BOARD_PCI_ECAM_SIZE, &config_ops, p, e);
	if (!rc)
		rc = bus_add(mmio, BOARD_PCI_MMIO, BOARD_PCI_MMIO_END - BOARD_PCI_MMIO, &bar_ops, p,
			     e);
	return rc;
}

/* ---- a snapshot ---- */

void pci_get(struct pci *p, unsigned i, struct pci_state *s)
{
	const struct pci_function *f = &p->fn[i];

	memset(s, 0, sizeof(*s));
	pthread_mutex_lock(&p->lock);
	s->command = pci_word(f, CFG_COMMAND);
	s->msix = pci_word(f, CFG_MSIX);
	for (unsigned k = 0; k < DEVICE_BARS; k++)
		s->bar[k] = pci_word(f, CFG_BAR + k * 4);
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

	pci_store(f, off, (pci_word(f, off) & ~can) | (v & can));
}

/* First who is elsewhere is nowhere: two may have changed places. */
static int pci_restore(struct pci *p, struct pci_function *f, const struct pci_state *s,
		       struct err *e)
{
	int rc = 0;

	pci_restore_word(f, CFG_COMMAND, s->command);
	pci_restore_word(f, CFG_MSIX, s->msix);
	for (uint32_t k = 0; k < DEVICE_BARS && !rc; k++) {
		pci_restore_word(f, CFG_BAR + k * 4, s->bar[k]);
		if (atomic_load(&f->at[k]) != pci_word(f, CFG_BAR + k * 4))
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
	for (unsigned i = 0; i < p->n && !rc; i++)
		rc = pci_restore(p, &p->fn[i], &s[i], e);
	if (p->n && !rc)
		rc = pci_apply_all(p, p->fn, e);
	pthread_mutex_unlock(&p->lock);
	return rc;
}
