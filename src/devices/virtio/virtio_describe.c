/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio on MMIO and on PCI as a description. See describe.h. virtio 1.2, 4.2.2 and 4.1. */
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "devices/describe.h"
#include "virtio_pci.h"

#define REG4(off) (1ull << ((off) / 4))

/* What the driver only writes, and no readable register depends on. */
#define POSTED                                                                       \
	(REG4(VIRTIO_MMIO_DRIVER_FEATURES) | REG4(VIRTIO_MMIO_DRIVER_FEATURES_SEL) | \
	 REG4(VIRTIO_MMIO_QUEUE_NUM) | REG4(VIRTIO_MMIO_QUEUE_DESC_LOW) |            \
	 REG4(VIRTIO_MMIO_QUEUE_DESC_HIGH) | REG4(VIRTIO_MMIO_QUEUE_AVAIL_LOW) |     \
	 REG4(VIRTIO_MMIO_QUEUE_AVAIL_HIGH) | REG4(VIRTIO_MMIO_QUEUE_USED_LOW) |     \
	 REG4(VIRTIO_MMIO_QUEUE_USED_HIGH))

enum { SLOT_PAGE, SLOT_CALL, SLOT_IRQ, SLOT_BELLS };

static void add_bell(struct device_desc *d, struct device_doorbell b)
{
	b.slot = d->nslots++;
	d->doorbell[d->ndoorbells++] = b;
}

static void add_mmio_bell(struct device_desc *d, uint64_t addr, uint64_t value)
{
	add_bell(
		d,
		(struct device_doorbell){
			.addr = addr, .value = value, .space = DEVICE_MMIO, .size = 4, .match = 1});
}

static void add_answer(struct device_desc *d)
{
	d->answer_slot = word_events() ? d->nslots++ : DEVICE_NO_SLOT;
}

void describe_virtio_mmio(struct device_desc *d, uint64_t base, unsigned pin, unsigned nqueues)
{
	*d = (struct device_desc){
		.version = DEVICE_VERSION,
		.hid = "LNRO0005",
		.nslots = SLOT_BELLS,
		.nwindows = 1,
		.nvectors = 1,
		.page_slot = SLOT_PAGE,
		.call_slot = SLOT_CALL,
		.state_size = DP_STATE_SIZE,
		.probe_at = 7, /* no register */
		.probe_size = 1,
		.window = {{.base = base,
			    .len = DP_SHADOW_SIZE,
			    .space = DEVICE_MMIO,
			    .serve = DEVICE_SHADOW,
			    .shift = 2,
			    .posted = POSTED,
			    .dropped = REG4(VIRTIO_MMIO_QUEUE_NOTIFY),
			    .unheard = REG4(VIRTIO_MMIO_INTERRUPT_ACK),
			    .slot = DEVICE_NO_SLOT}},
		.vector = {{.kind = DEVICE_PIN,
			    .number = pin,
			    .slot = SLOT_IRQ,
			    .ack_slot = DEVICE_NO_SLOT}},
	};
	for (unsigned q = 0; q < nqueues; q++)
		add_mmio_bell(d, base + VIRTIO_MMIO_QUEUE_NOTIFY, q);
	/* The ring bit alone, which nobody waits for: docs/protocol.md. */
	add_mmio_bell(d, base + VIRTIO_MMIO_INTERRUPT_ACK, 1);
	add_answer(d);
}

/* ---- PCI ---- */

/* Class, subclass, interface: what lists of devices call it; drivers go by the device id. */
static uint32_t class_of(unsigned virtio_id)
{
	switch (virtio_id) {
	case VIRTIO_ID_BLOCK:
		return 0x018000;
	case VIRTIO_ID_NET:
		return 0x020000;
	case VIRTIO_ID_CONSOLE:
		return 0x078000;
	default:
		return 0x00ff00;
	}
}

void describe_virtio_id(struct device_desc *d, unsigned virtio_id)
{
	if (!device_is_pci(d))
		return;
	d->pci.device = (uint16_t)VPCI_DEVICE(virtio_id);
	d->pci.class_revision = class_of(virtio_id) << 8 | VPCI_REVISION;
}

/* 4.1.4: a structure of the device is here in the BAR. */
static void add_cap(struct device_pci *f, uint8_t type, uint32_t offset, uint32_t length)
{
	struct virtio_pci_notify_cap c = {.cap = {.cap_vndr = DEVICE_CAP_VENDOR,
						  .cap_next = sizeof(c.cap),
						  .cap_len = sizeof(c.cap),
						  .cfg_type = type,
						  .bar = VPCI_BAR,
						  .offset = offset,
						  .length = length},
					  .notify_off_multiplier = VPCI_NOTIFY_EACH};

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		c.cap.cap_next = c.cap.cap_len = sizeof(c);
	memcpy(f->caps + f->caps_len, &c, c.cap.cap_len);
	f->caps_len += c.cap.cap_len;
}
_Static_assert(4 * sizeof(struct virtio_pci_notify_cap) <= DEVICE_MAX_CAPS, "room for all");

static void make_function(struct device_pci *f, unsigned number, uint64_t bar, unsigned nqueues)
{
	*f = (struct device_pci){.number = number,
				 .vendor = VPCI_VENDOR,
				 .subsystem_vendor = VPCI_VENDOR,
				 .subsystem = VPCI_SUBSYSTEM,
				 .bar_size = {[VPCI_BAR] = VPCI_BAR_SIZE},
				 .bar_at = {[VPCI_BAR] = (uint32_t)bar},
				 .msix_bar = VPCI_BAR,
				 .msix_table = VPCI_MSIX_TABLE,
				 .msix_pba = VPCI_MSIX_PBA};
	add_cap(f, VIRTIO_PCI_CAP_COMMON_CFG, VPCI_COMMON, VPCI_COMMON_SIZE);
	add_cap(f, VIRTIO_PCI_CAP_NOTIFY_CFG, VPCI_NOTIFY, nqueues * VPCI_NOTIFY_EACH);
	add_cap(f, VIRTIO_PCI_CAP_ISR_CFG, VPCI_ISR, VPCI_ISR_SIZE);
	add_cap(f, VIRTIO_PCI_CAP_DEVICE_CFG, VPCI_CONFIG, VPCI_CONFIG_END - VPCI_CONFIG);
}

static void add_window(struct device_desc *d, uint64_t base, uint64_t len, uint32_t serve,
		       uint32_t place)
{
	d->window[d->nwindows++] = (struct device_window){.base = base,
							  .len = len,
							  .space = DEVICE_BAR + VPCI_BAR,
							  .serve = serve,
							  .at = place,
							  .slot = DEVICE_NO_SLOT};
}

void describe_virtio_pci(struct device_desc *d, unsigned number, uint64_t bar, unsigned virtio_id,
			 unsigned nqueues)
{
	*d = (struct device_desc){
		.version = DEVICE_VERSION_PCI,
		.nslots = SLOT_IRQ,
		.page_slot = SLOT_PAGE,
		.call_slot = SLOT_CALL,
		.state_size = DP_STATE_SIZE,
		.probe_at = VPCI_NOTIFY_PLACE,
		.probe_size = 4,
	};
	make_function(&d->pci, number, bar, nqueues);
	describe_virtio_id(d, virtio_id);
	add_window(d, 0, DP_SHADOW_SIZE, DEVICE_SHADOW, 0);
	add_window(d, VPCI_ISR, VPCI_ISR_SIZE, DEVICE_EXITS, VPCI_ISR_PLACE);
	d->window[1].call_reads = 1;
	add_window(d, VPCI_NOTIFY, nqueues * VPCI_NOTIFY_EACH, DEVICE_EXITS, VPCI_NOTIFY_PLACE);
	d->window[2].shift = 2;
	d->window[2].dropped = (UINT64_C(1) << nqueues) - 1;
	for (; d->nvectors <= nqueues; d->nvectors++)
		d->vector[d->nvectors] = (struct device_vector){.kind = DEVICE_MSI,
								.number = d->nvectors,
								.slot = d->nslots++,
								.ack_slot = DEVICE_NO_SLOT};
	for (unsigned q = 0; q < nqueues; q++)
		add_bell(d, (struct device_doorbell){.addr = VPCI_NOTIFY + q * VPCI_NOTIFY_EACH,
						     .space = DEVICE_BAR + VPCI_BAR});
	add_answer(d);
}
