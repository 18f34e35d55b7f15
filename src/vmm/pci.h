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
 *                         delivered later, and the pending bit says so. A function can have MSI
 *                         with one message instead, which is the same with the message in
 *                         configuration space and without a mask
 *   places                functions that come and go: each is alone on a bus, behind a root port of
 *                         bus 0 (pci_port.h). Reads of their configuration space exit. One that has
 *                         come, or that has got power again, is new: its BARs are 0, it decodes
 *                         nothing, and MSI-X is off. Without power it is not there: its windows,
 *                         doorbells and interrupts are taken away. It can be taken out at any time.
 *                         Where nothing answers in the windows that the board gives the ports, reads
 *                         are 0, and not ones as elsewhere
 *
 * Threads: filled before a vCPU runs. Then any vCPU, and the main thread that plugs and unplugs:
 * one lock for all functions but for reads and writes of windows, which find their function without
 * it. Those of a place are counted, and what is there is not let go before the last has left.
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include <pthread.h>

#include <insula/board.h>
#include <insula/device.h>
#include <insula/hv.h>

#include "bus.h"
#include "line.h"
#include "pci_port.h"
#include "remote.h"

#define PCI_CONFIG 256u /* bytes of a function's configuration space; there is nothing beyond */

struct pci_entry { /* of an MSI-X table */
	uint64_t addr;
	uint32_t data, control;
	struct line line;
};

struct pci_place;
struct pci_function {
	struct pci_place *place;          /* NULL: it is on bus 0, and always there */
	uint32_t *config;                 /* in ecam; of a place, its `space` */
	uint32_t writable[64];            /* bits of config */
	struct remote *dev;               /* borrowed */
	_Atomic uint64_t at[DEVICE_BARS]; /* where they answer now; 0: nowhere */
	unsigned slot[DEVICE_MAX_WINDOWS];
	struct pci_entry entry[DEVICE_MAX_VECTORS];
};

struct pci_place {
	struct pci_port port;
	struct pci_function *fn;   /* what may be there */
	struct device_desc empty;  /* what fn->dev is described as while nothing is */
	_Atomic uint32_t accesses; /* by vCPUs, to windows of what is there */
	bool asked;                /* the main thread's: to be taken out when it has no power */
	uint32_t space[PCI_CONFIG / 4];
};

struct pci {
	pthread_mutex_t lock;
	struct hv_vm *vm;
	const struct line_ops *ops;
	unsigned n, nplaces; /* the last `nplaces` functions are those of the places */
	struct pci_function fn[BOARD_MAX_PCI];
	uint64_t wide_from, wide_to; /* the window of BARs of 64 bits; UINT64_MAX, 0: none */
	struct pci_place place[BOARD_MAX_PLACES]; /* on bus 1, 2 ... */
	/* The guest reads it in place, as far as there are devices; nobody touches the rest. */
	_Alignas(HV_PAGE) uint8_t ecam[BOARD_PCI_ECAM_SIZE];
};

/* How many lines functions and places need, of all devices. */
unsigned pci_count_lines(const struct remote *dev, unsigned ndevices);

/* No functions. `vm` and `ops` outlive it. */
void pci_init(struct pci *p, struct hv_vm *vm, const struct line_ops *ops);
/* One more: `dev` outlives it. It takes the lines from *line on, and memory slots from *slot on.
 * -EEXIST: its place on the bus or in memory is another one's; -ENOSPC; or what the hypervisor
 * said. */
int pci_add(struct pci *p, struct remote *dev, unsigned *line, unsigned *slot, struct err *e);
/* If there is a function or a place, and when all are there: a host bridge; ECAM gets its memory
 * slot, and is put on the bus with the window of the BARs. As above; -EINVAL: the number of a
 * place. */
int pci_on_bus(struct pci *p, struct bus *mmio, unsigned slot, struct err *e);

/* How many functions there are on bus 0, from the first on. */
static inline unsigned pci_fixed(const struct pci *p)
{
	return p->n - p->nplaces;
}

/* ---- pci_place.c ---- */

/* As pci_add(), for a place with nothing in it; after all functions. */
int pci_add_place(struct pci *p, struct remote *dev, unsigned *line, unsigned *slot, struct err *e);

/* hv_vm_assign() or hv_vm_unassign(), for a device of the host. A hypervisor that does not take it
 * runs the guest all the same: what it would know better is whether the device's DMA may bypass the
 * caches. */
void pci_assign(struct hv_vm *vm, const struct remote *d,
		int (*tell)(struct hv_vm *, hv_event, struct err *));

/* The main thread, while vCPUs run: */
/* NULL: `dev` is none. */
struct pci_place *pci_place_of(struct pci *p, const struct remote *dev);
/* There it is: remote_plug(), and the guest is told. On error nothing has changed, but that the
 * descriptors are closed. */
int pci_plug(struct pci *p, struct pci_place *l, const struct device_desc *d, int *fds,
	     unsigned nfds, struct err *e);
/* Something is there, and has power. */
bool pci_is_up(struct pci *p, const struct pci_place *l);
/* The guest is asked to let it go: it will have no power then. */
void pci_press(struct pci *p, struct pci_place *l);
/* It is gone, and the guest is told: remote_unplug(). Waits for accesses that are under way, for
 * which it does not wait for an answer any more. Nothing there: 0. An error: what the hypervisor
 * said, and it is still there. */
int pci_unplug(struct pci *p, struct pci_place *l, struct err *e);

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
/* Of all functions of bus 0, in their order. Bits that cannot be written are ignored. Every vector
 * that the guest has ever used is signalled: one may have been lost on the way. Where two BARs want
 * one place the first function has it, whichever had it before. 0, or what the hypervisor said. */
int pci_set(struct pci *p, const struct pci_state *s, struct err *e);

#endif
