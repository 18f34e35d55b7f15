/* SPDX-License-Identifier: BSD-2-Clause */
/* What a function of the host is, and what the guest sees of it. See vfio.h. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/log.h>

#include "vfio.h"

#define VFIO_INFO 4096u /* bytes that the kernel has to say of a region */
#define VFIO_MAX_AREAS 16u
#define VFIO_SPACE 256u /* of configuration space */
#define VFIO_EXPRESS_V1 0x14u
#define VFIO_EXPRESS_V2 0x3cu
#define VFIO_PAGE ((uint64_t)BOARD_PAGE)

struct area {
	uint64_t from, to;
};

struct seeing {
	struct vfio_back *b;
	uint8_t space[VFIO_SPACE];
	uint8_t msix;        /* where its capability is */
	unsigned table_size; /* entries of the device's own table */
	struct err *e;
};

static uint16_t half(const struct seeing *s, unsigned at)
{
	return (uint16_t)(s->space[at] | s->space[at + 1] << 8);
}

static uint32_t word(const struct seeing *s, unsigned at)
{
	return half(s, at) | (uint32_t)half(s, at + 2) << 16;
}

static const char *address(const struct seeing *s)
{
	return s->b->conf->address;
}

static uint64_t page_up(uint64_t n)
{
	return (n + VFIO_PAGE - 1) & ~(VFIO_PAGE - 1);
}

/* ---- the regions, as the kernel tells ---- */

/* Which parts can be mapped; how many. */
static unsigned areas_of(const struct vfio_region_info *r, struct area *a)
{
	const struct vfio_region_info_cap_sparse_mmap *sparse;
	const struct vfio_info_cap_header *h;
	uint32_t at = r->flags & VFIO_REGION_INFO_FLAG_CAPS ? r->cap_offset : 0;

	if (!(r->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return 0;
	for (; at && at + sizeof(*sparse) <= r->argsz && at < VFIO_INFO; at = h->next) {
		h = (const void *)((const uint8_t *)r + at);
		sparse = (const void *)h;
		if (h->id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
			continue;
		for (unsigned i = 0; i < sparse->nr_areas && i < VFIO_MAX_AREAS; i++)
			a[i] = (struct area){sparse->areas[i].offset,
					     sparse->areas[i].offset + sparse->areas[i].size};
		return sparse->nr_areas < VFIO_MAX_AREAS ? sparse->nr_areas : VFIO_MAX_AREAS;
	}
	a[0] = (struct area){0, page_up(r->size)};
	return 1;
}

static int add_window(struct seeing *s, unsigned bar, uint64_t from, uint64_t to, bool direct)
{
	struct device_desc *d = &s->b->seen;

	if (from >= to)
		return 0;
	if (!direct && to > 1u << VFIO_AT_BITS)
		return err_set(s->e, -EINVAL,
			       "--vfio %s: BAR %u cannot be mapped from %llu MiB on; expected that "
			       "within 16",
			       address(s), bar, (unsigned long long)(from >> 20));
	if (d->nwindows == DEVICE_MAX_WINDOWS)
		return err_set(s->e, -EINVAL, "--vfio %s: its registers are in more than %d parts",
			       address(s), DEVICE_MAX_WINDOWS);
	d->window[d->nwindows++] =
		(struct device_window){.base = from,
				       .len = to - from,
				       .space = DEVICE_BAR + bar,
				       .serve = direct ? DEVICE_DIRECT : DEVICE_CALLS,
				       .at = direct ? 0 : VFIO_AT(bar, from),
				       .offset = direct ? s->b->start.region[bar].at + from : 0,
				       .slot = DEVICE_NO_SLOT};
	return 0;
}

/* The MSI-X table is in it, if there is one. */
static bool has_table(const struct device_pci *f, unsigned bar)
{
	return !f->msi && bar == f->msix_bar;
}

/* What cannot be mapped exits; but nothing does where the core has the MSI-X table. */
static int add_exits(struct seeing *s, unsigned bar, uint64_t from, uint64_t to)
{
	const struct device_pci *f = &s->b->seen.pci;
	uint64_t end = s->b->start.region[bar].size, table = f->msix_table;
	uint64_t behind = (uint64_t)f->msix_pba + 8;
	int rc;

	to = to < end ? to : end;
	if (!has_table(f, bar) || to <= table || from >= behind)
		return add_window(s, bar, from, to, false);
	rc = add_window(s, bar, from, table, false);
	return rc ? rc : add_window(s, bar, behind, to, false);
}

/* Pages of [from, to) but those of the device's own MSI-X table, which no guest sees. */
static int add_mapped(struct seeing *s, unsigned bar, uint64_t from, uint64_t to)
{
	const struct device_pci *f = &s->b->seen.pci;
	uint64_t table = f->msix_table & ~(VFIO_PAGE - 1);
	uint64_t behind = page_up(f->msix_table + (uint64_t)s->table_size * PCI_MSIX_ENTRY_SIZE);
	uint64_t ours = page_up((uint64_t)f->msix_pba + 8);
	int rc;

	behind = behind > ours ? behind : ours;
	if (!has_table(f, bar) || to <= table || from >= behind)
		return add_window(s, bar, from, to, true);
	rc = add_window(s, bar, from, table < from ? from : table, true);
	if (!rc)
		rc = add_exits(s, bar, table < from ? from : table, behind < to ? behind : to);
	return rc ? rc : add_window(s, bar, behind, to, true);
}

static int see_bar(struct seeing *s, unsigned bar, const struct vfio_region_info *r)
{
	struct area area[VFIO_MAX_AREAS];
	unsigned n = areas_of(r, area);
	uint64_t size = VFIO_PAGE, at = 0;
	int rc = 0;

	while (size < r->size)
		size *= 2;
	s->b->seen.pci.bar_size[bar] = size;
	for (unsigned i = 0; i < n && !rc; i++) {
		if (area[i].from < at || area[i].from % VFIO_PAGE || area[i].to % VFIO_PAGE)
			return err_set(s->e, -EPROTO, "--vfio %s: BAR %u: areas out of order",
				       address(s), bar);
		rc = add_exits(s, bar, at, area[i].from);
		if (!rc)
			rc = add_mapped(s, bar, area[i].from, area[i].to);
		at = area[i].to;
	}
	return rc ? rc : add_exits(s, bar, at, r->size);
}

static int region_info(struct seeing *s, unsigned index, void *buf)
{
	struct vfio_region_info *r = buf;

	memset(buf, 0, VFIO_INFO);
	r->argsz = VFIO_INFO;
	r->index = index;
	return ioctl(s->b->device, VFIO_DEVICE_GET_REGION_INFO, r)
		       ? err_sys(s->e, -errno, "--vfio %s: region %u", address(s), index)
		       : 0;
}

/* Ports are none of a guest's here, and drivers do without them; the ROM stays off. */
static int see_bars(struct seeing *s)
{
	_Alignas(8) uint8_t buf[VFIO_INFO];
	const struct vfio_region_info *r = (const void *)buf;
	int rc = 0;

	for (unsigned bar = 0; bar < DEVICE_BARS && !rc; bar++) {
		rc = region_info(s, bar, buf);
		if (rc || !r->size ||
		    (word(s, PCI_BASE_ADDRESS_0 + 4 * bar) & PCI_BASE_ADDRESS_SPACE_IO))
			continue;
		if (word(s, PCI_BASE_ADDRESS_0 + 4 * bar) & PCI_BASE_ADDRESS_MEM_TYPE_64)
			s->b->wide |= 1u << bar;
		s->b->start.region[bar].at = r->offset;
		s->b->start.region[bar].size = r->size;
		if (has_table(&s->b->seen.pci, bar) && s->b->seen.pci.msix_table >= r->size)
			return err_set(s->e, -EPROTO, "--vfio %s: its MSI-X table is nowhere",
				       address(s));
		rc = see_bar(s, bar, r);
	}
	return rc;
}

/* ---- configuration space ---- */

static int read_space(struct seeing *s)
{
	_Alignas(8) uint8_t buf[VFIO_INFO];
	const struct vfio_region_info *r = (const void *)buf;
	struct msg_start_vfio *m = &s->b->start;
	int rc = region_info(s, VFIO_PCI_CONFIG_REGION_INDEX, buf);

	if (rc)
		return rc;
	m->region[VFIO_CONFIG].at = r->offset;
	m->region[VFIO_CONFIG].size = r->size < VFIO_SPACE ? r->size : VFIO_SPACE;
	if (pread(s->b->device, s->space, VFIO_SPACE, (off_t)r->offset) != VFIO_SPACE)
		return err_set(s->e, -EIO, "--vfio %s: its configuration space cannot be read",
			       address(s));
	return (s->space[PCI_HEADER_TYPE] & 0x7f) == PCI_HEADER_TYPE_NORMAL
		       ? 0
		       : err_set(s->e, -EINVAL, "--vfio %s: a bridge; expected an endpoint",
				 address(s));
}

/* The next free place among the capabilities of the guest, with this kind and length; NULL: full.
 * */
static uint8_t *add_cap(struct device_pci *f, uint8_t kind, unsigned len)
{
	uint8_t *c = f->caps + f->caps_len;

	if (len < 4 || len % 4 || f->caps_len + len > DEVICE_MAX_CAPS)
		return NULL;
	f->caps_len += len;
	c[0] = kind;
	c[1] = (uint8_t)len;
	return c;
}

/* The bits of the word at `at` of the capability at `cap` are the guest's, and its helper hears of
 * it: at the device's own place. */
static void hears(struct seeing *s, const uint8_t *cap, unsigned at, uint32_t bits, unsigned own)
{
	struct device_desc *d = &s->b->seen;
	uint32_t place = (uint32_t)(cap - d->pci.caps) + at;
	unsigned i = 0;

	while (d->pci.can[i].bits)
		i++;
	d->pci.can[i].at = place;
	d->pci.can[i].bits = bits;
	d->window[d->nwindows++] = (struct device_window){.base = DEVICE_CAPS_AT + place,
							  .len = 4,
							  .space = DEVICE_CONFIG,
							  .serve = DEVICE_CALLS,
							  .at = VFIO_AT(VFIO_CONFIG, own + at),
							  .slot = DEVICE_NO_SLOT};
}

/* An endpoint of the root complex, which has no link; it can be reset, if not by itself then by the
 * kernel. What a driver sets in its control register is kept for it, and only a reset is done. */
static void see_express(struct seeing *s, unsigned at)
{
	uint16_t flags = half(s, at + PCI_EXP_FLAGS), version = flags & PCI_EXP_FLAGS_VERS;
	uint32_t devcap = word(s, at + PCI_EXP_DEVCAP) | PCI_EXP_DEVCAP_FLR;
	unsigned len = version > 1 ? VFIO_EXPRESS_V2 : VFIO_EXPRESS_V1;
	uint8_t *c = s->b->start.express ? NULL : add_cap(&s->b->seen.pci, PCI_CAP_ID_EXP, len);
	uint32_t control = half(s, at + PCI_EXP_DEVCTL) & ~(uint32_t)PCI_EXP_DEVCTL_BCR_FLR;

	if (!c)
		return;
	flags = (uint16_t)(version | PCI_EXP_TYPE_RC_END << 4);
	memcpy(c + PCI_EXP_FLAGS, &flags, 2);
	memcpy(c + PCI_EXP_DEVCAP, &devcap, 4);
	memcpy(c + PCI_EXP_DEVCTL, &control, 4);
	s->b->start.express = at;
	hears(s, c, PCI_EXP_DEVCTL, 0xffffu & ~(uint32_t)PCI_EXP_DEVCTL_BCR_FLR, at);
}

/* D0 and D3, without events. */
static void see_power(struct seeing *s, unsigned at)
{
	uint8_t *c =
		s->b->start.power ? NULL : add_cap(&s->b->seen.pci, PCI_CAP_ID_PM, PCI_PM_SIZEOF);
	uint16_t can = half(s, at + PCI_PM_PMC) & PCI_PM_CAP_VER_MASK;
	uint16_t control = half(s, at + PCI_PM_CTRL) & PCI_PM_CTRL_NO_SOFT_RESET;

	if (!c)
		return;
	memcpy(c + PCI_PM_PMC, &can, 2);
	memcpy(c + PCI_PM_CTRL, &control, 2);
	s->b->start.power = at;
	s->b->start.soft_reset = !control;
	hears(s, c, PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK, at);
}

/* Its length is the device's word: who had the device before may have programmed it. */
static void see_vendor(struct seeing *s, unsigned at)
{
	unsigned len = s->space[at + PCI_CAP_FLAGS], whole = (len + 3) & ~3u;
	bool fits = len > PCI_CAP_FLAGS && at + whole <= VFIO_SPACE;
	uint8_t *c = fits ? add_cap(&s->b->seen.pci, PCI_CAP_ID_VNDR, whole) : NULL;

	if (!c)
		log_warn("%s: a vendor's capability of %u bytes is left out", address(s), len);
	else
		memcpy(c + PCI_CAP_FLAGS, s->space + at + PCI_CAP_FLAGS, len - PCI_CAP_FLAGS);
}

static void see_capabilities(struct seeing *s)
{
	unsigned at =
		half(s, PCI_STATUS) & PCI_STATUS_CAP_LIST ? s->space[PCI_CAPABILITY_LIST] & ~3u : 0;

	for (unsigned n = 0; at >= PCI_STD_HEADER_SIZEOF && at + 4 <= VFIO_SPACE && n < 48; n++) {
		uint8_t kind = s->space[at];

		if (kind == PCI_CAP_ID_MSIX && at + PCI_CAP_MSIX_SIZEOF <= VFIO_SPACE)
			s->msix = (uint8_t)at;
		else if (kind == PCI_CAP_ID_EXP && at + VFIO_EXPRESS_V1 <= VFIO_SPACE)
			see_express(s, at);
		else if (kind == PCI_CAP_ID_PM && at + PCI_PM_SIZEOF <= VFIO_SPACE)
			see_power(s, at);
		else if (kind == PCI_CAP_ID_VNDR)
			see_vendor(s, at);
		at = s->space[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
}

/* How many messages of a kind the kernel can turn into events. */
static unsigned messages(const struct seeing *s, unsigned kind)
{
	struct vfio_irq_info irq = {.argsz = sizeof(irq), .index = kind};

	return !ioctl(s->b->device, VFIO_DEVICE_GET_IRQ_INFO, &irq) &&
			       irq.flags & VFIO_IRQ_INFO_EVENTFD
		       ? irq.count
		       : 0;
}

/* The table is where the device has it, the pending bits behind it: a driver goes by the
 * capability. It has as many entries as the core has lines for it, which a driver goes by as well.
 * */
static int see_msix(struct seeing *s, unsigned count)
{
	struct device_desc *d = &s->b->seen;
	uint32_t table = word(s, s->msix + PCI_MSIX_TABLE);

	s->table_size = count;
	d->nvectors = count < DEVICE_MAX_VECTORS ? count : DEVICE_MAX_VECTORS;
	d->pci.msix_bar = table & PCI_MSIX_TABLE_BIR;
	d->pci.msix_table = table & PCI_MSIX_TABLE_OFFSET;
	d->pci.msix_pba = d->pci.msix_table + d->nvectors * PCI_MSIX_ENTRY_SIZE;
	return d->pci.msix_bar < DEVICE_BARS
		       ? 0
		       : err_set(s->e, -EPROTO, "--vfio %s: its MSI-X table is nowhere",
				 address(s));
}

/* One message: more than one need an IOMMU of the guest, which it has not. A pin is a level, which
 * KVM tells us of only where it has the interrupt controller as well; ours is our own. */
static int see_messages(struct seeing *s)
{
	unsigned count = s->msix ? messages(s, VFIO_PCI_MSIX_IRQ_INDEX) : 0;

	if (count)
		return see_msix(s, count);
	if (!messages(s, VFIO_PCI_MSI_IRQ_INDEX))
		return err_set(s->e, -EINVAL,
			       "--vfio %s: it has neither MSI-X nor MSI; expected one of them: a "
			       "pin alone is not possible",
			       address(s));
	s->b->seen.pci.msi = s->b->seen.nvectors = 1;
	return 0;
}

static void see_identity(struct seeing *s)
{
	struct device_desc *d = &s->b->seen;

	d->pci.vendor = half(s, PCI_VENDOR_ID);
	d->pci.device = half(s, PCI_DEVICE_ID);
	d->pci.class_revision = word(s, PCI_CLASS_REVISION);
	d->pci.subsystem_vendor = half(s, PCI_SUBSYSTEM_VENDOR_ID);
	d->pci.subsystem = half(s, PCI_SUBSYSTEM_ID);
	d->window[d->nwindows++] = (struct device_window){.base = PCI_COMMAND,
							  .len = 4,
							  .space = DEVICE_CONFIG,
							  .serve = DEVICE_CALLS,
							  .at = VFIO_AT(VFIO_CONFIG, PCI_COMMAND),
							  .slot = DEVICE_NO_SLOT};
}

/* It decodes its BARs, masters nothing, and has no pin. */
static int quieten(struct seeing *s)
{
	uint16_t v = PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE;
	off_t at = (off_t)(s->b->start.region[VFIO_CONFIG].at + PCI_COMMAND);

	return pwrite(s->b->device, &v, sizeof(v), at) == (ssize_t)sizeof(v)
		       ? 0
		       : err_set(s->e, -EIO, "--vfio %s: its configuration space cannot be written",
				 address(s));
}

int vfio_see(struct vfio_back *b, struct err *e)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct seeing s = {.b = b, .e = e};
	int rc;

	if (ioctl(b->device, VFIO_DEVICE_GET_INFO, &info))
		return err_sys(e, -errno, "--vfio %s", address(&s));
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI))
		return err_set(e, -EINVAL, "--vfio %s: no PCI function", address(&s));
	if (!(info.flags & VFIO_DEVICE_FLAGS_RESET))
		return err_set(e, -EINVAL,
			       "--vfio %s: it cannot be reset; expected that it can: the next one "
			       "to use it would find what this guest has left",
			       address(&s));
	rc = read_space(&s);
	if (rc)
		return rc;
	see_identity(&s);
	see_capabilities(&s);
	rc = see_messages(&s);
	if (!rc)
		rc = see_bars(&s);
	return rc ? rc : quieten(&s);
}
