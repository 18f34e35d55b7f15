/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PCI bus: configuration space, BARs and MSI-X of the functions that the VM has (struct
 * device_pci). PCI Express Base 5.0, 7.5.1 (configuration space), 7.2.2 (ECAM), 6.1.4 and 7.7.2
 * (MSI-X). What is behind a BAR is the device's: the same windows as of a device on no bus
 * (remote.h), at the place that the guest has chosen.
 *
 *   configuration space   a page of ours for each function. Up to the last device they are one
 *                         read-only memory slot of the guest, with pages of ones where no function
 *                         is: reads do not exit. Writes do, and change the bits that can be
 *                         written: decoding of memory, bus mastering, the BARs, and enable and mask
 *                         of MSI-X. What is behind the last device reads all ones
 *   BARs                  begin where the board puts them, decoded. Where one is matters when the
 *                         function decodes memory: then its windows and doorbells move there. A
 *                         place outside of the board's window, or on a function that decodes, is
 *                         none: nothing answers until that place is free or the guest finds another
 *                         one. A function that stops decoding goes on to answer at its old place,
 *                         until another one comes there: to size the BARs kernels stop it for a
 *                         moment, and to take memory slots away and back costs more than the rest
 *   MSI-X                 each entry is a line (line.h). It delivers if MSI-X is on, neither
 *                         function nor entry are masked, the function is a bus master, and the
 *                         address is one of an interrupt; else what comes is pending: it is
 *                         delivered later, and the pending bit says so
 *
 * Threads: filled before a vCPU runs. Then any vCPU: one lock for all functions but for reads and
 * writes of windows, which find their function without it.
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include <pthread.h>

#include <insula/board.h>
#include <insula/device.h>
#include <insula/hv.h>

#include "bus.h"
#include "line.h"
#include "remote.h"

struct pci_entry { /* of an MSI-X table */
	uint64_t addr;
	uint32_t data, control;
	struct line line;
};

struct pci_function {
	uint32_t *config;                 /* its page of ecam */
	uint32_t writable[64];            /* bits of config */
	struct remote *dev;               /* borrowed */
	_Atomic uint32_t at[DEVICE_BARS]; /* where they answer now; 0: nowhere */
	unsigned slot[DEVICE_MAX_WINDOWS];
	struct pci_entry entry[DEVICE_MAX_VECTORS];
};

struct pci {
	pthread_mutex_t lock;
	struct hv_vm *vm;
	const struct line_ops *ops;
	unsigned n;
	struct pci_function fn[BOARD_MAX_PCI];
	/* The guest reads it in place, as far as there are devices; nobody touches the rest. */
	_Alignas(HV_PAGE) uint8_t ecam[BOARD_PCI_ECAM_SIZE];
};

/* How many lines the functions need, of all devices. */
unsigned pci_count_lines(const struct remote *dev, unsigned ndevices);

/* No functions. `vm` and `ops` outlive it. */
void pci_init(struct pci *p, struct hv_vm *vm, const struct line_ops *ops);
/* One more: `dev` outlives it. It takes the lines from *line on, and memory slots from *slot on.
 * -EEXIST: its place on the bus or in memory is another one's; -ENOSPC; or what the hypervisor
 * said. */
int pci_add(struct pci *p, struct remote *dev, unsigned *line, unsigned *slot, struct err *e);
/* If there is a function, and when all are there: a host bridge; ECAM gets its memory slot, and is
 * put on the bus with the window of the BARs. */
int pci_on_bus(struct pci *p, struct bus *mmio, unsigned slot, struct err *e);

/* What the guest has set; the same on both ends of a snapshot. */
struct pci_state {
	uint32_t command, msix;
	uint32_t bar[DEVICE_BARS];
	struct {
		uint64_t addr;
		uint32_t data, control;
	} entry[DEVICE_MAX_VECTORS];
};
void pci_get(struct pci *p, unsigned i, struct pci_state *s);
/* Of all functions, in their order. Bits that cannot be written are ignored. Every vector that the
 * guest has ever used is signalled: one may have been lost on the way. Where two BARs want one
 * place the first function has it, whichever had it before. 0, or what the hypervisor said. */
int pci_set(struct pci *p, const struct pci_state *s, struct err *e);

#endif
