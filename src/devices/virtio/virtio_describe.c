/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio on MMIO as a description. See describe.h. virtio 1.2, 4.2.2. */
#include <linux/virtio_mmio.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "devices/describe.h"

#define REG4(off) (1ull << ((off) / 4))

/* What the driver only writes, and no readable register depends on. */
#define POSTED                                                                       \
	(REG4(VIRTIO_MMIO_DRIVER_FEATURES) | REG4(VIRTIO_MMIO_DRIVER_FEATURES_SEL) | \
	 REG4(VIRTIO_MMIO_QUEUE_NUM) | REG4(VIRTIO_MMIO_QUEUE_DESC_LOW) |            \
	 REG4(VIRTIO_MMIO_QUEUE_DESC_HIGH) | REG4(VIRTIO_MMIO_QUEUE_AVAIL_LOW) |     \
	 REG4(VIRTIO_MMIO_QUEUE_AVAIL_HIGH) | REG4(VIRTIO_MMIO_QUEUE_USED_LOW) |     \
	 REG4(VIRTIO_MMIO_QUEUE_USED_HIGH))

enum { SLOT_PAGE, SLOT_CALL, SLOT_IRQ, SLOT_BELLS };

static void add_bell(struct device_desc *d, uint64_t addr, uint64_t value)
{
	d->doorbell[d->ndoorbells] = (struct device_doorbell){.addr = addr,
							      .value = value,
							      .space = DEVICE_MMIO,
							      .size = 4,
							      .match = 1,
							      .slot = SLOT_BELLS + d->ndoorbells};
	d->ndoorbells++;
	d->nslots++;
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
		.answer_slot = DEVICE_NO_SLOT,
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
		add_bell(d, base + VIRTIO_MMIO_QUEUE_NOTIFY, q);
	/* The ring bit alone, which nobody waits for: docs/protocol.md. */
	add_bell(d, base + VIRTIO_MMIO_INTERRUPT_ACK, 1);
	if (word_events())
		d->answer_slot = d->nslots++;
}
