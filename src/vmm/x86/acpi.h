/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI tables of the board (insula/board.h): RSDP, XSDT, FADT (hardware-reduced), MADT, DSDT.
 * ACPI 6.5.
 *
 * They are what a distribution kernel learns the machine from: which CPUs there are, the IOAPIC,
 * where the windows of the devices are, how to power off, and which parts of a PC are absent,
 * so that it does not look for them.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/guestmem.h>
#include <insula/proto.h>

struct acpi_params {
	unsigned ncpus;        /* 1..BOARD_MAX_CPUS; LAPIC id of CPU i is i */
	unsigned ncpus_in;     /* those that are there; the others may come if: */
	bool cpus_change;      /* all but the first may come and go (BOARD_CPUS) */
	struct mem_region epc; /* memory for enclaves; size 0: none */
	unsigned ndevices;
	/* Checked. Those with a _HID are named, with their windows and pins as resources. */
	const struct device_desc *device[VM_MAX_DEVICES];
};

/*
 * Write the tables into the guest's ACPI area (BOARD_ACPI, BOARD_ACPI_SIZE) and return the gpa of
 * the RSDP. Before the guest runs. -EINVAL: parameters out of range, or guest memory without that
 * area.
 */
int acpi_build(const struct guestmem *gm, const struct acpi_params *p, uint64_t *rsdp,
	       struct err *e);

#endif
