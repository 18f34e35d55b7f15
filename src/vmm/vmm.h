/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-vmm: one virtual machine. Who owns what, and which thread may touch it:
 *
 *   main thread     the channel; set-up and the end. Everything in struct vmm is filled in before
 *                   the vCPU threads pass the gate and is read-only after that, except the fields
 *                   marked atomic
 *   vCPU thread i   vcpu[i] alone
 *
 * Locks: one mutex per remote device, one in the IOAPIC, one of the PCI bus. No thread holds two.
 */
#ifndef VMM_VMM_H
#define VMM_VMM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <insula/board.h>
#include <insula/guestmem.h>
#include <insula/hv.h>
#include <insula/proto.h>

#include "bus.h"
#include "pci.h"
#include "remote.h"

struct ioapic;
struct vmm;

struct vcpu {
	struct vmm *vm;
	unsigned index;
	struct hv_vcpu *hv;
	pthread_t thread;
	uint64_t exits[HV_EXIT_KINDS];
	uint64_t unclaimed;
	/* MSG_SAVE: made by its thread, for the save_no of the VM; then read by main. */
	_Atomic uint32_t save_no;
	int save_rc;
	struct err save_err;
	size_t state_len;
	_Alignas(8) uint8_t state[HV_STATE_MAX];
};

struct vmm {
	struct hv_vm *hv;
	struct guestmem gm;
	struct memmap memmap;  /* of gm */
	struct mem_region epc; /* memory for enclaves: mapped, not touched; size 0: none */
	struct bus pio, mmio;
	struct ioapic *ioapic;
	struct pci pci;
	unsigned ncpus; /* vCPUs: those that may come, too */
	unsigned ndevices, npins;
	struct vcpu vcpu[BOARD_MAX_CPUS];
	struct remote dev[VM_MAX_DEVICES];
	unsigned next_slot, next_line;
	uint8_t *room; /* VMM_ROOM bytes, for what comes into the places (remote.h); NULL: none */

	int acpi_event;           /* owned, of BOARD_GSI_EVENTS: x86/genid.h */
	int main_event;           /* wakes the main thread: a device is stuck, or the VM ends */
	atomic_bool ending;       /* vCPUs leave their loops */
	_Atomic uint32_t reason;  /* enum vm_exit_reason, set once by whoever ends the VM first */
	_Atomic uint32_t running; /* vCPU threads that have not parked */
	pthread_barrier_t begun;  /* all vCPU threads and main: they are up, the jail may close */
	_Atomic uint32_t gate;    /* 0: vCPU threads wait; futex word */
	/* VMM_IS_PAUSED: vCPU threads stay out of the guest; the rest of it counts. Futex word of
	 * all that rest. */
	_Atomic uint32_t paused;
	_Atomic uint32_t resting; /* vCPU threads that do so */
	bool pausing;             /* main thread: MSG_PAUSED is owed */
	_Atomic uint32_t save_no; /* counts MSG_SAVE: resting vCPUs make their records */
	int save_fd;              /* main thread: where to; -1: MSG_SAVED is not owed. Owned */
	bool cpus_change;         /* cpus.h has this and what follows */
	_Atomic uint32_t cpus_in, cpus_parked;  /* bit i: vCPU i */
	_Atomic uint32_t cpus_news, cpus_asked; /* BOARD_CPUS_NEWS, _ASKED */
	unsigned cpus_wanted;                   /* main thread: to be let in; 0: enough are there */
	unsigned cpus_told;                     /* main thread: with the last MSG_CPUS_ARE */
	bool assigns;                           /* VMM_ASSIGNS */
	bool restored;                          /* the guest goes on instead of booting */
	struct msg_vm_exit exit; /* written by the thread that won `reason`, then read by main */
	_Atomic uint32_t init_started;
	_Atomic uint32_t agent_ready; /* 1: to be reported, 2: has been */
	_Atomic uint32_t rst_cnt;     /* what was written to BOARD_RST_CNT */
	_Atomic uint64_t board_accesses, ioapic_accesses;
	uint64_t first_run_ns; /* by vCPU 0 before its first run */
};

#define VMM_ROOM (BOARD_MAX_PLACES * BOARD_PCI_PORT_SIZE)
#define VMM_IS_PAUSED 1u /* of vmm.paused */

/* Main: all that rest look again whether they have to. */
void vmm_wake_resting(struct vmm *vm);

/* End the VM (first caller wins). `x` is copied if not NULL: its status, rip, insn and text. Any
 * thread. */
void vmm_end(struct vmm *vm, enum vm_exit_reason reason, const struct msg_vm_exit *x);

/* seal_linux.c, seal_win.c */
/* Descriptors of the hypervisor that MSG_START_VMM begins with: /dev/kvm on Linux. */
unsigned vmm_device_fds(void);
/* jail_seal() with all that the program needs from now on. */
int vmm_seal(const struct vmm *vm, struct err *e);

/* x86/board.c: the board's own registers, and the IOAPIC's window. */
int board_init(struct vmm *vm, struct err *e);
/* Memory for enclaves, if this VM has any: of START_EPC, which stays the caller's. */
int board_map_epc(struct vmm *vm, int fd, struct err *e);
/* The window of BARs above 4 GiB is the supervisor's to place: behind all memory. Else -EINVAL. */
int board_check_wide(const struct vmm *vm, struct err *e);

/* vcpu.c: a vCPU thread: waits for the gate, runs until the VM ends, parks. */
void *vcpu_thread(void *vcpu);
/* One run and its exit. The vCPU's thread. 0, or a negative errno: it cannot go on. */
int vcpu_step(struct vcpu *c);

#endif
