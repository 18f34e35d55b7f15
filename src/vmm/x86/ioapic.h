/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IOAPIC: the registers of an 82093AA (version 0x20) in user space. Edge lines only.
 *
 * Each pin is an interrupt line (vmm/line.h). What comes while it is masked is delivered when it is
 * unmasked.
 *
 * Differences to the hardware:
 *   - a level-triggered entry is kept as written but delivers edges; remote IRR and delivery
 *     status read 0;
 *   - an edge on a masked pin is delivered when it is unmasked (hardware drops it);
 *   - delivery modes other than fixed and lowest priority (SMI, NMI, INIT, ExtINT) and vectors
 *     below 16 deliver nothing: the entry behaves as if it were masked;
 *   - 8 bits of destination: no remapping format, no extended destination.
 */
#ifndef VMM_IOAPIC_H
#define VMM_IOAPIC_H

#include <stdint.h>

#include <insula/err.h>
#include <insula/hv.h>

#include "vmm/line.h"

#define IOAPIC_MAX_PINS 120 /* what an 8-bit index reaches: 0x10 + 2 * pin */

struct ioapic;

/* npins 1..IOAPIC_MAX_PINS, else -EINVAL; -ENOMEM. All pins are masked and have no event. `ops` and
 * `vm` outlive it. */
int ioapic_create(struct ioapic **out, unsigned npins, const struct line_ops *ops, struct hv_vm *vm,
		  struct err *e);
/* Unbinds what is bound. No other thread may use it any more. NULL is fine. */
void ioapic_destroy(struct ioapic *a);

/* The event of a pin, -1 for none; the caller's, to be kept open until it is taken away or the
 * IOAPIC is destroyed. Any thread. -EINVAL: no such pin; -EEXIST: it has another one; or what the
 * hypervisor said (never while the pin is masked: nothing is asked of it then). */
int ioapic_set_event(struct ioapic *a, unsigned pin, hv_event event, struct err *e);

/* The window at BOARD_IOAPIC, offsets from its start. Any vCPU thread. The data register takes
 * 32-bit accesses only: others read 0 and write nothing, as everything undefined does. */
uint64_t ioapic_read(struct ioapic *a, uint64_t off, unsigned size);
/* 0, or the negative errno of the hypervisor when it refused the change: the line does not work
 * then, and the text is in ioapic_failure(). The register has its new value all the same; the next
 * write to it tries again. */
int ioapic_write(struct ioapic *a, uint64_t off, unsigned size, uint64_t value);
/* All of it but the events; the same on both ends of a snapshot. */
struct ioapic_state {
	uint32_t id, index, npins, pad;
	uint64_t rte[IOAPIC_MAX_PINS]; /* 0 behind npins */
};
void ioapic_get(struct ioapic *a, struct ioapic_state *s);
/* What cannot be written is not set either. -EINVAL: another number of pins; or what the hypervisor
 * said. */
int ioapic_set(struct ioapic *a, const struct ioapic_state *s, struct err *e);
/* The last failure of ioapic_write(); code 0: there was none. */
void ioapic_failure(struct ioapic *a, struct err *e);

#endif
