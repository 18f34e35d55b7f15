/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI tables of the board (insula/board.h): RSDP, XSDT, FADT (hardware-reduced), MADT, DSDT.
 * ACPI 6.5.
 *
 * They are what a distribution kernel learns the machine from: which CPUs there are, the IOAPIC,
 * where the UART and the virtio windows are, how to power off, and which parts of a PC are absent,
 * so that it does not look for them.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/guestmem.h>

struct acpi_params {
	unsigned ncpus;   /* 1..BOARD_MAX_CPUS; LAPIC id of CPU i is i */
	unsigned nvirtio; /* 0..BOARD_MAX_VIRTIO; device i at BOARD_VIRTIO_MMIO, line
			     BOARD_GSI_VIRTIO + i */
	bool com1;        /* there is a UART at BOARD_COM1 */
};

/*
 * Write the tables into the guest's ACPI area (BOARD_ACPI, BOARD_ACPI_SIZE) and return the gpa of
 * the RSDP. Before the guest runs. -EINVAL: parameters out of range, or guest memory without that
 * area.
 */
int acpi_build(const struct guestmem *gm, const struct acpi_params *p, uint64_t *rsdp,
	       struct err *e);

#endif
