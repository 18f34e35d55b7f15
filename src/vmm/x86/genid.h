/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The generation identifier of a VM: 16 bytes that are another number in each VM that begins, and
 * in each that is restored or cloned. A guest that sees them change knows that somebody else may
 * have the same memory; Linux reseeds its random numbers (drivers/virt/vmgenid.c).
 *
 * Microsoft, "Virtual Machine Generation ID": a device VM_Gen_Counter in ACPI (dsdt.c) whose ADDR
 * names the bytes, and a notification 0x80. The board is hardware-reduced, so the notification
 * comes through a Generic Event Device (ACPI 6.5, 5.6.9) on the pin BOARD_GSI_EVENTS.
 */
#ifndef VMM_GENID_H
#define VMM_GENID_H

#include <stdint.h>

#include <insula/err.h>

#define GENID_LEN 16

struct vmm;

/* Make the event and put it on its pin; before the jail closes. -EINVAL, -EEXIST (the pin) or the
 * errno of event_create(). */
int genid_init(struct vmm *vm, struct err *e);
/* Main thread, while no vCPU runs. -EINVAL: guest memory has no such place. */
int genid_place(struct vmm *vm, const uint8_t id[GENID_LEN], struct err *e);
/* The same after a restore, and tell the guest: its interrupt comes when the vCPUs go on, or when
 * the guest unmasks the pin. */
int genid_renew(struct vmm *vm, const uint8_t id[GENID_LEN], struct err *e);

#endif
