/* SPDX-License-Identifier: BSD-2-Clause */
/* struct hvm_start_info, version 1, for the PVH boot ABI.
 * xen/include/public/arch-x86/hvm/start_info.h. */
#include <string.h>

#include <insula/board.h>

#include "load_image.h"

#define START_MAGIC 0x336ec578u
#define INFO_VERSION 1

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "wire size");

struct start_module {
	uint64_t paddr, size, cmdline_paddr, reserved;
};
_Static_assert(sizeof(struct start_module) == 32, "wire size");

struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};
_Static_assert(sizeof(struct start_memmap) == 24, "wire size");

struct start_page { /* at BOARD_PVH_INFO */
	struct start_info info;
	struct start_module module[1];
	struct start_memmap
		map[sizeof(((struct load_map *)0)->entry) / sizeof(struct load_map_entry)];
};
_Static_assert(sizeof(struct start_page) <= BOARD_PAGE, "one page");

static void fill_map(struct start_page *s, const struct load_params *p)
{
	struct load_map map;

	load_map_make(&map, p);
	for (unsigned i = 0; i < map.n; i++) {
		s->map[i].addr = map.entry[i].gpa;
		s->map[i].size = map.entry[i].size;
		s->map[i].type = map.entry[i].type;
	}
	s->info.memmap_entries = map.n;
	s->info.memmap_paddr = BOARD_PVH_INFO + offsetof(struct start_page, map);
}

void load_write_start_info(uint8_t *low, const struct load_params *p,
			   const struct load_initrd *initrd)
{
	struct start_page s;

	memset(&s, 0, sizeof(s));
	s.info.magic = START_MAGIC;
	s.info.version = INFO_VERSION;
	s.info.cmdline_paddr = BOARD_CMDLINE;
	s.info.rsdp_paddr = p->acpi_rsdp;
	if (initrd->size) {
		s.info.nr_modules = 1;
		s.info.modlist_paddr = BOARD_PVH_INFO + offsetof(struct start_page, module);
		s.module[0].paddr = initrd->gpa;
		s.module[0].size = initrd->size;
	}
	fill_map(&s, p);
	memcpy(low + BOARD_PVH_INFO, &s, sizeof(s));
}
