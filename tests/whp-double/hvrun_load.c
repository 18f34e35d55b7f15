/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kernel by the 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"):
 * long mode, memory mapped as it is, rsi = struct boot_params. Only for files of our own: an input
 * that is not what it should be gets a line, not a diagnosis.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/board.h>

#include "hvrun.h"
#include "vmm/x86/acpi.h"

/* struct boot_params: Documentation/arch/x86/zero-page.rst */
#define BP_RSDP 0x70
#define BP_E820_ENTRIES 0x1e8
#define BP_HEADER 0x1f1
#define BP_MAGIC 0x202
#define BP_LOADER 0x210
#define BP_INITRD 0x218
#define BP_INITRD_SIZE 0x21c
#define BP_CMDLINE 0x228
#define BP_INIT_SIZE 0x260
#define BP_E820 0x2d0
#define HEADER_END 0x290
#define MAGIC 0x53726448u
#define E820_RAM 1
#define E820_RESERVED 2
#define LOADER_OTHER 0xff
#define ENTRY_64 0x200
#define LOW_END 0xa0000u
#define PAGE_PRESENT_WRITE 3u
#define PAGE_LARGE 0x83u

struct file {
	uint8_t *data;
	size_t size;
};

static int complain(const char *name, const char *why)
{
	fprintf(stderr, "hvrun: %s: %s\n", name, why);
	return -1;
}

static int read_file(const char *name, struct file *f)
{
	FILE *in = fopen(name, "rb");
	long size;

	if (!in)
		return complain(name, "cannot be opened");
	fseek(in, 0, SEEK_END);
	size = ftell(in);
	rewind(in);
	f->size = size > 0 ? (size_t)size : 0;
	f->data = malloc(f->size + 1);
	if (!f->data || fread(f->data, 1, f->size, in) != f->size)
		f->size = 0;
	fclose(in);
	return f->size > 1024 ? 0 : complain(name, "is too short, or cannot be read");
}

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p, bytes);
	return v;
}

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	memcpy(p, &v, bytes);
}

static bool fits(const struct load *l, uint64_t gpa, uint64_t size)
{
	return gpa <= l->size && size <= l->size - gpa;
}

/* ---- formats ---- */

static int load_elf(struct load *l, const struct file *f)
{
	uint64_t phoff = get(f->data + 32, 8), n = get(f->data + 56, 2);

	l->entry = get(f->data + 24, 8);
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *ph = f->data + phoff + i * 56;
		uint64_t off, at, filesz;

		if (phoff + (i + 1) * 56 > f->size)
			return complain(l->kernel, "program headers outside the file");
		off = get(ph + 8, 8);
		at = get(ph + 24, 8);
		filesz = get(ph + 32, 8);
		if (get(ph, 4) != 1)
			continue;
		if (!fits(l, at, get(ph + 40, 8)) || off > f->size || filesz > f->size - off)
			return complain(l->kernel, "a segment fits nowhere");
		memcpy(l->ram + at, f->data + off, filesz);
	}
	return 0;
}

static int load_bzimage(struct load *l, const struct file *f, uint8_t *bp)
{
	size_t sectors = f->data[BP_HEADER] ? f->data[BP_HEADER] : 4, setup = (sectors + 1) * 512;

	if (get(f->data + BP_MAGIC, 4) != MAGIC || setup >= f->size)
		return complain(l->kernel, "neither ELF nor bzImage");
	if (!fits(l, BOARD_KERNEL, get(f->data + BP_INIT_SIZE, 4)))
		return complain(l->kernel, "more memory is needed");
	memcpy(bp + BP_HEADER, f->data + BP_HEADER, HEADER_END - BP_HEADER);
	memcpy(l->ram + BOARD_KERNEL, f->data + setup, f->size - setup);
	l->entry = BOARD_KERNEL + ENTRY_64;
	return 0;
}

static int load_initrd(const struct load *l, uint8_t *bp)
{
	struct file f;
	uint64_t at;

	if (!l->initrd)
		return 0;
	if (read_file(l->initrd, &f) < 0)
		return -1;
	if (f.size > l->size / 2)
		return complain(l->initrd, "more memory is needed");
	at = (l->size - f.size) & ~(uint64_t)(BOARD_PAGE - 1);
	memcpy(l->ram + at, f.data, f.size);
	put(bp + BP_INITRD, 4, at);
	put(bp + BP_INITRD_SIZE, 4, f.size);
	free(f.data);
	return 0;
}

/* ---- what the kernel finds ---- */

static void add_e820(uint8_t *bp, uint64_t at, uint64_t size, uint32_t type)
{
	uint8_t *e = bp + BP_E820 + bp[BP_E820_ENTRIES]++ * 20;

	put(e, 8, at);
	put(e + 8, 8, size);
	put(e + 16, 4, type);
}

/* For src/vmm/x86/acpi.c: all RAM is one region, below the hole. */
void *gm_ptr(const struct guestmem *gm, gpa_t gpa, uint64_t len)
{
	const struct gm_region *r = &gm->region[0];

	return gpa <= r->size && len <= r->size - gpa ? r->host + gpa : NULL;
}

static int write_acpi(const struct load *l, uint8_t *bp)
{
	struct guestmem gm = {1, {{0, l->size, l->ram}}};
	struct acpi_params p = {.ncpus = l->ncpus, .ncpus_in = l->ncpus};
	struct err e;
	uint64_t rsdp;
	int r = acpi_build(&gm, &p, &rsdp, &e);

	if (r < 0)
		return complain("ACPI", e.text);
	put(bp + BP_RSDP, 8, rsdp);
	return 0;
}

static void write_boot_params(const struct load *l, uint8_t *bp)
{
	put(bp + BP_MAGIC, 4, MAGIC);
	bp[BP_LOADER] = LOADER_OTHER;
	put(bp + BP_CMDLINE, 4, BOARD_CMDLINE);
	strcpy((char *)l->ram + BOARD_CMDLINE, l->cmdline);
	add_e820(bp, 0, LOW_END, E820_RAM);
	add_e820(bp, LOW_END, BOARD_KERNEL - LOW_END, E820_RESERVED);
	add_e820(bp, BOARD_KERNEL, l->size - BOARD_KERNEL, E820_RAM);
}

/* A GDT as the protocol wants it (code 0x10, data 0x18), and 4 GiB in large pages. */
static void write_tables(uint8_t *ram)
{
	uint8_t *pt = ram + BOARD_PAGE_TABLES;

	put(ram + BOARD_GDT + 0x10, 8, 0x00af9b000000ffff);
	put(ram + BOARD_GDT + 0x18, 8, 0x00cf93000000ffff);
	put(pt, 8, (BOARD_PAGE_TABLES + 0x1000) | PAGE_PRESENT_WRITE);
	for (unsigned i = 0; i < 4; i++)
		put(pt + 0x1000 + i * 8, 8,
		    (BOARD_PAGE_TABLES + 0x2000 + i * 0x1000) | PAGE_PRESENT_WRITE);
	for (uint64_t i = 0; i < 2048; i++)
		put(pt + 0x2000 + i * 8, 8, i << 21 | PAGE_LARGE);
}

int load(struct load *l)
{
	uint8_t *bp = l->ram + BOARD_BOOT_PARAMS;
	struct file f;
	int r;

	if (strlen(l->cmdline) >= BOARD_CMDLINE_MAX)
		return complain("--append", "too long");
	if (read_file(l->kernel, &f) < 0)
		return -1;
	r = memcmp(f.data, "\177ELF\2", 5) == 0 ? load_elf(l, &f) : load_bzimage(l, &f, bp);
	free(f.data);
	if (r == 0)
		r = load_initrd(l, bp);
	if (r == 0)
		r = write_acpi(l, bp);
	if (r == 0) {
		write_boot_params(l, bp);
		write_tables(l->ram);
	}
	return r;
}

void load_registers(const struct load *l, struct hv_regs *r)
{
	const struct hv_seg data = {.limit = UINT32_MAX, .selector = 0x18, .attr = 0xc93};

	r->rip = l->entry;
	r->rsi = BOARD_BOOT_PARAMS;
	r->rsp = BOARD_BOOT_STACK;
	r->rflags = 2;
	r->cr0 = 0x80000001;
	r->cr3 = BOARD_PAGE_TABLES;
	r->cr4 = 0x20;
	r->efer = 0x500;
	r->cs = (struct hv_seg){.limit = UINT32_MAX, .selector = 0x10, .attr = 0xa9b};
	r->ds = r->es = r->fs = r->gs = r->ss = data;
	r->gdt_base = BOARD_GDT;
	r->gdt_limit = 0x1f;
}
