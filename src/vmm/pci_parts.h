/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the PCI bus share: configuration space as 4-byte words, and MSI-X. PCI Express
 * Base 5.0, 7.5.1 and 7.7.2.
 *
 * The guest may read configuration space in place, so each word is stored whole. The lock of the
 * bus is held, or no vCPU runs.
 */
#ifndef VMM_PCI_PARTS_H
#define VMM_PCI_PARTS_H

#include "pci.h"

#define CFG_ID 0x00u
#define CFG_COMMAND 0x04u /* and status in the upper half */
#define CFG_CLASS 0x08u
#define CFG_HEADER 0x0cu /* its type in bits 16 to 22 */
#define CFG_BAR 0x10u
#define BAR_FLAGS 0xfull
#define BAR_WIDE 0x4u
#define CFG_SUBSYSTEM 0x2cu
#define CFG_CAPS 0x34u
#define CFG_FIRST_CAP 0x40u

#define CMD_MEMORY 0x0002u
#define CMD_MASTER 0x0004u
#define CMD_NO_INTX 0x0400u /* there is none; kernels set it all the same */
#define STATUS_CAPS 0x00100000u

#define CFG_MSIX CFG_FIRST_CAP /* the first capability of a function; control in the upper half */
#define CFG_MSI CFG_FIRST_CAP  /* or this: control in the upper half, address, data */
#define MSI_ON 0x00010000u
#define MSI_DATA_BITS 0xffffu
#define MSIX_MASKED 0x40000000u
#define MSIX_ON 0x80000000u
#define ENTRY_MASKED 1u

static inline uint32_t pci_word(const uint32_t *config, unsigned off)
{
	return __atomic_load_n(&config[off / 4], __ATOMIC_RELAXED);
}

static inline void pci_store(uint32_t *config, unsigned off, uint32_t v)
{
	__atomic_store_n(&config[off / 4], v, __ATOMIC_RELEASE);
}

/* A write of `size` bytes at `off`, within one word: what the word is then, if these bits of it can
 * be written; and which bits were written as 1. */
static inline uint32_t pci_written(uint32_t old, uint32_t writable, unsigned off, unsigned size,
				   uint32_t v, uint32_t *ones)
{
	uint32_t bytes = (uint32_t)((1ull << 8 * size) - 1) << off % 4 * 8;

	*ones = v << off % 4 * 8 & bytes;
	return (old & ~(writable & bytes)) | (*ones & writable);
}

/* A message to this address is an interrupt, and no access to memory. */
static inline bool pci_interrupts(uint64_t addr)
{
	return addr - BOARD_LAPIC < 0x100000;
}

/* The page of ecam at this offset. */
static inline uint32_t *pci_page(struct pci *p, uint64_t off)
{
	return (uint32_t *)(void *)(p->ecam + off);
}

/* ---- pci.c ---- */

/* Make a function as it is when it comes: it is nowhere, interrupts nobody, and its configuration
 * space is as its description says. An error: what the hypervisor said; what it keeps stays. */
int pci_function_new(struct pci *p, struct pci_function *f, struct err *e);

/* ---- pci_place.c ---- */

/* The guest has written to the port. True: what is behind it has lost its power. */
bool pci_place_write(struct pci *p, struct pci_place *l, unsigned off, unsigned size, uint32_t v);

/* ---- pci_msix.c ---- */

/* An entry delivers if it may, or what comes is pending. */
void pci_msix_update(const struct pci_function *f, struct pci_entry *n);
/* Table and pending bits: the BAR that they are in, where no window is. Takes the lock. */
uint64_t pci_msix_read(struct pci *p, const struct pci_function *f, uint32_t off, unsigned size);
/* Whole words alone, one or two: what else a driver writes means nothing. Takes the lock. */
void pci_msix_write(struct pci *p, struct pci_function *f, uint32_t off, unsigned size, uint64_t v);

#endif
