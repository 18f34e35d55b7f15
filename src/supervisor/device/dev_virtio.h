/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the virtio devices lie on the board: for their rows of the table of classes. */
#ifndef SUPERVISOR_DEV_VIRTIO_H
#define SUPERVISOR_DEV_VIRTIO_H

#include <insula/board.h>

#include "devices/describe.h"

#include "device.h"

/* device_class.describe: the nth window and the nth pin. */
static inline void dev_virtio_describe(struct device_desc *d, unsigned nth, unsigned nqueues)
{
	describe_virtio_mmio(d, BOARD_VIRTIO_MMIO + (uint64_t)nth * BOARD_PAGE,
			     BOARD_GSI_VIRTIO + nth, nqueues);
	d->uid = nth;
}

#endif
