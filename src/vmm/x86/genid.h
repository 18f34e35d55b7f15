/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The generation identifier of a VM: 16 bytes that are another number in each VM that begins, and
 * in each that is restored or cloned. A guest that sees them change knows that somebody else may
 * have the same memory; Linux reseeds its random numbers (drivers/virt/vmgenid.c).
 *
 * Microsoft, "Virtual Machine Generation ID": a device VM_Gen_Counter in ACPI (dsdt.c) whose ADDR
 * names the bytes, and a notification 0x80. The board is hardware-reduced, so the notification
 * comes through a Generic Event Device (ACPI 6.5, 5.6.9) on the pin BOARD_GSI_EVENTS.
 *
 * And the same for programs: the VMClock, a page that a guest's programs may map (Linux 6.13 and
 * later: /dev/vmclock0), in which two numbers are others after a restore. Its layout is that of
 * Linux' uapi/linux/vmclock-abi.h, version 1; https://uapi-group.org/specifications/specs/vmclock.
 * It says nothing of time: the host's clock may be stepped, and nobody would correct the page while
 * the VM runs. So there is no counter, and the clock's status is "unknown".
 */
#ifndef VMM_GENID_H
#define VMM_GENID_H

#include <stdint.h>

#include <insula/err.h>

#define GENID_LEN 16

/* Little-endian. */
struct vmclock {
	uint32_t magic; /* VMCLOCK_MAGIC */
	uint32_t size;  /* of the page */
	uint16_t version;
	uint8_t counter_id; /* VMCLOCK_NO_COUNTER */
	uint8_t time_type;
	uint32_t seq_count;         /* odd: the rest is being changed */
	uint64_t disruption_marker; /* another one: the processors' counter has jumped */
	uint64_t flags;
	uint8_t pad[2];
	uint8_t clock_status; /* 0: unknown */
	uint8_t time[69];     /* of the counter and of time; zeros */
	uint64_t generation;  /* another one: the memory may be another VM's, too */
};
_Static_assert(sizeof(struct vmclock) == 112, "layout");
#define VMCLOCK_MAGIC 0x4b4c4356u /* "VCLK" */
#define VMCLOCK_NO_COUNTER 0xff
#define VMCLOCK_HAS_GENERATION 0x100u
#define VMCLOCK_NOTIFIES 0x200u /* each change of seq_count: 0x80, as of the identifier */

struct vmm;

/* Make the event and put it on its pin; before the jail closes. -EINVAL, -EEXIST (the pin) or the
 * errno of event_create(). */
int genid_init(struct vmm *vm, struct err *e);
/* Both, for a VM that begins: the identifier, and the marker and the generation of the VMClock. Main
 * thread, while no vCPU runs. -EINVAL: guest memory has no such place. */
int genid_place(struct vmm *vm, const uint8_t id[GENID_LEN], const uint64_t clock[2],
		struct err *e);
/* The same after a restore, and tell the guest: its interrupt comes when the vCPUs go on, or when
 * the guest unmasks the pin. */
int genid_renew(struct vmm *vm, const uint8_t id[GENID_LEN], const uint64_t clock[2],
		struct err *e);

#endif
