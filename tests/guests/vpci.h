/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI for payloads: configuration space by ECAM, BARs, MSI-X; and virtio over PCI (virtio 1.2, 4.1)
 * behind the names of the MMIO registers, so that one payload drives both. Everything is found as a
 * driver finds it, by the capabilities.
 */
#ifndef PAYLOAD_VPCI_H
#define PAYLOAD_VPCI_H

#include <linux/pci_regs.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>

#include "payload.h"

#define VIRTIO_MAGIC 0x74726976u
#define PCI_ONES 0xffffffffu
#define PCI_FUNCTIONS 256u /* of one bus */
#define PCI_CAP_FIRST 0x40u
#define PCI_CAPS_MOST 48u /* that there is room for: a longer chain is a loop */
#define VPCI_VENDOR_ID 0x1af4u
#define VPCI_MODERN 0x1040u
#define VPCI_NONE 0xffffu /* no vector */
#define VPCI_SET_UP (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)
#define MSIX_ADDRESS 0xfee00000u /* of the processor with APIC id 0 */

/* ---- any function ---- */

/* Function `f` of device `d`: where its configuration space is. */
static inline uint64_t pci_at(unsigned d, unsigned f)
{
	return BOARD_PCI_ECAM + ((uint64_t)d << 15) + ((uint64_t)f << 12);
}
PAYLOAD_FN bool pci_is_there(uint64_t fn)
{
	return read32(fn + PCI_VENDOR_ID) != PCI_ONES;
}
/* The next capability of this kind behind the one at `after` (0: from the first on); 0: none. */
PAYLOAD_FN uint8_t pci_capability(uint64_t fn, uint8_t kind, uint8_t after)
{
	uint8_t at = read8(fn + (after ? after + 1u : PCI_CAPABILITY_LIST)) & 0xfc;

	for (unsigned i = 0; at && i < PCI_CAPS_MOST; i++) {
		if (read8(fn + at) == kind)
			return at;
		at = read8(fn + at + 1) & 0xfc;
	}
	return 0;
}
PAYLOAD_FN void pci_command(uint64_t fn, uint16_t command)
{
	write16(fn + PCI_COMMAND, command);
}
PAYLOAD_FN uint32_t pci_bar(uint64_t fn, unsigned i)
{
	return read32(fn + PCI_BASE_ADDRESS_0 + 4 * i) & 0xfffffff0;
}
/* Also while the function decodes. */
PAYLOAD_FN void pci_set_bar(uint64_t fn, unsigned i, uint64_t gpa)
{
	write32(fn + PCI_BASE_ADDRESS_0 + 4 * i, (uint32_t)gpa);
}

/* ---- a virtio device ---- */

struct vpci {
	uint64_t fn, bar; /* of its registers */
	uint32_t id;      /* 1: network, 2: block ... */
	/* From `bar` on. */
	uint32_t common, common_len, notify, notify_len, notify_each, isr, config, config_len;
	uint8_t msix; /* the capability */
	unsigned vectors;
	uint32_t table, pba;
};

static struct vpci vpci_known[PCI_FUNCTIONS / 8];

/* One of its capabilities: the offset in the BAR; 0 bytes: there is none. */
PAYLOAD_FN uint32_t vpci_part(uint64_t fn, uint8_t kind, uint32_t *len, uint8_t *at)
{
	*len = 0;
	for (*at = 0; (*at = pci_capability(fn, PCI_CAP_ID_VNDR, *at)) != 0;) {
		if (read8(fn + *at + VIRTIO_PCI_CAP_CFG_TYPE) != kind ||
		    read8(fn + *at + VIRTIO_PCI_CAP_BAR) != 0)
			continue;
		*len = read32(fn + *at + VIRTIO_PCI_CAP_LENGTH);
		return read32(fn + *at + VIRTIO_PCI_CAP_OFFSET);
	}
	return 0;
}
/* Where everything of it is now. False: it is no virtio device with MSI-X that we can drive. */
PAYLOAD_FN bool vpci_look(struct vpci *p, uint64_t fn)
{
	uint32_t len;
	uint8_t at;

	*p = (struct vpci){.fn = fn};
	if (read16(fn + PCI_VENDOR_ID) != VPCI_VENDOR_ID ||
	    read16(fn + PCI_DEVICE_ID) < VPCI_MODERN)
		return false;
	p->id = read16(fn + PCI_DEVICE_ID) - VPCI_MODERN;
	p->bar = pci_bar(fn, 0);
	p->common = vpci_part(fn, VIRTIO_PCI_CAP_COMMON_CFG, &p->common_len, &at);
	p->isr = vpci_part(fn, VIRTIO_PCI_CAP_ISR_CFG, &len, &at);
	p->config = vpci_part(fn, VIRTIO_PCI_CAP_DEVICE_CFG, &p->config_len, &at);
	p->notify = vpci_part(fn, VIRTIO_PCI_CAP_NOTIFY_CFG, &p->notify_len, &at);
	p->notify_each = p->notify_len ? read32(fn + at + VIRTIO_PCI_NOTIFY_CAP_MULT) : 0;
	p->msix = pci_capability(fn, PCI_CAP_ID_MSIX, 0);
	p->vectors = (read16(fn + p->msix + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u;
	p->table = read32(fn + p->msix + PCI_MSIX_TABLE) & PCI_MSIX_TABLE_OFFSET;
	p->pba = read32(fn + p->msix + PCI_MSIX_PBA) & PCI_MSIX_PBA_OFFSET;
	/* Payloads read the configuration where it is on MMIO. */
	return p->common_len && len && p->notify_len && p->msix &&
	       (!p->config_len || p->config == VIRTIO_MMIO_CONFIG);
}
/* Device `d` of the bus, which is switched on; NULL: it is none of ours. */
PAYLOAD_FN const struct vpci *vpci_find(unsigned d)
{
	struct vpci *p = &vpci_known[d];

	if (!pci_is_there(pci_at(d, 0)) || !vpci_look(p, pci_at(d, 0)))
		return NULL;
	pci_command(p->fn, VPCI_SET_UP);
	return p;
}
/* The function that has its BAR there; NULL: it is no function's. */
PAYLOAD_FN const struct vpci *vpci_of(uint64_t dev)
{
	static unsigned last;

	if (dev < BOARD_PCI_MMIO || dev >= BOARD_PCI_MMIO_END)
		return NULL;
	if (vpci_known[last].bar == dev)
		return &vpci_known[last];
	for (unsigned i = 0; i < PCI_FUNCTIONS / 8; i++) {
		if (vpci_known[i].bar == dev) {
			last = i;
			return &vpci_known[i];
		}
	}
	return NULL;
}

PAYLOAD_FN uint64_t vpci_common(const struct vpci *p, unsigned reg)
{
	return p->bar + p->common + reg;
}
/* Where queue `i` is kicked. */
PAYLOAD_FN uint64_t vpci_doorbell(const struct vpci *p, unsigned i)
{
	write16(vpci_common(p, VIRTIO_PCI_COMMON_Q_SELECT), (uint16_t)i);
	return p->bar + p->notify +
	       (uint64_t)read16(vpci_common(p, VIRTIO_PCI_COMMON_Q_NOFF)) * p->notify_each;
}

/* ---- as MMIO ---- */

/* Where a register of MMIO is in the common configuration, and how wide; 0 bits: it is not there. */
struct vpci_reg {
	uint8_t at, bits;
};
PAYLOAD_FN struct vpci_reg vpci_reg(unsigned mmio)
{
	switch (mmio) {
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_DF, 32};
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_DFSELECT, 32};
	case VIRTIO_MMIO_DRIVER_FEATURES:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_GF, 32};
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_GFSELECT, 32};
	case VIRTIO_MMIO_QUEUE_SEL:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_SELECT, 16};
	/* The largest size until somebody writes another. */
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
	case VIRTIO_MMIO_QUEUE_NUM:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_SIZE, 16};
	case VIRTIO_MMIO_QUEUE_READY:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_ENABLE, 16};
	case VIRTIO_MMIO_STATUS:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_STATUS, 8};
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_DESCLO, 32};
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_DESCHI, 32};
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_AVAILLO, 32};
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_AVAILHI, 32};
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_USEDLO, 32};
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_Q_USEDHI, 32};
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return (struct vpci_reg){VIRTIO_PCI_COMMON_CFGGENERATION, 8};
	default:
		return (struct vpci_reg){0};
	}
}
PAYLOAD_FN uint32_t vpci_get(const struct vpci *p, unsigned mmio)
{
	struct vpci_reg r = vpci_reg(mmio);

	if (r.bits)
		return r.bits == 8    ? read8(vpci_common(p, r.at))
		       : r.bits == 16 ? read16(vpci_common(p, r.at))
				      : read32(vpci_common(p, r.at));
	switch (mmio) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return read16(p->fn + PCI_VENDOR_ID) == VPCI_VENDOR_ID ? VIRTIO_MAGIC : 0;
	case VIRTIO_MMIO_VERSION:
		return read8(p->fn + PCI_REVISION_ID) >= 1 ? 2 : 1;
	case VIRTIO_MMIO_DEVICE_ID:
		return read16(p->fn + PCI_DEVICE_ID) - VPCI_MODERN;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return read8(p->bar + p->isr);
	default:
		return read32(p->bar + mmio);
	}
}
PAYLOAD_FN void vpci_set(const struct vpci *p, unsigned mmio, uint32_t v)
{
	struct vpci_reg r = vpci_reg(mmio);

	if (mmio == VIRTIO_MMIO_QUEUE_NOTIFY) /* the offset of queue i is i, see pci.c */
		write16(p->bar + p->notify + (uint64_t)(v % 1024) * p->notify_each, (uint16_t)v);
	else if (mmio == VIRTIO_MMIO_QUEUE_READY && v == 0) /* a queue is not switched off here */
		write16(vpci_common(p, VIRTIO_PCI_COMMON_Q_RESET), 1);
	else if (r.bits == 8)
		write8(vpci_common(p, r.at), (uint8_t)v);
	else if (r.bits == 16)
		write16(vpci_common(p, r.at), (uint16_t)v);
	else if (r.bits == 32)
		write32(vpci_common(p, r.at), v);
	else if (mmio == VIRTIO_MMIO_MAGIC_VALUE)
		write32(p->fn + PCI_VENDOR_ID, v);
	else if (mmio >= VIRTIO_MMIO_CONFIG)
		write32(p->bar + mmio, v);
}

/* ---- MSI-X ---- */

PAYLOAD_FN uint64_t msix_entry(const struct vpci *p, unsigned i)
{
	return p->bar + p->table + (uint64_t)i * PCI_MSIX_ENTRY_SIZE;
}
PAYLOAD_FN void msix_mask(const struct vpci *p, unsigned i, bool masked)
{
	write32(msix_entry(p, i) + PCI_MSIX_ENTRY_VECTOR_CTRL,
		masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
}
/* Entry `i` interrupts with `vector`. */
PAYLOAD_FN void msix_aim(const struct vpci *p, unsigned i, uint8_t vector)
{
	write32(msix_entry(p, i) + PCI_MSIX_ENTRY_LOWER_ADDR, MSIX_ADDRESS);
	write32(msix_entry(p, i) + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
	write32(msix_entry(p, i) + PCI_MSIX_ENTRY_DATA, vector);
}
PAYLOAD_FN uint16_t msix_flags(const struct vpci *p)
{
	return read16(p->fn + p->msix + PCI_MSIX_FLAGS);
}
PAYLOAD_FN void msix_set_flags(const struct vpci *p, bool enabled, bool masked)
{
	write16(p->fn + p->msix + PCI_MSIX_FLAGS,
		(uint16_t)((enabled ? PCI_MSIX_FLAGS_ENABLE : 0) |
			   (masked ? PCI_MSIX_FLAGS_MASKALL : 0)));
}
PAYLOAD_FN bool msix_pending(const struct vpci *p, unsigned i)
{
	return read64(p->bar + p->pba + i / 64 * 8) >> (i % 64) & 1;
}

#endif
