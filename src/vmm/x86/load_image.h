/* SPDX-License-Identifier: BSD-2-Clause */
/* Between the parts of the loader: the file being read, and the plan that the parsers make of it.
 * See load.h. */
#ifndef VMM_LOAD_IMAGE_H
#define VMM_LOAD_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load.h"

#define LOAD_HEAD \
	4096 /* bytes read at once from the start of a kernel: all headers of usual images */
#define LOAD_MAX_PHDRS 32   /* program headers of an ELF image */
#define LOAD_MAX_NOTES 1024 /* notes looked at while searching the PVH entry */
#define LOAD_HDR_OFF 0x1f1  /* setup header: from here in the file and in struct boot_params ... */
#define LOAD_HDR_END 0x290  /* ... at most to here, where the next field of boot_params begins */

/* Linux on x86 keeps this many characters of a command line (COMMAND_LINE_SIZE less the NUL). A
 * bzImage says its own number; an ELF image cannot, and a command line that is silently cut is
 * worse than a refusal. */
#define LOAD_ELF_CMDLINE_MAX 2047

struct load_file {
	int fd;
	const char *what; /* "kernel", "initrd 1": begins every message */
	uint64_t size;
	size_t head_len;
	uint8_t head[LOAD_HEAD];
};

struct load_seg { /* memory [gpa, gpa + memsz) from the file's [off, off + filesz); the rest stays
		     zero */
	uint64_t gpa, memsz, off, filesz;
};

struct load_image {
	enum load_protocol protocol;
	uint64_t entry;
	uint64_t end; /* the kernel needs nothing at or above this before it knows its memory map */
	uint64_t initrd_limit; /* the initrd must end at or below this */
	uint64_t cmdline_max;  /* characters, without the NUL */
	unsigned nsegs;
	struct load_seg seg[LOAD_MAX_PHDRS];
	size_t hdr_len; /* setup header of a bzImage, as it is in the file */
	uint8_t hdr[LOAD_HDR_END - LOAD_HDR_OFF];
};

struct load_initrd {
	uint64_t gpa, size; /* size 0: none */
};

#define LOAD_DENSE_MAX 3
struct load_range {
	gpa_t from, to;
};

/* ---- load.c ---- */
/* Read [off, off + len) of the file. What is in `head` is taken from there: a byte that has been
 * checked is never read again. -ENOEXEC if the range is not in the file, and `field` says whose
 * range it was. */
int load_read(const struct load_file *f, const char *field, uint64_t off, void *buf, uint64_t len,
	      struct err *e);
/* Whole MiB, rounded up: for messages. */
uint64_t load_mib(uint64_t bytes);
/* What is written from end to end until the guest has booted, disjoint, all of it RAM: the kernel
 * and the initrd, and where Linux lies down for good (see load.c). Returns how many. */
unsigned load_dense(const struct load_image *img, const struct load_initrd *initrd,
		    const struct guestmem *gm, struct load_range out[LOAD_DENSE_MAX]);

/* ---- load_elf.c, load_bzimage.c: check, and fill the plan; [BOARD_KERNEL, low_end) is there for
 * it ---- */
bool load_is_elf(const struct load_file *f);
int load_parse_elf(const struct load_file *f, uint64_t low_end, struct load_image *img,
		   struct err *e);
bool load_is_bzimage(const struct load_file *f);
int load_parse_bzimage(const struct load_file *f, uint64_t low_end, struct load_image *img,
		       struct err *e);

/* ---- load_map.c ---- */
#define LOAD_MAP_RAM 1 /* ACPI 6.5, chapter 15; PVH uses the same numbers */
#define LOAD_MAP_RESERVED 2
#define LOAD_MAP_ACPI 3

struct load_map {
	unsigned n;
	struct load_map_entry {
		uint64_t gpa, size;
		uint32_t type;
	} entry[6 + MEMMAP_MAX];
};
/* The memory map of the board, ascending and disjoint. */
void load_map_make(struct load_map *map, const struct load_params *p);

/* ---- load_bootparams.c, load_pvh.c: write what the guest finds in rsi or ebx. `low` is gpa 0 ..
 * BOARD_KERNEL. ---- */
void load_write_boot_params(uint8_t *low, const struct load_params *p, const struct load_image *img,
			    const struct load_initrd *initrd);
void load_write_start_info(uint8_t *low, const struct load_params *p,
			   const struct load_initrd *initrd);

/* ---- load_cpu.c ---- */
/* GDT, and for LOAD_LINUX64 the identity page tables. */
void load_write_cpu_tables(uint8_t *low, enum load_protocol protocol);

#endif
