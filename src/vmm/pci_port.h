/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A root port with a hot-plug slot: its registers, and the interrupt by which the guest hears of
 * the slot. What is behind it is pci.c's. PCI Express Base 5.0: 7.5.1.3 (header of a bridge), 7.5.3
 * (capability of PCI Express), 7.7.1 (MSI), 6.7 (hot-plug).
 *
 *   bridge     bus numbers and memory window are the board's at first, and what the guest writes
 *              there can be read back. Neither means anything: bus 1 + i is behind port i, and a BAR
 *              behind it answers wherever it is in the board's window. No window for ports or for
 *              prefetchable memory. A reset of its bus (bridge control) is power off while it lasts
 *   slot       with a button, a power switch and a power light; what is in it may go without
 *              notice. A command is done when it is written (No Command Completed Support).
 *              The link is up while something is there and has power. There is none at first, so
 *              what comes before the guest's driver starts waits for it: Linux' driver switches on
 *              what it finds without power, and takes what it finds with power for known
 *   events     button, presence, link: each is a bit of the slot status until the guest clears it.
 *              What comes into a slot without power is told as presence and link; and, if the power
 *              light was not off, once more when it goes off. Linux keeps the light on while it
 *              switches off, for a second, and forgets what it was told meanwhile
 *   interrupt  MSI, one vector, whenever an event rises that is enabled, or an enabled one is
 *              enabled that has risen: more often than the bus asks for, and never less. While MSI
 *              is off it waits (line.h)
 *
 * The guest reads `config` in place, so no read exits.
 *
 * Thread: the lock of the bus is held, or no vCPU runs.
 */
#ifndef VMM_PCI_PORT_H
#define VMM_PCI_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/board.h>

#include "line.h"

#define PCI_PORT_WORDS 36u /* of configuration space; behind them there are zeros alone */

struct pci_port {
	uint32_t *config; /* its page of configuration space */
	struct line line; /* of its MSI. The event is owned, and lives as long as the process */
	uint32_t told;    /* events that were enabled and there when the guest was last told */
	bool tell_again;  /* of what is in it, when the power light goes off */
};

/* Port `i`, with an empty slot; behind its words `config` has zeros. `line` has no event yet. 0, or
 * what the system said: no event. */
int pci_port_make(struct pci_port *p, unsigned i, uint32_t *config, const struct line *line,
		  struct err *e);
/* The guest has written: within one word. */
void pci_port_write(struct pci_port *p, unsigned off, unsigned size, uint32_t v);
/* Something has come into the slot, or has gone. */
void pci_port_fill(struct pci_port *p, bool there);
/* The slot's button: the guest is asked to give back what is there. */
void pci_port_press(struct pci_port *p);
/* Something is in the slot, and has power: it can be reached. */
bool pci_port_is_up(const struct pci_port *p);

/* A snapshot, of an empty slot. What cannot be written is ignored; an event that is enabled is told
 * once more. */
struct pci_port_state {
	uint32_t word[PCI_PORT_WORDS];
};
void pci_port_get(const struct pci_port *p, struct pci_port_state *s);
void pci_port_set(struct pci_port *p, const struct pci_port_state *s);

#endif
