/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The DSDT: how to power off, processors, the board's own devices, the PCI bus, and the devices
 * that a description names. ACPI 6.5; PCI Firmware 3.3.
 *
 * Thread: the one that builds the tables.
 */
#ifndef VMM_DSDT_H
#define VMM_DSDT_H

#include <stdbool.h>
#include <stdint.h>

#include "acpi.h"
#include "aml.h"

/* An entry of the MADT, which a processor that comes has in its _MAT as well. */
struct madt_lapic {
	uint8_t type, length, uid, id;
	uint32_t flags;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_lapic) == 8, "5.2.12.2");
#define MADT_LAPIC 0
#define MADT_LAPIC_ENABLED 1
#define MADT_LAPIC_ONLINE_CAPABLE 2 /* it may come */
struct madt_lapic madt_lapic_of(unsigned i, uint32_t flags);

/* All that is behind the table's head. */
void dsdt_write(struct aml *o, const struct acpi_params *p);
/* -EINVAL: the tables have no room for what it decodes: 8 bits for a number of ports, 32 for an
 * address. */
int dsdt_check(const struct device_desc *d, struct err *e);
unsigned dsdt_places(const struct acpi_params *p);
bool dsdt_has_pci(const struct acpi_params *p);

#endif
