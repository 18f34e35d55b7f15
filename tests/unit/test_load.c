/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The boot loader. Images are made here, field by field; a real kernel is loaded too if `make
 * guest` has unpacked one. What a guest would read is read back by this file's own idea of the
 * structures: offsets as the documents give them.
 */
#include <asm/bootparam.h>
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>

#include "vmm/x86/load.h"
#include "vmm/x86/load_image.h"

#include "boardmem.h"
#include "host.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define PAGE ((uint64_t)BOARD_PAGE)

/* ---- guest memory: regions that end at a page without access ---- */

static struct guestmem gm;

static void free_memory(void)
{
	for (unsigned i = 0; i < gm.nregions; i++)
		host_free_fenced_pages(gm.region[i].host, gm.region[i].size);
	gm.nregions = 0;
}

/* Where it is; nothing is there yet. */
static struct guestmem board_of(uint64_t size)
{
	struct memmap m = board_map(size);
	struct guestmem g = {.nregions = m.nregions};

	for (unsigned i = 0; i < m.nregions; i++)
		g.region[i] = (struct gm_region){m.region[i].gpa, m.region[i].size, NULL};
	return g;
}

static void set_memory(uint64_t size)
{
	free_memory();
	gm = board_of(size);
	for (unsigned i = 0; i < gm.nregions; i++)
		gm.region[i].host = host_fenced_pages(gm.region[i].size);
}

static uint8_t *at(uint64_t gpa)
{
	uint8_t *p = gm_ptr(&gm, gpa, 1);

	ck_assert_ptr_nonnull(p);
	return p;
}

static uint64_t get(uint64_t gpa, unsigned n)
{
	uint64_t v = 0;

	memcpy(&v, at(gpa), n);
	return v;
}

static bool all_zero(uint64_t gpa, uint64_t n)
{
	const uint8_t *p = gm_ptr(&gm, gpa, n);

	while (n && *p == 0)
		n--, p++;
	return n == 0;
}

/* ---- images ---- */

struct image {
	size_t len;
	uint8_t b[16384];
};

static void put(struct image *im, size_t off, uint64_t v, unsigned n)
{
	ck_assert(off + n <= sizeof(im->b));
	memcpy(im->b + off, &v, n);
}

#define ELF_PHDR 64 /* program headers: text, data, note */
#define ELF_NOTE 0x100
#define ELF_TEXT 0x200
#define ELF_DATA 0x300
#define PH(i, field) (ELF_PHDR + (i) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field))
#define EH(field) offsetof(Elf64_Ehdr, field)

static void fill(struct image *im, size_t off, size_t n)
{
	for (size_t i = 0; i < n; i++)
		im->b[off + i] = (uint8_t)(1 + (off + i) % 251);
	if (off + n > im->len)
		im->len = off + n;
}

/* Text at 1 MiB, data with a bss of 8 KiB at 2 MiB, entry in the text. */
static void make_elf(struct image *im)
{
	const Elf64_Ehdr eh = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = 0x100010,
		.e_phoff = ELF_PHDR,
		.e_ehsize = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
	};
	const Elf64_Phdr ph[3] = {
		{.p_type = PT_LOAD,
		 .p_offset = ELF_TEXT,
		 .p_vaddr = 0xffffffff80100000,
		 .p_paddr = 0x100000,
		 .p_filesz = 0x40,
		 .p_memsz = 0x40},
		{.p_type = PT_LOAD,
		 .p_offset = ELF_DATA,
		 .p_vaddr = 0x200000,
		 .p_paddr = 0x200000,
		 .p_filesz = 0x21,
		 .p_memsz = 0x2000},
		{.p_type = PT_NULL},
	};

	memset(im, 0, sizeof(*im));
	memcpy(im->b, &eh, sizeof(eh));
	memcpy(im->b + ELF_PHDR, ph, sizeof(ph));
	fill(im, ELF_TEXT, 0x40);
	fill(im, ELF_DATA, 0x21);
}

static size_t put_note(struct image *im, size_t off, unsigned type, const char *name, uint64_t desc,
		       unsigned descsz, unsigned align)
{
	unsigned namesz = (unsigned)strlen(name) + 1;
	size_t start = off;

	put(im, off, namesz, 4);
	put(im, off + 4, descsz, 4);
	put(im, off + 8, type, 4);
	memcpy(im->b + off + 12, name, namesz);
	off += (12 + namesz + align - 1) / align * align;
	put(im, off, desc, descsz);
	return start + (off - start + descsz + align - 1) / align * align;
}

/* Some other notes first, as in a vmlinux. */
static void make_pvh(struct image *im, unsigned descsz, unsigned align)
{
	size_t off = ELF_NOTE;

	make_elf(im);
	off = put_note(im, off, 3, "GNU", 0x1122334455667788, 7, align);
	off = put_note(im, off, 18, "Linux", 0x999999, 4, align); /* the type alone is not enough */
	off = put_note(im, off, 17, "Xen", 0x888888, 4, align);
	off = put_note(im, off, 18, "Xen", 0x100020, descsz, align);
	ck_assert(off <= ELF_TEXT);
	put(im, PH(2, p_type), PT_NOTE, 4);
	put(im, PH(2, p_offset), ELF_NOTE, 8);
	put(im, PH(2, p_filesz), off - ELF_NOTE, 8);
	put(im, PH(2, p_memsz), off - ELF_NOTE, 8);
	put(im, PH(2, p_align), align, 8);
}

#define HDR(field) (0x1f1 + offsetof(struct setup_header, field))
#define BZ_SECTS 4
#define BZ_SETUP ((BZ_SECTS + 1) * 512)
#define BZ_SYSSIZE 0x100 /* 16-byte units */
#define BZ_BODY (BZ_SYSSIZE * 16)
#define BZ_PREF 0x1000000ull
#define BZ_INIT 0x200000ull
#define BZ_INITRD_MAX 0x7fffffff

static void make_bzimage(struct image *im)
{
	memset(im, 0, sizeof(*im));
	memset(im->b, 0xa5, 0x1f1); /* must not reach the guest */
	put(im, HDR(setup_sects), BZ_SECTS, 1);
	put(im, HDR(syssize), BZ_SYSSIZE, 4);
	put(im, HDR(root_flags), 1, 2);
	put(im, HDR(boot_flag), 0xaa55, 2);
	put(im, HDR(jump), 0x6aeb, 2); /* the header ends at 0x202 + 0x6a = 0x26c */
	put(im, HDR(header), 0x53726448, 4);
	put(im, HDR(version), 0x020f, 2);
	put(im, HDR(loadflags), LOADED_HIGH | CAN_USE_HEAP | QUIET_FLAG, 1);
	put(im, HDR(heap_end_ptr), 0x5555, 2);
	put(im, HDR(initrd_addr_max), BZ_INITRD_MAX, 4);
	put(im, HDR(kernel_alignment), 0x200000, 4);
	put(im, HDR(relocatable_kernel), 1, 1);
	put(im, HDR(xloadflags), XLF_KERNEL_64, 2);
	put(im, HDR(cmdline_size), 2047, 4);
	put(im, HDR(payload_offset), 0x2cc, 4);
	put(im, HDR(payload_length), 0x100, 4);
	put(im, HDR(setup_data), 0xdeadbeef, 8); /* must not reach the guest */
	put(im, HDR(pref_address), BZ_PREF, 8);
	put(im, HDR(init_size), BZ_INIT, 4);
	put(im, HDR(kernel_info_offset), 0x1234, 4);
	put(im, 0x26c, ~0ull, 8); /* setup code after the header: must not reach the guest */
	fill(im, BZ_SETUP, BZ_BODY);
}

/* ---- loading ---- */

static struct load_params par;
static uint64_t mem_size; /* of the board that load() makes */
static struct load_entry entry;
static struct err err;

static void setup(void)
{
	memset(&par, 0, sizeof(par));
	memset(&entry, 0x77, sizeof(entry));
	memset(&err, 0, sizeof(err));
	par.gm = &gm;
	mem_size = 64 * MIB;
	par.acpi_rsdp = BOARD_ACPI;
	par.pci_buses = 1;
	par.kernel_fd = par.initrd_fd[0] = par.initrd_fd[1] = -1;
}

static void close_files(void)
{
	fd_close(&par.kernel_fd);
	for (unsigned i = 0; i < par.ninitrds && i < VMM_MAX_INITRDS; i++)
		fd_close(&par.initrd_fd[i]);
	par.ninitrds = 0;
}

static void teardown(void)
{
	close_files();
	free_memory();
}

static int load(const struct image *im)
{
	if (gm.nregions == 0)
		set_memory(mem_size);
	if (im)
		par.kernel_fd = host_file(im->b, im->len, im->len);
	return load_kernel(&par, &entry, &err);
}

static void load_ok(const struct image *im)
{
	int rc = load(im);

	ck_assert_msg(rc == 0, "%d: %s", rc, err.text);
}

/* Refused with this code and these words, with nothing written: neither to the guest nor to the
 * result. */
static void refused(const struct image *im, int code, const char *words)
{
	struct load_entry untouched;
	int rc = load(im);

	memset(&untouched, 0x77, sizeof(untouched));
	ck_assert_msg(rc == code, "%s: expected %d, got %d: %s", words, code, rc, err.text);
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.text, words), "expected \"%s\", got \"%s\"", words, err.text);
	ck_assert_msg(!strchr(err.text, '\n') && strlen(err.text) < 200, "one line: %s", err.text);
	ck_assert_mem_eq(&entry, &untouched, sizeof(entry));
	ck_assert_msg(all_zero(0, gm.region[0].size < 20 * MIB ? gm.region[0].size : 20 * MIB),
		      "%s", words);
	close_files();
}

static void add_initrd(size_t n, uint64_t size)
{
	static const uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	par.initrd_fd[par.ninitrds++] = host_file(data, n, size);
}

/* ---- what the guest finds ---- */

static void check_gdt(uint64_t code)
{
	ck_assert(get(BOARD_GDT, 8) == 0);
	ck_assert(get(BOARD_GDT + 8, 8) == 0);
	ck_assert_uint_eq(get(BOARD_GDT + 0x10, 8), code);
	ck_assert_uint_eq(get(BOARD_GDT + 0x18, 8), 0x00cf93000000ffff);
}

/* As a CPU walks them: every 2 MiB of the first 4 GiB maps to itself, and nothing else is mapped.
 */
static void check_page_tables(void)
{
	uint64_t pml4 = BOARD_PAGE_TABLES, pdpt;
	unsigned wrong = 0;

	pdpt = get(pml4, 8);
	ck_assert_uint_eq(pdpt & 0xfff, 3);
	ck_assert(all_zero(pml4 + 8, PAGE - 8));
	pdpt &= ~0xfffull;
	for (unsigned g = 0; g < 4; g++) {
		uint64_t pd = get(pdpt + g * 8, 8);

		ck_assert_uint_eq(pd & 0xfff, 3);
		pd &= ~0xfffull;
		for (unsigned i = 0; i < 512; i++)
			wrong += get(pd + i * 8, 8) != (g * GIB + i * 2 * MIB + 0x83);
		ck_assert_uint_lt(pd, BOARD_PAGE_TABLES + 6 * PAGE);
	}
	ck_assert_uint_eq(wrong, 0);
	ck_assert(all_zero(pdpt + 32, PAGE - 32));
	ck_assert(all_zero(BOARD_PAGE_TABLES + 6 * PAGE,
			   BOARD_CMDLINE - BOARD_PAGE_TABLES - 6 * PAGE));
}

struct range {
	uint64_t gpa, size;
	uint32_t type;
};

/* The memory map of the board for this size: what must be told, in order. */
static unsigned expected_map(struct range *r, uint64_t mem)
{
	unsigned n = 0;

	r[n++] = (struct range){0, 0x9fc00, 1};
	r[n++] = (struct range){0x9fc00, 0x40400, 2};
	r[n++] = (struct range){0xe0000, 0x20000, 3};
	r[n++] = (struct range){0x100000, (mem < 3 * GIB ? mem : 3 * GIB) - MIB, 1};
	r[n++] = (struct range){0xe0000000, par.pci_buses * 0x100000ull, 2};
	r[n++] = (struct range){0xfffbc000, 0x4000, 2};
	if (mem > 3 * GIB)
		r[n++] = (struct range){4 * GIB, mem - 3 * GIB, 1};
	if (par.epc.size)
		r[n++] = (struct range){par.epc.gpa, par.epc.size, 2};
	return n;
}

static void check_e820(uint64_t mem)
{
	struct range r[9];
	unsigned n = expected_map(r, mem);

	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x1e8, 1), n);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x2d0 + i * 20, 8), r[i].gpa);
		ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x2d8 + i * 20, 8), r[i].size);
		ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x2e0 + i * 20, 4), r[i].type);
	}
}

static void check_cmdline(const char *text)
{
	ck_assert_str_eq((const char *)at(BOARD_CMDLINE), text);
}

static void check_boot_params(uint64_t initrd, uint64_t initrd_size)
{
	const uint64_t bp = BOARD_BOOT_PARAMS;

	ck_assert_uint_eq(entry.protocol, LOAD_LINUX64);
	ck_assert_uint_eq(entry.rsi, bp);
	ck_assert_uint_eq(entry.rbx, 0);
	ck_assert_uint_eq(get(bp + 0x070, 8), BOARD_ACPI);
	ck_assert_uint_eq(get(bp + 0x1fe, 2), 0xaa55);
	ck_assert_uint_eq(get(bp + 0x202, 4), 0x53726448);
	ck_assert_uint_ge(get(bp + 0x206, 2), 0x20c);
	ck_assert_uint_eq(get(bp + 0x210, 1), 0xff); /* type_of_loader */
	ck_assert_uint_eq(get(bp + 0x211, 1) & 0xc1,
			  1); /* loadflags: LOADED_HIGH, no heap, no KEEP_SEGMENTS */
	ck_assert_uint_eq(get(bp + 0x218, 4), initrd);
	ck_assert_uint_eq(get(bp + 0x21c, 4), initrd_size);
	ck_assert_uint_eq(get(bp + 0x0c0, 4), 0);
	ck_assert_uint_eq(get(bp + 0x0c4, 4), 0);
	ck_assert_uint_eq(get(bp + 0x224, 4), 0); /* heap_end_ptr, ext_loader_* */
	ck_assert_uint_eq(get(bp + 0x228, 4), BOARD_CMDLINE);
	ck_assert_uint_eq(get(bp + 0x0c8, 4), 0); /* ext_cmd_line_ptr */
	ck_assert_uint_eq(get(bp + 0x250, 8), 0); /* setup_data */
	ck_assert(all_zero(bp, 0x070));
	ck_assert(all_zero(bp + 0x078, 0x1e8 - 0x078));
	ck_assert(all_zero(bp + 0x1e9, 0x1f1 - 0x1e9)); /* the sentinel too */
	ck_assert(all_zero(bp + 0x26c, 0x2d0 - 0x26c));
	check_e820(mem_size);
	check_gdt(0x00af9b000000ffff);
	check_page_tables();
	ck_assert(all_zero(0, BOARD_GDT));
	ck_assert(all_zero(BOARD_PVH_INFO, PAGE));
}

static void check_start_info(uint64_t initrd, uint64_t initrd_size)
{
	const uint64_t si = BOARD_PVH_INFO;
	struct range r[9];
	unsigned n = expected_map(r, mem_size);
	uint64_t map = get(si + 40, 8), mod = get(si + 16, 8);

	ck_assert_uint_eq(entry.protocol, LOAD_PVH32);
	ck_assert_uint_eq(entry.rbx, si);
	ck_assert_uint_eq(entry.rsi, 0);
	ck_assert_uint_eq(get(si, 4), 0x336ec578);
	ck_assert_uint_eq(get(si + 4, 4), 1);
	ck_assert_uint_eq(get(si + 8, 4), 0);
	ck_assert_uint_eq(get(si + 12, 4), initrd_size != 0);
	ck_assert_uint_eq(get(si + 24, 8), BOARD_CMDLINE);
	ck_assert_uint_eq(get(si + 32, 8), BOARD_ACPI);
	ck_assert_uint_eq(get(si + 48, 4), n);
	ck_assert_uint_eq(get(si + 52, 4), 0);
	ck_assert(map >= si + 56 && map + n * 24 <= si + PAGE);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_eq(get(map + i * 24, 8), r[i].gpa);
		ck_assert_uint_eq(get(map + i * 24 + 8, 8), r[i].size);
		ck_assert_uint_eq(get(map + i * 24 + 16, 8), r[i].type);
	}
	if (initrd_size) {
		ck_assert(mod >= si + 56 && mod + 32 <= si + PAGE);
		ck_assert(mod + 32 <= map || map + n * 24 <= mod);
		ck_assert_uint_eq(get(mod, 8), initrd);
		ck_assert_uint_eq(get(mod + 8, 8), initrd_size);
		ck_assert(all_zero(mod + 16, 16));
	} else {
		ck_assert_uint_eq(mod, 0);
	}
	check_gdt(0x00cf9b000000ffff);
	ck_assert(all_zero(BOARD_BOOT_PARAMS, BOARD_CMDLINE - BOARD_BOOT_PARAMS));
}

static void check_elf_contents(const struct image *im)
{
	ck_assert_mem_eq(at(0x100000), im->b + ELF_TEXT, 0x40);
	ck_assert(all_zero(0x100040, 0x200000 - 0x100040));
	ck_assert_mem_eq(at(0x200000), im->b + ELF_DATA, 0x21);
	ck_assert(all_zero(0x200021, 0x202000 - 0x200021));
}

/* ---- good images ---- */

START_TEST(elf_linux)
{
	struct image im;

	make_elf(&im);
	par.cmdline = "console=ttyS0 quiet";
	load_ok(&im);
	ck_assert_uint_eq(entry.rip, 0x100010);
	check_elf_contents(&im);
	check_boot_params(0, 0);
	check_cmdline("console=ttyS0 quiet");
}
END_TEST

/* As a Linux, and by PVH: the map is what par says. */
static void load_both_ways(void)
{
	struct image im;

	make_elf(&im);
	load_ok(&im);
	check_boot_params(0, 0);
	close_files();
	free_memory();
	make_pvh(&im, 4, 4);
	load_ok(&im);
	check_start_info(0, 0);
}

/* With eight places for devices on PCI. */
START_TEST(elf_with_nine_buses)
{
	par.pci_buses = 1 + BOARD_MAX_PLACES;
	load_both_ways();
}
END_TEST

/* With memory for enclaves: reserved, and the last entry. */
START_TEST(elf_with_enclaves)
{
	par.epc = (struct mem_region){.gpa = 6 * GIB, .size = 64 * MIB + PAGE};
	load_both_ways();
}
END_TEST

START_TEST(elf_smallest_vm)
{
	struct image im;

	make_elf(&im);
	put(&im, EH(e_type), ET_DYN, 2);
	mem_size = BOARD_MIN_MEM;
	load_ok(&im);
	check_elf_contents(&im);
	check_boot_params(0, 0);
	check_cmdline("");
}
END_TEST

START_TEST(elf_pvh)
{
	static const unsigned shape[][2] = {{4, 4}, {8, 4}, {4, 8}, {8, 8}};
	struct image im;

	make_pvh(&im, shape[_i][0], shape[_i][1]);
	if (_i == 1)
		add_initrd(8, 5000);
	par.cmdline = "pvh";
	load_ok(&im);
	ck_assert_uint_eq(entry.rip, 0x100020);
	check_elf_contents(&im);
	check_start_info(_i == 1 ? 64 * MIB - 2 * PAGE : 0, _i == 1 ? 5000 : 0);
	check_cmdline("pvh");
}
END_TEST

/* p_align that is neither 4 nor 8 means 4; notes without room for the last padding; the segment may
 * also be loaded. */
START_TEST(elf_pvh_odd_notes)
{
	struct image im;

	make_pvh(&im, 4, 4);
	put(&im, PH(2, p_align), 1, 8);
	load_ok(&im);
	ck_assert_uint_eq(entry.protocol, LOAD_PVH32);
	close_files();
	make_elf(&im);
	put(&im, PH(2, p_type), PT_NOTE, 4);
	put(&im, PH(2, p_offset), ELF_NOTE, 8);
	put_note(&im, ELF_NOTE, 1, "AB", 7, 1, 4);
	put(&im, PH(2, p_filesz), 17, 8); /* 12 + "AB\0" + pad + 1 */
	load_ok(&im);
	ck_assert_uint_eq(entry.protocol, LOAD_LINUX64);
}
END_TEST

START_TEST(elf_headers_in_a_segment)
{
	struct image im;

	make_elf(&im);
	put(&im, PH(0, p_offset), 0, 8);
	put(&im, PH(0, p_filesz), im.len, 8);
	put(&im, PH(0, p_memsz), im.len, 8);
	put(&im, PH(2, p_type), PT_GNU_STACK, 4);
	load_ok(&im);
	ck_assert_mem_eq(at(0x100000), im.b, im.len);
	ck_assert(all_zero(0x100000 + im.len, 0x1000));
}
END_TEST

/* Segments that go to the first and up to the last byte they may; contents beyond the part that is
 * read first. */
START_TEST(elf_edges)
{
	struct image im;

	make_elf(&im);
	fill(&im, 0x1000, 0x3000);
	mem_size = BOARD_MIN_MEM;
	put(&im, PH(0, p_offset), 0xff0, 8); /* across the end of what is read first */
	put(&im, PH(0, p_filesz), 0x3010, 8);
	put(&im, PH(0, p_memsz), 0x100000, 8);
	put(&im, PH(1, p_memsz), 14 * MIB, 8);
	load_ok(&im);
	ck_assert_mem_eq(at(0x100000), im.b + 0xff0, 0x3010);
	close_files();
	put(&im, PH(1, p_memsz), 14 * MIB + 1, 8);
	free_memory();
	setup();
	mem_size = BOARD_MIN_MEM;
	refused(&im, -ENOSPC, "need 17 MiB, the VM has 16");
	put(&im, PH(1, p_memsz), 14 * MIB, 8);
	put(&im, PH(0, p_memsz), 0x100001, 8);
	refused(&im, -ENOEXEC, "overlaps another one");
}
END_TEST

START_TEST(bzimage)
{
	struct image im;

	make_bzimage(&im);
	fill(&im, im.len, 100); /* a signature after the kernel is not loaded */
	par.cmdline = "quiet";
	load_ok(&im);
	ck_assert_uint_eq(entry.rip, BZ_PREF + 0x200);
	ck_assert_mem_eq(at(BZ_PREF), im.b + BZ_SETUP, BZ_BODY);
	ck_assert(all_zero(BZ_PREF + BZ_BODY, 0x10000));
	check_boot_params(0, 0);
	check_cmdline("quiet");
	/* The header as it is in the file, but for the loader's fields. */
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x1f2, 2), 1);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x206, 2), 0x20f);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x211, 1), LOADED_HIGH | QUIET_FLAG);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x214, 4), BZ_PREF);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x1fa, 2), 0xffff);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x258, 8), BZ_PREF);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x268, 4), 0x1234);
}
END_TEST

START_TEST(bzimage_header_lengths)
{
	struct image im;

	make_bzimage(&im);
	put(&im, 0x201, 0x66, 1); /* protocol 2.12: up to 0x268 */
	load_ok(&im);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x268, 4), 0);
	close_files();
	put(&im, 0x201, 0x8e, 1); /* all the room there is: fields newer than this program */
	load_ok(&im);
	ck_assert_uint_eq(get(BOARD_BOOT_PARAMS + 0x26c, 8), ~0ull);
	ck_assert(all_zero(BOARD_BOOT_PARAMS + 0x290, 0x2d0 - 0x290));
}
END_TEST

START_TEST(bzimage_odd_fields)
{
	struct image im;

	make_bzimage(&im);
	put(&im, HDR(setup_sects), 0, 1); /* means 4 */
	put(&im, HDR(init_size), 1, 4);   /* less than the kernel itself */
	put(&im, HDR(relocatable_kernel), 0, 1);
	put(&im, HDR(kernel_alignment), 0, 4);
	put(&im, HDR(pref_address), 0x101000, 8);
	mem_size = BOARD_MIN_MEM;
	load_ok(&im);
	ck_assert_uint_eq(entry.rip, 0x101200);
	ck_assert_mem_eq(at(0x101000), im.b + BZ_SETUP, BZ_BODY);
}
END_TEST

START_TEST(memory_maps)
{
	static const uint64_t mem[] = {16 * MIB,       128 * MIB, 3 * GIB - PAGE, 3 * GIB,
				       3 * GIB + PAGE, 4 * GIB,   6 * GIB};
	struct image im;

	mem_size = mem[_i];
	make_elf(&im);
	load_ok(&im);
	check_boot_params(0, 0);
	close_files();
	free_memory();
	make_pvh(&im, 8, 4);
	load_ok(&im);
	check_start_info(0, 0);
}
END_TEST

/* ---- initrd ---- */

START_TEST(initrd_one)
{
	static const uint64_t size[] = {1, 4, 4095, 4096, 4097, 3 * MIB + 1};
	struct image im;
	uint64_t padded = (size[_i] + 3) & ~3ull;
	uint64_t gpa = (64 * MIB - padded) & ~(PAGE - 1);

	make_bzimage(&im);
	add_initrd(1, size[_i]);
	load_ok(&im);
	check_boot_params(gpa, padded);
	ck_assert_uint_eq(get(gpa, 1), 1);
	ck_assert(all_zero(gpa + 1, 64 * MIB - gpa - 1));
}
END_TEST

START_TEST(initrd_two)
{
	struct image im;
	uint64_t gpa = 64 * MIB - PAGE;

	make_bzimage(&im);
	add_initrd(5, 5);
	add_initrd(7, 7);
	set_memory(mem_size);
	memset(at(gpa), 0xee, PAGE); /* even if it is not zero, the padding is */
	load_ok(&im);
	check_boot_params(gpa, 16);
	ck_assert_mem_eq(at(gpa), "\1\2\3\4\5\0\0\0\1\2\3\4\5\6\7\0", 16);
	ck_assert_uint_eq(get(gpa + 16, 1), 0xee);
}
END_TEST

START_TEST(initrd_below_its_limit)
{
	struct image im;

	make_bzimage(&im);
	put(&im, HDR(initrd_addr_max), 40 * MIB - 1, 4);
	add_initrd(8, 2 * PAGE);
	load_ok(&im);
	check_boot_params(40 * MIB - 2 * PAGE, 2 * PAGE);
	close_files();
	free_memory();
	/* Linux: 2 GiB; and never above the low part of memory. */
	put(&im, HDR(initrd_addr_max), BZ_INITRD_MAX, 4);
	mem_size = 6 * GIB;
	add_initrd(8, PAGE);
	load_ok(&im);
	check_boot_params(2 * GIB - PAGE, PAGE);
	close_files();
	free_memory();
	put(&im, HDR(initrd_addr_max), 0xffffffff, 4);
	add_initrd(8, PAGE);
	load_ok(&im);
	check_boot_params(3 * GIB - PAGE, PAGE);
}
END_TEST

START_TEST(initrd_just_fits)
{
	struct image im;
	uint64_t floor = BZ_PREF + BZ_INIT;

	make_bzimage(&im);
	add_initrd(8, 64 * MIB - floor);
	load_ok(&im);
	check_boot_params(floor, 64 * MIB - floor);
	close_files();
	free_memory();
	setup();
	add_initrd(8, 64 * MIB - floor + 1);
	refused(&im, -ENOSPC,
		"initrd: 48234500 bytes do not fit between the end of the kernel at 0x1200000 and "
		"0x4000000: together they need 65 MiB");
	/* The end of an ELF kernel is that of its highest bss. */
	make_elf(&im);
	add_initrd(8, 64 * MIB - 0x202000);
	load_ok(&im);
	check_boot_params(0x202000, 64 * MIB - 0x202000);
	close_files();
	free_memory();
	setup();
	add_initrd(8, 64 * MIB - 0x201000);
	refused(&im, -ENOSPC, "do not fit between the end of the kernel at 0x202000");
}
END_TEST

START_TEST(initrd_bad)
{
	struct image im;
	char huge[80];

	make_bzimage(&im);
	add_initrd(0, 0);
	refused(&im, -EINVAL, "initrd 1: the file is empty");
	add_initrd(8, 8);
	add_initrd(0, 0);
	refused(&im, -EINVAL, "initrd 2: the file is empty");
	add_initrd(8, 65 * MIB);
	refused(&im, -ENOSPC, "initrd 1: 68157440 bytes, the VM has 64 MiB");
	add_initrd(8, 30 * MIB);
	add_initrd(8, 30 * MIB);
	refused(&im, -ENOSPC, "initrd: 62914560 bytes do not fit");
	add_initrd(8, HOST_FILE_MAX);
	add_initrd(8, HOST_FILE_MAX);
	snprintf(huge, sizeof(huge), "initrd 1: %llu bytes", HOST_FILE_MAX);
	refused(&im, -ENOSPC, huge);
	put(&im, HDR(initrd_addr_max), 0, 4);
	add_initrd(8, 8);
	refused(&im, -ENOSPC, "initrd: 8 bytes do not fit");
	par.initrd_fd[par.ninitrds++] = host_pipe();
	refused(&im, -EINVAL, "initrd 1: not a regular file");
	par.initrd_fd[par.ninitrds++] = 9999;
	refused(&im, HOST_NO_FILE, "initrd 1: ");
	par.ninitrds = VMM_MAX_INITRDS + 1;
	ck_assert_int_eq(load(&im), -EINVAL);
	ck_assert_str_eq(err.text, "initrd: 3 parts, expected at most 2");
	par.ninitrds = 0;
}
END_TEST

/* ---- what is going to be written from end to end ---- */

static unsigned dense(uint64_t kernel, uint64_t initrd, uint64_t mem,
		      struct load_range r[LOAD_DENSE_MAX])
{
	struct load_image img = {.end = 16 * MIB + kernel, .nsegs = 2};
	struct load_initrd rd = {.size = initrd};
	struct guestmem memory = board_of(mem);

	/* Segments need not ascend. */
	img.seg[0] = (struct load_seg){.gpa = 16 * MIB + kernel / 2, .memsz = kernel / 2};
	img.seg[1] = (struct load_seg){.gpa = 16 * MIB, .memsz = kernel / 2};
	if (initrd)
		rd.gpa = (mem < BOARD_LOW_RAM_END ? mem : BOARD_LOW_RAM_END) - initrd;
	return load_dense(&img, &rd, &memory, r);
}

static void expect_range(struct load_range r, uint64_t from, uint64_t to)
{
	ck_assert_uint_eq(r.from, from);
	ck_assert_uint_eq(r.to, to);
}

START_TEST(dense_places)
{
	struct load_range r[LOAD_DENSE_MAX];

	/* Debian's kernel in 128 MiB: 23 MiB above it, and 2 + 5.75 MiB below the initrd. */
	ck_assert_uint_eq(dense(46 * MIB, 2 * MIB, 128 * MIB, r), 2);
	expect_range(r[0], 16 * MIB, 86 * MIB);
	expect_range(r[1], 126 * MIB - 2 * MIB - 46 * MIB / 8, 128 * MIB);
	/* A payload: itself, and its initrd. */
	ck_assert_uint_eq(dense(MIB, MIB, 128 * MIB, r), 2);
	expect_range(r[0], 16 * MIB, 17 * MIB);
	expect_range(r[1], 127 * MIB, 128 * MIB);
	ck_assert_uint_eq(dense(MIB, 0, 128 * MIB, r), 2);
	ck_assert_uint_eq(r[1].from, r[1].to);
	/* Memory on both sides of the hole: tables at the end of the upper part. */
	ck_assert_uint_eq(dense(40 * MIB, 4 * MIB, BOARD_LOW_RAM_END + 1024 * MIB, r), 3);
	expect_range(r[0], 16 * MIB, 76 * MIB);
	expect_range(r[1],
		     BOARD_HIGH_RAM + 1024 * MIB - BOARD_LOW_RAM_END / 64 - 16 * MIB - 5 * MIB,
		     BOARD_HIGH_RAM + 1024 * MIB);
	expect_range(r[2], BOARD_LOW_RAM_END - 4 * MIB, BOARD_LOW_RAM_END);
	/* An upper part that is smaller than they are. */
	ck_assert_uint_eq(dense(40 * MIB, 0, BOARD_LOW_RAM_END + 4096, r), 3);
	expect_range(r[1], BOARD_HIGH_RAM, BOARD_HIGH_RAM + 4096);
}
END_TEST

/* A bzImage may want its initrd far below the end of memory: the space between is not filled. */
START_TEST(dense_far_initrd)
{
	struct load_image img = {.end = 76 * MIB, .nsegs = 1};
	struct load_initrd rd = {.gpa = 2046 * MIB, .size = 2 * MIB};
	struct guestmem memory = board_of(3072 * MIB);
	struct load_range r[LOAD_DENSE_MAX];

	img.seg[0] = (struct load_seg){.gpa = 16 * MIB, .memsz = 60 * MIB};
	ck_assert_uint_eq(load_dense(&img, &rd, &memory, r), 3);
	expect_range(r[0], 16 * MIB, 106 * MIB);
	expect_range(r[1], 3072 * MIB - 48 * MIB - 60 * MIB / 8, 3072 * MIB);
	expect_range(r[2], 2046 * MIB, 2048 * MIB);
}
END_TEST

/* However little room there is: disjoint, and RAM. */
START_TEST(dense_stays_in_memory)
{
	for (uint64_t kernel = MIB; kernel <= 100 * MIB; kernel += 3 * MIB) {
		for (uint64_t initrd = 0; initrd <= 60 * MIB; initrd += 4096 * 333) {
			uint64_t mem = 16 * MIB + kernel + initrd + (kernel % 7) * 4096;
			struct load_range r[LOAD_DENSE_MAX];

			ck_assert_uint_eq(dense(kernel, initrd, mem, r), 2);
			ck_assert(r[0].from == 16 * MIB && r[0].to >= 16 * MIB + kernel &&
				  r[0].to <= r[1].from && r[1].from <= r[1].to && r[1].to <= mem);
		}
	}
}
END_TEST

/* ---- command line ---- */

START_TEST(cmdline_length)
{
	static char text[BOARD_CMDLINE_MAX + 8];
	struct image im;

	make_bzimage(&im);
	memset(text, 'x', 2047);
	par.cmdline = text;
	load_ok(&im);
	check_cmdline(text);
	close_files();
	free_memory();
	setup();
	par.cmdline = text;
	text[2047] = 'x';
	refused(&im, -E2BIG, "command line: 2048 characters, this kernel takes at most 2047");
	make_elf(&im);
	refused(&im, -E2BIG, "command line: 2048 characters, this kernel takes at most 2047");
	make_bzimage(&im);
	put(&im, HDR(cmdline_size), 0xffffffff, 4); /* the board has a limit too */
	memset(text, 'x', BOARD_CMDLINE_MAX);
	refused(&im, -E2BIG, "command line: 65536 characters, this kernel takes at most 65535");
	text[BOARD_CMDLINE_MAX - 1] = 0;
	load_ok(&im);
	check_cmdline(text);
	ck_assert_uint_eq(get(BOARD_CMDLINE + BOARD_CMDLINE_MAX, 8), 0);
}
END_TEST

/* ---- bad images: one field changed ---- */

struct patch {
	size_t off;
	unsigned size;
	uint64_t value;
	int code;
	const char *words;
};

static const struct patch bad_elf[] = {
	{EI_CLASS, 1, ELFCLASS32, -ENOEXEC, "kernel: a 32-bit ELF, expected ELF64 for x86-64"},
	{EI_CLASS, 1, 0, -ENOEXEC, "ELF class 0"},
	{EI_DATA, 1, ELFDATA2MSB, -ENOEXEC, "data 2"},
	{EI_VERSION, 1, 9, -ENOEXEC, "version 9"},
	{EH(e_machine), 2, EM_AARCH64, -ENOEXEC, "e_machine 183, expected 62 (x86-64)"},
	{EH(e_type), 2, ET_REL, -ENOEXEC, "e_type 1"},
	{EH(e_type), 2, ET_CORE, -ENOEXEC, "e_type 4"},
	{EH(e_phentsize), 2, 55, -ENOEXEC, "e_phentsize 55"},
	{EH(e_phnum), 2, 0, -ENOEXEC, "e_phnum 0"},
	{EH(e_phnum), 2, 33, -ENOEXEC, "e_phnum 33"},
	{EH(e_phnum), 2, 0xffff, -ENOEXEC, "e_phnum 65535"},
	{EH(e_phoff), 8, 0x10000, -ENOEXEC, "truncated: the ELF program header table"},
	{EH(e_phoff), 8, ~0ull, -ENOEXEC, "truncated: the ELF program header table"},
	{EH(e_phoff), 8, ~0ull - 100, -ENOEXEC, "truncated: the ELF program header table"},
	{EH(e_entry), 8, 0xffffffff80100010, -ENOEXEC,
	 "e_entry 0xffffffff80100010 is in no segment"},
	{EH(e_entry), 8, 0, -ENOEXEC, "e_entry 0x0 is in no segment"},
	{EH(e_entry), 8, 0x100040, -ENOEXEC, "e_entry 0x100040 is in no segment"},
	{EH(e_entry), 8, 0xfffff, -ENOEXEC, "e_entry 0xfffff is in no segment"},
	{PH(0, p_filesz), 8, 0x41, -ENOEXEC,
	 "segment 0: p_filesz 0x41 is larger than p_memsz 0x40"},
	{PH(0, p_offset), 8, 0x300, -ENOEXEC,
	 "truncated: ELF segment 0 has 0x40 bytes at 0x300, the file has 0x321"},
	{PH(0, p_offset), 8, ~0ull, -ENOEXEC, "truncated: ELF segment 0"},
	{PH(0, p_offset), 8, 0ull - 0x20, -ENOEXEC, "truncated: ELF segment 0"},
	{PH(0, p_paddr), 8, 0, -ENOEXEC,
	 "segment 0: p_paddr 0x0 overlaps the boot structures, expected 0x100000"},
	{PH(0, p_paddr), 8, 0xfffff, -ENOEXEC,
	 "segment 0: p_paddr 0xfffff overlaps the boot structures"},
	{PH(0, p_paddr), 8, 0x7000, -ENOEXEC, "overlaps the boot structures"},
	{PH(0, p_paddr), 8, 0x1ffff0, -ENOEXEC,
	 "segment 1 at 0x200000 overlaps another one at 0x1ffff0"},
	{PH(1, p_paddr), 8, 0x100000, -ENOEXEC,
	 "segment 1 at 0x100000 overlaps another one at 0x100000"},
	{PH(0, p_paddr), 8, ~0ull, -ENOEXEC, "p_paddr 0xffffffffffffffff and p_memsz 0x40"},
	{PH(0, p_paddr), 8, 0ull - 0x20, -ENOEXEC, "expected to end below 0xc0000000"},
	{PH(0, p_paddr), 8, 0x100000000, -ENOEXEC, "expected to end below 0xc0000000"},
	{PH(0, p_paddr), 8, 0xbfffffc1, -ENOEXEC, "expected to end below 0xc0000000"},
	{PH(0, p_paddr), 8, 0xbfffffc0, -ENOSPC, "need 3072 MiB, the VM has 64"},
	{PH(1, p_memsz), 8, 64 * MIB, -ENOSPC,
	 "segment 1: p_paddr 0x200000 and p_memsz 0x4000000 need 66 MiB"},
	{PH(1, p_memsz), 8, ~0ull, -ENOEXEC,
	 "segment 1: p_paddr 0x200000 and p_memsz 0xffffffffffffffff"},
	{PH(2, p_type), 4, PT_INTERP, -ENOEXEC, "dynamically linked"},
};

START_TEST(elf_refused)
{
	const struct patch *p = &bad_elf[_i];
	struct image im;

	make_elf(&im);
	put(&im, p->off, p->value, p->size);
	refused(&im, p->code, p->words);
}
END_TEST

static const struct patch bad_pvh[] = {
	{PH(2, p_offset), 8, 0x10000, -ENOEXEC, "truncated: PT_NOTE"},
	{PH(2, p_offset), 8, ~0ull, -ENOEXEC, "truncated: PT_NOTE"},
	{PH(2, p_filesz), 8, ~0ull, -ENOEXEC, "truncated: PT_NOTE"},
	{ELF_NOTE, 4, 0xffffffff, -ENOEXEC, "n_namesz 4294967295"},
	{ELF_NOTE, 4, 0x200, -ENOEXEC, "n_namesz 512"},
	{ELF_NOTE + 4, 4, 0xffffffff, -ENOEXEC, "n_descsz 4294967295"},
	{ELF_NOTE + 24 + 24 + 20 + 4, 4, 5, -ENOEXEC, "n_descsz 5 exceed PT_NOTE"},
	{ELF_NOTE + 24 + 24 + 20 + 4, 4, 0, -ENOEXEC, "PVH note: n_descsz 0, expected 4 or 8"},
	{ELF_NOTE + 24 + 24 + 20 + 4, 4, 3, -ENOEXEC, "PVH note: n_descsz 3, expected 4 or 8"},
	{ELF_NOTE + 24 + 24 + 20 + 16, 4, 0x300000, -ENOEXEC,
	 "PVH entry 0x300000 is in no segment"},
};

START_TEST(pvh_refused)
{
	const struct patch *p = &bad_pvh[_i];
	struct image im;

	make_pvh(&im, 4, 4);
	put(&im, p->off, p->value, p->size);
	refused(&im, p->code, p->words);
}
END_TEST

/* A segment of empty notes is finite, but no reason to look at each of them. */
START_TEST(pvh_endless_notes)
{
	struct image im;

	make_elf(&im);
	im.len = sizeof(im.b);
	put(&im, PH(2, p_type), PT_NOTE, 4);
	put(&im, PH(2, p_offset), 0x800, 8);
	put(&im, PH(2, p_filesz), 1024 * 12 + 11, 8); /* the rest is too short for one */
	load_ok(&im);
	free_memory();
	close_files();
	setup();
	put(&im, PH(2, p_filesz), 1025 * 12, 8);
	refused(&im, -ENOEXEC, "more than 1024 ELF notes");
}
END_TEST

START_TEST(elf_nothing_to_load)
{
	struct image im;

	make_elf(&im);
	put(&im, PH(0, p_type), PT_NOTE, 4);
	put(&im, PH(1, p_memsz), 0, 8);
	refused(&im, -ENOEXEC, "ELF without a segment to load");
}
END_TEST

static const struct patch bad_bzimage[] = {
	{0x201, 1, 0x65, -ENOEXEC, "setup header ends at 0x267, expected 0x268 to 0x290"},
	{0x201, 1, 0x8f, -ENOEXEC, "setup header ends at 0x291"},
	{HDR(boot_flag), 2, 0, -ENOEXEC, "boot_flag 0x0000, expected 0xaa55"},
	{HDR(version), 2, 0x020b, -ENOEXEC, "boot protocol 2.11, expected 2.12 or newer"},
	{HDR(version), 2, 0, -ENOEXEC, "boot protocol 0.00"},
	{HDR(loadflags), 1, 0, -ENOEXEC, "a zImage"},
	{HDR(xloadflags), 2, 0x7e, -ENOEXEC, "xloadflags 0x007e: a 32-bit kernel"},
	{HDR(setup_sects), 1, 255, -ENOEXEC, "truncated: setup_sects 255"},
	{HDR(syssize), 4, BZ_SYSSIZE + 1, -ENOEXEC,
	 "truncated: setup_sects 4 and syssize 0x101 make 6672 bytes, the file has 6656"},
	{HDR(syssize), 4, 0xffffffff, -ENOEXEC, "truncated: setup_sects 4 and syssize 0xffffffff"},
	{HDR(syssize), 4, 0, -ENOEXEC, "syssize 0x0: nothing at the 64-bit entry"},
	{HDR(syssize), 4, 0x20, -ENOEXEC, "syssize 0x20: nothing at the 64-bit entry"},
	{HDR(payload_offset), 4, 0x1001, -ENOEXEC, "payload_offset 0x1001"},
	{HDR(payload_length), 4, 0xfffffff0, -ENOEXEC, "payload_length 0xfffffff0"},
	{HDR(kernel_alignment), 4, 0, -ENOEXEC, "kernel_alignment 0x0"},
	{HDR(kernel_alignment), 4, 0x800, -ENOEXEC, "kernel_alignment 0x800"},
	{HDR(kernel_alignment), 4, 0x300000, -ENOEXEC, "kernel_alignment 0x300000"},
	{HDR(pref_address), 8, 0, -ENOEXEC, "pref_address 0x0, expected 0x100000 or more"},
	{HDR(pref_address), 8, 0x1001000, -ENOEXEC,
	 "pref_address 0x1001000, expected 0x100000 or more, aligned to 0x200000"},
	{HDR(pref_address), 8, 0xffffffffffe00000, -ENOEXEC, "expected to end below 0xc0000000"},
	{HDR(pref_address), 8, 0xbfe00000 + 0x200000, -ENOEXEC, "expected to end below 0xc0000000"},
	{HDR(pref_address), 8, 0xbfe00000, -ENOSPC, "need 3072 MiB, the VM has 64"},
	{HDR(init_size), 4, 0xffffffff, -ENOEXEC,
	 "init_size 0xffffffff, expected to end below 0xc0000000"},
	{HDR(init_size), 4, 48 * MIB + 1, -ENOSPC,
	 "pref_address 0x1000000 and init_size 0x3000001 need 65 MiB, the VM has 64"},
};

START_TEST(bzimage_refused)
{
	const struct patch *p = &bad_bzimage[_i];
	struct image im;

	make_bzimage(&im);
	put(&im, p->off, p->value, p->size);
	refused(&im, p->code, p->words);
}
END_TEST

/* Cut anywhere, an image is refused; no byte of it is optional. */
START_TEST(truncated)
{
	struct image im;
	size_t full, step;

	if (_i == 0)
		make_elf(&im);
	else if (_i == 1)
		make_pvh(&im, 8, 4);
	else
		make_bzimage(&im);
	set_memory(mem_size);
	full = im.len;
	for (im.len = 0; im.len < full; im.len += step) {
		int rc = load(&im);

		step = im.len < 0x400 ? 1 : 61;
		if (rc != -ENOEXEC || !err.text[0])
			ck_abort_msg("%zu of %zu bytes: %d %s", im.len, full, rc, err.text);
		close_files();
	}
	ck_assert(all_zero(0, 20 * MIB));
	im.len = full;
	load_ok(&im);
}
END_TEST

/* ---- not kernels at all ---- */

static const struct {
	uint8_t b[64];
	size_t len;
	const char *words;
} mistakes[] = {
	{{0}, 0, "kernel: the file is empty"},
	{{'x'}, 1, "neither an ELF image nor a bzImage"},
	{{0x7f, 'E', 'L', 'F'},
	 4,
	 "truncated: the ELF header needs 64 bytes at offset 0, the file has 4 bytes"},
	{{0x7f, 'E', 'L', 'F', 1}, 5, "a 32-bit ELF"},
	{{0x1f, 0x8b, 8}, 64, "compressed with gzip: decompress it first"},
	{{0xfd, '7', 'z', 'X', 'Z', 0}, 64, "compressed with xz"},
	{{0x28, 0xb5, 0x2f, 0xfd}, 64, "compressed with zstd"},
	{{0x04, 0x22, 0x4d, 0x18}, 64, "compressed with lz4"},
	{{0x02, 0x21, 0x4c, 0x18}, 64, "compressed with lz4"},
	{{'B', 'Z', 'h', '9'}, 64, "compressed with bzip2"},
	{{0x89, 'L', 'Z', 'O'}, 64, "compressed with lzop"},
	{{0x5d, 0, 0, 0x80}, 64, "compressed with lzma"},
	{{'M', 'Z', [56] = 'A', 'R', 'M', 'd'}, 64, "Image for ARM64"},
	{{'M', 'Z', [56] = 'R', 'S', 'C', 5}, 64, "Image for RISC-V"},
	{{'M', 'Z', [56] = 'A', 'R', 'M'}, 59, "neither an ELF image nor a bzImage"},
	{{'0', '7', '0', '7', '0', '1'}, 64, "a cpio archive: an initrd"},
	{{'#', '!', '/', 'b', 'i', 'n'}, 64, "a script"},
	{{0xde, 0xad}, 64, "64 bytes that begin with de ad"},
};

START_TEST(not_a_kernel)
{
	struct image im = {.len = mistakes[_i].len};

	memcpy(im.b, mistakes[_i].b, sizeof(mistakes[_i].b));
	refused(&im, -ENOEXEC, mistakes[_i].words);
}
END_TEST

START_TEST(compressed_garbage)
{
	struct image im = {.len = sizeof(im.b)};
	uint32_t seed = 12345;

	for (size_t i = 0; i < im.len; i++)
		im.b[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
	refused(&im, -ENOEXEC, "neither an ELF image nor a bzImage");
}
END_TEST

START_TEST(bad_descriptors)
{
	par.kernel_fd = -1;
	refused(NULL, HOST_NO_FILE, "kernel: ");
	par.kernel_fd = host_open(HOST_NULL);
	refused(NULL, -EINVAL, "kernel: not a regular file");
	par.kernel_fd = host_open("/"); /* which Windows does not open */
	refused(NULL, -EINVAL, "kernel: not a regular file");
	par.kernel_fd = host_pipe();
	refused(NULL, -EINVAL, "kernel: not a regular file");
}
END_TEST

/* The offset of a descriptor is somebody else's: nothing depends on it, and where the system can
 * read without moving it, it stays. */
START_TEST(offset_is_kept)
{
	struct image im;

	make_elf(&im);
	par.kernel_fd = host_file(im.b, im.len, im.len);
	ck_assert_uint_eq(host_seek(par.kernel_fd, 7), im.len);
	load_ok(NULL);
	if (HOST_FILE_POSITION)
		ck_assert_uint_eq(host_seek(par.kernel_fd, 0), 7);
}
END_TEST

START_TEST(caller_mistakes)
{
	struct guestmem bad[] = {
		{.nregions = 0},
		{.nregions = 1, .region = {{.gpa = 0, .size = MIB}}},
		{.nregions = 1, .region = {{.gpa = PAGE, .size = 64 * MIB}}},
		{.nregions = 1, .region = {{.gpa = BOARD_HIGH_RAM, .size = 64 * MIB}}},
		{.nregions = 2,
		 .region = {{.size = 64 * MIB}, {.gpa = BOARD_HIGH_RAM - PAGE, .size = PAGE}}},
		{.nregions = 2,
		 .region = {{.size = 64 * MIB},
			    {.gpa = BOARD_LOW_RAM_END - PAGE, .size = 2 * PAGE}}},
	};
	struct image im;

	make_elf(&im);
	set_memory(64 * MIB);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		bad[i].region[0].host = gm.region[0].host;
		par.gm = &bad[i];
		refused(&im, -EINVAL, "guest memory does not fit the board");
	}
	par.gm = &gm;
}
END_TEST

/* ---- registers ---- */

static void check_flat(const struct hv_seg *s, unsigned selector, unsigned attr)
{
	ck_assert_uint_eq(s->base, 0);
	ck_assert_uint_eq(s->limit, 0xffffffff);
	ck_assert_uint_eq(s->selector, selector);
	ck_assert_uint_eq(s->attr, attr);
}

static void check_common_regs(const struct hv_regs *r, const struct load_entry *x)
{
	const struct hv_seg *data[] = {&r->ds, &r->es, &r->fs, &r->gs, &r->ss};

	for (unsigned i = 0; i < 5; i++)
		check_flat(data[i], 0x18, 0xc93);
	ck_assert_uint_eq(r->rip, x->rip);
	ck_assert_uint_eq(r->rsi, x->rsi);
	ck_assert_uint_eq(r->rbx, x->rbx);
	ck_assert_uint_eq(r->rsp, BOARD_BOOT_STACK);
	ck_assert_uint_eq(r->rflags, 2); /* IF clear */
	ck_assert_uint_eq(r->tr.attr, 0x8b);
	ck_assert_uint_eq(r->tr.limit, 0x67);
	ck_assert_uint_eq(r->gdt_base, BOARD_GDT);
	ck_assert_uint_eq(r->gdt_limit, 31);
	ck_assert_uint_eq(r->rax | r->rcx | r->rdx | r->rdi | r->rbp | r->r8 | r->r15 | r->cr2, 0);
}

START_TEST(registers)
{
	const struct load_entry linux64 = {
		.protocol = LOAD_LINUX64, .rip = 0x1000200, .rsi = 0x7000};
	const struct load_entry pvh = {.protocol = LOAD_PVH32, .rip = 0x1000000, .rbx = 0x6000};
	struct hv_regs r;

	memset(&r, 0xff, sizeof(r));
	load_entry_regs(&linux64, &r);
	check_common_regs(&r, &linux64);
	check_flat(&r.cs, 0x10, 0xa9b);
	ck_assert_uint_eq(r.cr0, 0x80000011);
	ck_assert_uint_eq(r.cr3, BOARD_PAGE_TABLES);
	ck_assert_uint_eq(r.cr4, 0x20);
	ck_assert_uint_eq(r.efer, 0x500);
	memset(&r, 0xff, sizeof(r));
	load_entry_regs(&pvh, &r);
	check_common_regs(&r, &pvh);
	check_flat(&r.cs, 0x10, 0xc9b);
	ck_assert_uint_eq(r.cr0, 0x11);
	ck_assert_uint_eq(r.cr3 | r.cr4 | r.efer, 0);
}
END_TEST

/* ---- a real one ---- */

START_TEST(real_kernel)
{
	static const uint8_t parts[] = {0x1f, 0x8b}; /* any bytes will do */
	uint64_t pref, init;
	mem_size = 128 * MIB;
	par.kernel_fd = host_open("build/guest/vmlinuz");
	if (par.kernel_fd < 0) {
		printf("load: no build/guest/vmlinuz: only images made here were loaded\n");
		return;
	}
	par.initrd_fd[par.ninitrds++] = host_file(parts, sizeof(parts), sizeof(parts));
	load_ok(NULL);
	check_boot_params(128 * MIB - PAGE, 4);
	pref = get(BOARD_BOOT_PARAMS + 0x258, 8);
	init = get(BOARD_BOOT_PARAMS + 0x260, 4);
	ck_assert_uint_eq(entry.rip, pref + 0x200);
	ck_assert(pref >= MIB && init > MIB && pref + init < 128 * MIB);
	ck_assert(!all_zero(pref, PAGE) && !all_zero(entry.rip, 16));
	free_memory();
	setup();
	mem_size = BOARD_MIN_MEM;
	par.kernel_fd = -1;
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, elf_linux);
	tcase_add_test(tc, elf_with_nine_buses);
	tcase_add_test(tc, elf_with_enclaves);
	tcase_add_test(tc, elf_smallest_vm);
	tcase_add_loop_test(tc, elf_pvh, 0, 4);
	tcase_add_test(tc, elf_pvh_odd_notes);
	tcase_add_test(tc, elf_headers_in_a_segment);
	tcase_add_test(tc, elf_edges);
	tcase_add_test(tc, bzimage);
	tcase_add_test(tc, bzimage_header_lengths);
	tcase_add_test(tc, bzimage_odd_fields);
	tcase_add_loop_test(tc, memory_maps, 0, 7);
	tcase_add_loop_test(tc, initrd_one, 0, 6);
	tcase_add_test(tc, initrd_two);
	tcase_add_test(tc, initrd_below_its_limit);
	tcase_add_test(tc, initrd_just_fits);
	tcase_add_test(tc, initrd_bad);
	tcase_add_test(tc, dense_places);
	tcase_add_test(tc, dense_far_initrd);
	tcase_add_test(tc, dense_stays_in_memory);
	tcase_add_test(tc, cmdline_length);
	tcase_add_loop_test(tc, elf_refused, 0, sizeof(bad_elf) / sizeof(bad_elf[0]));
	tcase_add_loop_test(tc, pvh_refused, 0, sizeof(bad_pvh) / sizeof(bad_pvh[0]));
	tcase_add_test(tc, pvh_endless_notes);
	tcase_add_test(tc, elf_nothing_to_load);
	tcase_add_loop_test(tc, bzimage_refused, 0, sizeof(bad_bzimage) / sizeof(bad_bzimage[0]));
	tcase_add_loop_test(tc, truncated, 0, 3);
	tcase_add_loop_test(tc, not_a_kernel, 0, sizeof(mistakes) / sizeof(mistakes[0]));
	tcase_add_test(tc, compressed_garbage);
	tcase_add_test(tc, bad_descriptors);
	tcase_add_test(tc, offset_is_kept);
	tcase_add_test(tc, caller_mistakes);
	tcase_add_test(tc, registers);
	tcase_add_test(tc, real_kernel);
}

int main(void)
{
	Suite *s = suite_create("load");
	TCase *tc = tcase_create("load");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	add_tests(tc);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
