/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The boot loader with any file as the kernel. Input: the kernel, then 8 bytes that choose the rest
 * (struct choice), so that a corpus file is an image with a tail.
 *
 * Besides not crashing: guest memory lies between pages without access; a refusal has a text and
 * has written nothing; what was loaded is consistent: entry in RAM above the boot structures,
 * initrd in RAM and not in the kernel, page tables as they must be.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/board.h>

#include "vmm/x86/load.h"
#include "must.h"

#define PAGE ((size_t)BOARD_PAGE)
#define MOST_RAM (64ull << 20)
#define BP(off) (BOARD_BOOT_PARAMS + (off))

struct choice {
	uint8_t mem;      /* MiB beyond the smallest VM, modulo what there is */
	uint8_t ninitrds; /* modulo 3 */
	uint16_t cmdline; /* length */
	uint32_t initrd;  /* length of each part, modulo 128 MiB */
};
_Static_assert(sizeof(struct choice) == 8, "the tail of an input");

struct fixture {
	uint8_t *ram;
	int kernel, initrd;
	char cmdline[UINT16_MAX + 1];
};

/* Made once: a run is short, and mapping is not what is tested. */
static struct fixture *fixture(void)
{
	static struct fixture f;

	if (f.ram)
		return &f;
	f.ram = mmap(NULL, MOST_RAM + 2 * PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	MUST(f.ram != MAP_FAILED);
	f.ram += PAGE;
	f.kernel = memfd_create("kernel", MFD_CLOEXEC);
	f.initrd = memfd_create("initrd", MFD_CLOEXEC);
	MUST(f.kernel >= 0 && f.initrd >= 0);
	memset(f.cmdline, 'c', sizeof(f.cmdline));
	return &f;
}

static uint64_t get(const uint8_t *ram, uint64_t gpa, unsigned n)
{
	uint64_t v = 0;

	memcpy(&v, ram + gpa, n);
	return v;
}

static void check_zero(const uint8_t *p, size_t n)
{
	for (; n >= sizeof(uint64_t); n -= sizeof(uint64_t), p += sizeof(uint64_t)) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		MUST(v == 0);
	}
}

static void check_map(const uint8_t *ram, uint64_t table, uint64_t n, unsigned stride, uint64_t mem)
{
	uint64_t end = 0, top = 0;

	MUST(n >= 4 && n <= 8);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t gpa = get(ram, table + i * stride, 8),
			 size = get(ram, table + i * stride + 8, 8);

		MUST(gpa >= end && size > 0 && size <= UINT64_MAX - gpa);
		end = gpa + size;
		if (get(ram, table + i * stride + 16, 4) == 1)
			top = end;
	}
	MUST(top == mem);
}

static void check_initrd(uint64_t gpa, uint64_t size, uint64_t expected, uint64_t rip, uint64_t mem)
{
	MUST(size == expected);
	if (size)
		MUST(gpa % PAGE == 0 && gpa >= BOARD_KERNEL && size <= mem - gpa && rip < gpa);
}

static void check_loaded(const uint8_t *ram, const struct load_entry *x, uint64_t mem,
			 uint64_t initrd, size_t cmdline)
{
	struct hv_regs r;

	MUST(x->rip >= BOARD_KERNEL && x->rip < mem);
	MUST(strlen((const char *)ram + BOARD_CMDLINE) == cmdline);
	check_zero(ram, BOARD_GDT);
	check_zero(ram + 0x30000, BOARD_RESET_CODE - 0x30000);
	if (x->protocol == LOAD_PVH32) {
		MUST(x->rbx == BOARD_PVH_INFO);
		check_map(ram, get(ram, x->rbx + 40, 8), get(ram, x->rbx + 48, 4), 24, mem);
		uint64_t mod = get(ram, x->rbx + 16, 8);
		check_initrd(mod ? get(ram, mod, 8) : 0, mod ? get(ram, mod + 8, 8) : 0, initrd,
			     x->rip, mem);
	} else {
		MUST(x->protocol == LOAD_LINUX64 && x->rsi == BOARD_BOOT_PARAMS);
		MUST(get(ram, BP(0x228), 4) == BOARD_CMDLINE && get(ram, BP(0x250), 8) == 0);
		check_map(ram, BP(0x2d0), get(ram, BP(0x1e8), 1), 20, mem);
		check_initrd(get(ram, BP(0x218), 4), get(ram, BP(0x21c), 4), initrd, x->rip, mem);
		MUST(get(ram, BOARD_PAGE_TABLES + 2 * PAGE + 8, 8) == 0x200083);
	}
	load_entry_regs(x, &r);
	MUST(r.rip == x->rip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture *f = fixture();
	struct choice c;
	struct load_entry entry = {.rip = 0};
	struct err e = {0};
	uint64_t mem, total;

	if (size < sizeof(c))
		return 0;
	size -= sizeof(c);
	memcpy(&c, data + size, sizeof(c));
	c.initrd %= 128u << 20;
	c.ninitrds %= 3;
	mem = BOARD_MIN_MEM + ((uint64_t)c.mem << 20) % (MOST_RAM - BOARD_MIN_MEM + 1);
	total = c.ninitrds * (((uint64_t)c.initrd + 3) & ~3ull);

	MUST(!mprotect(f->ram, MOST_RAM, PROT_NONE) && !madvise(f->ram, MOST_RAM, MADV_DONTNEED));
	MUST(!mprotect(f->ram, mem, PROT_READ | PROT_WRITE));
	MUST(!ftruncate(f->kernel, 0) && pwrite(f->kernel, data, size, 0) == (ssize_t)size);
	MUST(!ftruncate(f->initrd, (off_t)c.initrd));
	f->cmdline[c.cmdline] = 0;

	struct guestmem gm = {.nregions = 1, .region = {{0, mem, f->ram}}};
	struct load_params p = {.gm = &gm,
				.kernel_fd = f->kernel,
				.initrd_fd = {f->initrd, f->initrd},
				.ninitrds = c.ninitrds,
				.cmdline = f->cmdline,
				.acpi_rsdp = BOARD_ACPI,
				.pci_buses = 1};
	int rc = load_kernel(&p, &entry, &e);

	if (rc) {
		MUST(rc < 0 && e.code == rc && e.text[0] && !strchr(e.text, '\n'));
		check_zero(f->ram, BOARD_KERNEL);
		MUST(entry.rip == 0);
	} else {
		check_loaded(f->ram, &entry, mem, total, c.cmdline);
	}
	f->cmdline[c.cmdline] = 'c';
	return 0;
}
