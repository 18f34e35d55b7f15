/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A file of guest memory, or two that build on each other. The input: a byte of flags, then for each
 * file its table and tail, then bytes that fill the pages which the table says are there. The flags
 * mend sums, or no change would get beyond them.
 *
 * Besides not crashing: a refusal is one clean line and -EPROTO; memory that was loaded is what the
 * tables say, page by page, and saved again it is loaded as the same.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "pager/ram.h"
#include "must.h"

#define PAGES 18u /* a block, and a short one */
#define SIZE (PAGES * RAM_PAGE)
#define PER_BLOCK (RAM_BLOCK / RAM_PAGE)

enum flags { MEND_TABLE = 1, MEND_PAGES = 2, TWO = 4, MEND_TAIL = 8 };

struct ends {
	struct ram_block block[2];
	struct ram_tail tail;
};

static int files[2] = {-1, -1}, mem = -1, again = -1, copy = -1;
static struct ram in, out, back;
static uint8_t want[SIZE], page[RAM_PAGE];

static void set_up(void)
{
	struct err e;
	int *fd[] = {&files[0], &files[1], &mem, &again, &copy};

	for (unsigned i = 0; i < 5; i++) {
		*fd[i] = memfd_create("ram", MFD_CLOEXEC);
		MUST(*fd[i] >= 0);
	}
	MUST(!ram_open(&out, mem, SIZE, &copy, 1, &e));
	MUST(!ram_open(&back, again, SIZE, &copy, 1, &e));
}

static void clear(int fd, off_t size)
{
	MUST(!ftruncate(fd, 0) && !ftruncate(fd, size));
}

/* Pages of one file, and what they make of `want`. */
static void put_pages(int fd, struct ends *x, const uint8_t *fill, size_t nfill, unsigned flags)
{
	for (unsigned b = 0; b < 2; b++) {
		uLong crc = crc32(0, NULL, 0);

		for (unsigned i = 0; i < PER_BLOCK; i++) {
			unsigned at = b * PER_BLOCK + i;

			if (!(x->block[b].present >> i & 1) || at >= PAGES)
				continue;
			memset(page, nfill ? fill[at % nfill] : (int)at, sizeof(page));
			MUST(pwrite(fd, page, RAM_PAGE, (off_t)at * RAM_PAGE) == RAM_PAGE);
			memcpy(want + (size_t)at * RAM_PAGE, page, RAM_PAGE);
			crc = crc32(crc, page, RAM_PAGE);
		}
		if (flags & MEND_PAGES)
			x->block[b].crc = (uint32_t)crc;
	}
}

static void put_file(int fd, struct ends *x, const uint8_t *fill, size_t nfill, unsigned flags)
{
	clear(fd, SIZE);
	put_pages(fd, x, fill, nfill, flags);
	if (flags & MEND_TAIL) {
		x->tail.size = SIZE;
		x->tail.nblocks = 2;
		memcpy(x->tail.magic, RAM_MAGIC, sizeof(x->tail.magic));
	}
	if (flags & MEND_TABLE)
		x->tail.crc = (uint32_t)crc32(crc32(0, NULL, 0), (const Bytef *)x->block,
					      sizeof(x->block));
	MUST(pwrite(fd, x, sizeof(*x), SIZE) == sizeof(*x));
}

static void must_hold(int fd)
{
	static uint8_t have[SIZE];

	MUST(pread(fd, have, SIZE, 0) == SIZE);
	MUST(!memcmp(have, want, SIZE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned flags, n;
	struct err e = {0};
	struct ends x;
	int rc;

	if (files[0] < 0)
		set_up();
	if (!size)
		return 0;
	flags = *data++;
	size--;
	n = flags & TWO ? 2 : 1;
	if (size < n * sizeof(x))
		return 0;
	memset(want, 0, sizeof(want));
	for (unsigned i = 0; i < n; i++) {
		memcpy(&x, data + i * sizeof(x), sizeof(x));
		put_file(files[i], &x, data + n * sizeof(x), size - n * sizeof(x), flags);
	}
	in.mem = mem;
	if (in.n != n) {
		struct ram fresh;

		/* It allocates for good: the buffers of the last one serve. */
		if (!in.n)
			MUST(!ram_open(&in, mem, SIZE, files, 2, &e));
		fresh = in;
		fresh.n = n;
		in = fresh;
	}
	clear(mem, SIZE);
	rc = ram_load(&in, &e);
	if (rc) {
		MUST(rc == -EPROTO && e.text[0]);
		for (const char *p = e.text; *p; p++)
			MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
		return 0;
	}
	must_hold(mem);
	clear(copy, 0);
	out.pages = 0;
	memset(out.file[0].block, 0, 2 * sizeof(struct ram_block)); /* as a new one has it */
	MUST(!ram_save(&out, &e));
	clear(again, SIZE);
	MUST(!ram_load(&back, &e));
	must_hold(again);
	return 0;
}
