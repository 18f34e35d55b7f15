/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a device looks like on the bus, as data (insula/device.h). Here are the tables of registers
 * that insula-vmm executes: they lie beside the code that answers the calls, and the supervisor,
 * which knows where on the board the device goes, sends them. Nothing of this is linked into
 * insula-vmm.
 *
 * All fill in everything but index, name and _UID. The slots, in this order: page, call event, the
 * vectors' events, the doorbells' events, and the answer event where the system needs one. The
 * first doorbells are the queues' kicks.
 */
#ifndef DEVICES_DESCRIBE_H
#define DEVICES_DESCRIBE_H

#include <insula/device.h>

/* One page of registers at `base`, an interrupt by pin `pin`. */
void describe_virtio_mmio(struct device_desc *d, uint64_t base, unsigned pin, unsigned nqueues);
/* Device `number` of the bus, with its BAR at `bar`; a vector for each queue and one for changes of
 * the configuration. */
void describe_virtio_pci(struct device_desc *d, unsigned number, uint64_t bar, unsigned virtio_id,
			 unsigned nqueues);
/* It turns out which virtio device it is. On MMIO its description does not say. */
void describe_virtio_id(struct device_desc *d, unsigned virtio_id);
/* A 16550 with 8 ports from `port` on. */
void describe_16550(struct device_desc *d, uint64_t port, unsigned pin);

#endif
