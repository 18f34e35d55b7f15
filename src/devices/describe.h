/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a device looks like on the bus, as data (insula/device.h). Here are the tables of registers
 * that insula-vmm executes: they lie beside the code that answers the calls, and the supervisor,
 * which knows where on the board the device goes, sends them. Nothing of this is linked into
 * insula-vmm.
 *
 * Both fill in everything but index, name and _UID. The slots, in this order: page, call event,
 * interrupt event, the doorbells' events, and the answer event where the system needs one. The
 * first doorbells are the queues' kicks.
 */
#ifndef DEVICES_DESCRIBE_H
#define DEVICES_DESCRIBE_H

#include <insula/device.h>

/* One page of registers at `base`, an interrupt by pin `pin`. */
void describe_virtio_mmio(struct device_desc *d, uint64_t base, unsigned pin, unsigned nqueues);
/* A 16550 with 8 ports from `port` on. */
void describe_16550(struct device_desc *d, uint64_t port, unsigned pin);

#endif
