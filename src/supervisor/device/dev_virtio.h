/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the virtio devices lie on the board: for their rows of the table of classes. */
#ifndef SUPERVISOR_DEV_VIRTIO_H
#define SUPERVISOR_DEV_VIRTIO_H

#include <linux/virtio_ids.h>

#include <insula/board.h>

#include "devices/describe.h"

#include "device.h"

/* device_class.describe: the nth window and the nth pin, or the nth function after the one of the
 * board itself. */
static inline void dev_virtio_describe(const struct device_class *class, struct device_desc *d,
				       enum device_bus bus, unsigned nth, unsigned nqueues)
{
	if (bus == DEVICE_BUS_PCI) {
		describe_virtio_pci(d, 1 + nth, BOARD_PCI_MMIO + nth * BOARD_PCI_BAR_SIZE,
				    class->virtio_id, nqueues);
		return;
	}
	describe_virtio_mmio(d, BOARD_VIRTIO_MMIO + (uint64_t)nth * BOARD_PAGE,
			     BOARD_GSI_VIRTIO + nth, nqueues);
	d->uid = nth;
}

#endif
