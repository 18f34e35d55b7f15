/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the loader says about memory, and whether it is true: first and last page of each RAM
 * region, the hole, the command line, the ACPI root. Prints `ram BYTES` (all RAM regions together),
 * `top ADDRESS` (the end of the last one) and `cmdline TEXT`.
 */
#include <asm/bootparam.h>

#include "payload.h"

#define E820_RAM 1
#define MAX_REGIONS 16
#define PATTERN 0x5aa55aa5deadbeefull

/* PVH: xen/include/public/arch-x86/hvm/start_info.h */
#define START_MAGIC 0x336ec578u
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};
struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

struct region {
	uint64_t addr, size;
	uint32_t type;
};
static struct region region[MAX_REGIONS];
static unsigned nregions;
static uint64_t cmdline, rsdp;

static void from_boot_params(void)
{
	const struct boot_params *bp = (const struct boot_params *)boot_info;

	nregions = bp->e820_entries < MAX_REGIONS ? bp->e820_entries : MAX_REGIONS;
	for (unsigned i = 0; i < nregions; i++)
		region[i] = (struct region){bp->e820_table[i].addr, bp->e820_table[i].size,
					    bp->e820_table[i].type};
	cmdline = bp->hdr.cmd_line_ptr;
	rsdp = bp->acpi_rsdp_addr;
	check("boot_header", bp->hdr.header == 0x53726448, "0x%x", bp->hdr.header);
}

static void from_start_info(void)
{
	const struct start_info *si = (const struct start_info *)boot_info;
	const struct start_memmap *m = (const struct start_memmap *)si->memmap;

	if (!check("start_info", si->magic == START_MAGIC && si->version >= 1,
		   "magic 0x%x version %u", si->magic, si->version))
		return;
	nregions = si->memmap_entries < MAX_REGIONS ? si->memmap_entries : MAX_REGIONS;
	for (unsigned i = 0; i < nregions; i++)
		region[i] = (struct region){m[i].addr, m[i].size, m[i].type};
	cmdline = si->cmdline;
	rsdp = si->rsdp;
}

/* Write, read, put back: it may be a page that is in use. */
static bool is_ram(uint64_t addr)
{
	uint64_t old, got;

	if (addr >= BOARD_HIGH_RAM && !map_high(addr))
		return false;
	old = read64(addr);
	write64(addr, old ^ PATTERN);
	got = read64(addr);
	write64(addr, old);
	return got == (old ^ PATTERN) && read64(addr) == old;
}

static bool pages_are_ram(const struct region *r)
{
	uint64_t last = r->addr + r->size - 8;
	uint64_t middle = (r->addr + r->size / 2) & ~7ull;

	return is_ram(r->addr) && is_ram(middle) && is_ram(last);
}

static void touch(void)
{
	uint64_t total = 0, top = 0;

	for (unsigned i = 0; i < nregions; i++) {
		const struct region *r = &region[i];

		print("region 0x%lx + 0x%lx type %u\n", r->addr, r->size, r->type);
		if (r->type != E820_RAM)
			continue;
		check("region_is_ram", r->size >= BOARD_PAGE && pages_are_ram(r), "0x%lx", r->addr);
		total += r->size;
		if (r->addr + r->size > top)
			top = r->addr + r->size;
	}
	check("there_is_ram", total != 0, "none");
	print("ram %lu\ntop 0x%lx\n", total, top);
}

static bool overlaps(const struct region *r, uint64_t from, uint64_t to)
{
	return r->addr < to && from < r->addr + r->size;
}

/* Regions of any type are disjoint and sorted; no RAM in the hole, nor over the
 * VMClock, the generation identifier and the ACPI tables. */
static void layout(void)
{
	unsigned unsorted = 0, bad = 0;

	for (unsigned i = 0; i < nregions; i++) {
		if (i && region[i].addr < region[i - 1].addr + region[i - 1].size)
			unsorted++;
		if (region[i].type != E820_RAM)
			continue;
		bad += overlaps(&region[i], BOARD_LOW_RAM_END, BOARD_HIGH_RAM);
		bad += overlaps(&region[i], BOARD_VMCLOCK, BOARD_ACPI + BOARD_ACPI_SIZE);
	}
	check("map_is_sorted", unsorted == 0, "%u entries", unsorted);
	check("no_ram_where_none_may_be", bad == 0, "%u overlaps", bad);
}

/* Right behind the RAM below 4 GiB, and in the hole. */
static void hole(void)
{
	uint64_t end = 0;

	for (unsigned i = 0; i < nregions; i++)
		if (region[i].type == E820_RAM && region[i].addr < BOARD_LOW_RAM_END)
			end = region[i].addr + region[i].size;
	write64(end, 1);
	check("nothing_behind_ram", read64(end) == ~0ull, "0x%lx reads 0x%lx", end, read64(end));
	check("hole_is_not_ram", !is_ram(0xe0000000) && !is_ram(0xfffff000), "it is");
}

static void texts(void)
{
	const char *c = (const char *)cmdline;

	check("command_line", c != NULL, "none");
	if (c)
		print("cmdline %s\n", c);
	if (!rsdp)
		skip("acpi_root", "the loader names none");
	else
		check("acpi_root", memcmp((const void *)rsdp, "RSD PTR ", 8) == 0, "0x%lx", rsdp);
}

int main(void)
{
	if (boot_kind == BOOT_PVH)
		from_start_info();
	else
		from_boot_params();
	layout();
	touch();
	hole();
	texts();
	return finish();
}
