/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory map that the guest is told. ACPI 6.5, chapter 15. */
#include <insula/board.h>

#include "load_image.h"

#define LOW_RAM_TOP \
	0x9fc00ull /* where an EBDA begins on a PC; kernels expect no RAM from here to 1 MiB */

static void add_range(struct load_map *map, uint64_t from, uint64_t to, uint32_t type)
{
	map->entry[map->n++] =
		(struct load_map_entry){.gpa = from, .size = to - from, .type = type};
}

/*
 * What is not listed is not RAM. The windows of devices in the hole are not listed: their drivers
 * claim them, and a reserved entry would only stand in the way. KVM's own pages are, so that
 * nothing is ever placed on them; and so is PCI's configuration space, whether there is one or not:
 * Linux does not use one that is not reserved. Memory for enclaves is no RAM, and reserved as it is
 * by a PC's firmware.
 */
void load_map_make(struct load_map *map, const struct load_params *p)
{
	const struct gm_region *r = p->gm->region, *end = r + p->gm->nregions;
	uint64_t ecam = p->pci_buses * BOARD_PCI_ECAM_SIZE;

	map->n = 0;
	add_range(map, 0, LOW_RAM_TOP, LOAD_MAP_RAM);
	add_range(map, LOW_RAM_TOP, BOARD_ACPI, LOAD_MAP_RESERVED);
	add_range(map, BOARD_ACPI, BOARD_ACPI + BOARD_ACPI_SIZE, LOAD_MAP_ACPI);
	add_range(map, BOARD_KERNEL, r->size, LOAD_MAP_RAM);
	for (r++; r < end && r->gpa < HV_X86_INTEL_PAGES; r++)
		add_range(map, r->gpa, r->gpa + r->size, LOAD_MAP_RAM);
	add_range(map, BOARD_PCI_ECAM, BOARD_PCI_ECAM + ecam, LOAD_MAP_RESERVED);
	add_range(map, HV_X86_INTEL_PAGES, HV_X86_INTEL_PAGES + HV_X86_INTEL_SIZE,
		  LOAD_MAP_RESERVED);
	for (; r < end; r++)
		add_range(map, r->gpa, r->gpa + r->size, LOAD_MAP_RAM);
	if (p->epc.size)
		add_range(map, p->epc.gpa, p->epc.gpa + p->epc.size, LOAD_MAP_RESERVED);
}

_Static_assert(BOARD_ACPI + BOARD_ACPI_SIZE == BOARD_KERNEL,
	       "no gap between the ACPI area and the kernel");
