/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of guest memory. See ram.h. */
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include <insula/base.h>

#include "ram.h"

#define MAX_SIZE (1ull << 40)

static const uint8_t zeros[RAM_PAGE];

uint32_t ram_blocks(const struct ram *r)
{
	return (uint32_t)((r->size + RAM_BLOCK - 1) / RAM_BLOCK);
}

static size_t table_size(const struct ram *r)
{
	return (size_t)ram_blocks(r) * sizeof(struct ram_block);
}

/* Pages of block b: the last one may be short. */
static unsigned pages_of(const struct ram *r, uint32_t b)
{
	uint64_t left = (r->size - (uint64_t)b * RAM_BLOCK) / RAM_PAGE;

	return left < RAM_PAGES ? (unsigned)left : RAM_PAGES;
}

int ram_open(struct ram *r, int mem, uint64_t size, const int *files, unsigned n, struct err *e)
{
	*r = (struct ram){.mem = mem, .size = size, .n = n};
	if (!size || size % RAM_PAGE || size > MAX_SIZE)
		return err_set(e, -EINVAL, "memory of %llu bytes", (unsigned long long)size);
	if (!n || n > RAM_CHAIN)
		return err_set(e, -EINVAL, "%u files of memory; expected 1 to %u", n, RAM_CHAIN);
	for (unsigned i = 0; i < n; i++) {
		r->file[i].fd = files[i];
		r->file[i].block = reserve_memory(table_size(r), true);
		if (!r->file[i].block)
			return err_set(e, -ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < ARRAY_LEN(r->buf); i++) {
		r->buf[i] = reserve_memory(RAM_BLOCK, true);
		if (!r->buf[i])
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

/* ---- what a file has ---- */

static uint32_t crc_of(const uint8_t *block, uint16_t present)
{
	uLong crc = crc32(0, NULL, 0);

	for (unsigned i = 0; i < RAM_PAGES; i++) {
		if (present >> i & 1)
			crc = crc32(crc, block + i * RAM_PAGE, RAM_PAGE);
	}
	return (uint32_t)crc;
}

static uint32_t crc_of_table(const struct ram *r, const struct ram_file *f)
{
	uLong crc = crc32(0, NULL, 0);

	for (uint32_t b = 0; b < ram_blocks(r); b++)
		crc = crc32(crc, (const Bytef *)&f->block[b], sizeof(f->block[b]));
	return (uint32_t)crc;
}

static int check_tail(const struct ram *r, const struct ram_tail *t, struct err *e)
{
	if (memcmp(t->magic, RAM_MAGIC, sizeof(t->magic)) != 0)
		return err_set(e, -EPROTO, "it does not end as a file of memory does");
	if (t->size != r->size)
		return err_set(e, -EPROTO, "it is of a VM with %llu bytes; expected %llu",
			       (unsigned long long)t->size, (unsigned long long)r->size);
	if (t->nblocks != ram_blocks(r))
		return err_set(e, -EPROTO, "it has %u blocks; expected %u", t->nblocks,
			       ram_blocks(r));
	return 0;
}

/* No page beyond the memory. */
static bool table_fits(const struct ram *r, const struct ram_file *f)
{
	uint32_t last = ram_blocks(r) - 1;

	return !(f->block[last].present >> pages_of(r, last));
}

static int read_table(const struct ram *r, struct ram_file *f, struct err *e)
{
	uint64_t want = r->size + table_size(r) + sizeof(struct ram_tail);
	struct ram_tail t;
	uint64_t size;
	int rc = file_size(f->fd, &size);

	if (rc)
		return err_sys(e, rc, "its size");
	if (size < sizeof(t))
		return err_set(e, -EPROTO, "it has %llu bytes", (unsigned long long)size);
	rc = read_full(f->fd, &t, sizeof(t), size - sizeof(t));
	if (rc)
		return err_sys(e, rc, "its end");
	rc = check_tail(r, &t, e);
	if (rc)
		return rc;
	if (size != want)
		return err_set(e, -EPROTO, "it has %llu bytes; expected %llu",
			       (unsigned long long)size, (unsigned long long)want);
	rc = read_full(f->fd, f->block, table_size(r), r->size);
	if (rc)
		return err_sys(e, rc, "its table");
	if (crc_of_table(r, f) != t.crc || !table_fits(r, f))
		return err_set(e, -EPROTO, "its table is damaged");
	return 0;
}

/* In what order files are named in messages: "memory" is the first, whole one. */
static int in_file(struct err *e, unsigned i, int rc)
{
	struct err inner = *e;

	return err_set(e, rc, "memory file %u of the chain: %s", i + 1, inner.text);
}

static int read_tables(struct ram *r, unsigned n, struct err *e)
{
	for (unsigned i = 0; i < n; i++) {
		int rc = read_table(r, &r->file[i], e);

		if (rc)
			return in_file(e, i, rc);
	}
	return 0;
}

/* The run of bits that begins at the first one from *from on; how many, 0: none. */
static unsigned next_run(uint16_t present, unsigned *from)
{
	unsigned n = 0;

	while (*from < RAM_PAGES && !(present >> *from & 1))
		++*from;
	while (*from + n < RAM_PAGES && (present >> (*from + n) & 1))
		n++;
	return n;
}

static int cannot_read(struct err *e, int rc, uint64_t at)
{
	return err_sys(e, rc, "it cannot be read at %llu", (unsigned long long)at);
}

/* What file f has of block b, into `to`; the sum is checked. */
static int read_block(const struct ram_file *f, uint32_t b, uint8_t *to, struct err *e)
{
	uint16_t present = f->block[b].present;
	uint64_t at = (uint64_t)b * RAM_BLOCK;
	unsigned from = 0, n;

	for (; (n = next_run(present, &from)); from += n) {
		int rc = read_full(f->fd, to + from * RAM_PAGE, n * RAM_PAGE, at + from * RAM_PAGE);

		if (rc)
			return cannot_read(e, rc, at);
	}
	if (crc_of(to, present) != f->block[b].crc)
		return err_set(e, -EPROTO, "it is damaged in the %u bytes at %llu", RAM_BLOCK,
			       (unsigned long long)at);
	return 0;
}

/* Block b as the first n files say it, into `to`. 1: it has pages that are not zero, perhaps. */
static int compose(struct ram *r, unsigned n, uint32_t b, uint8_t *to, struct err *e)
{
	uint16_t have = 0;

	memset(to, 0, RAM_BLOCK);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *own = i ? r->buf[1] : to;
		uint16_t present = r->file[i].block[b].present;
		int rc = present ? read_block(&r->file[i], b, own, e) : 0;

		if (rc)
			return in_file(e, i, rc);
		for (unsigned k = 0; k < RAM_PAGES && own != to; k++) {
			if (present >> k & 1)
				memcpy(to + k * RAM_PAGE, own + k * RAM_PAGE, RAM_PAGE);
		}
		have |= present;
	}
	return have != 0;
}

/* ---- save ---- */

typedef int write_fn(int fd, const void *buf, size_t len, uint64_t at);

/* write_full_at(): into a file; shm_write(): into guest memory. */
static int write_pages(struct ram *r, int fd, write_fn *write, uint32_t b, const uint8_t *block,
		       uint16_t present, const char *what, struct err *e)
{
	uint64_t at = (uint64_t)b * RAM_BLOCK;
	unsigned from = 0, n;

	for (; (n = next_run(present, &from)); from += n) {
		int rc = write(fd, block + from * RAM_PAGE, n * RAM_PAGE, at + from * RAM_PAGE);

		if (rc)
			return err_sys(e, rc, "%s cannot be written", what);
		r->pages += n;
	}
	return 0;
}

static uint16_t changed(const uint8_t *now, const uint8_t *before, unsigned npages)
{
	uint16_t bits = 0;

	for (unsigned i = 0; i < npages; i++) {
		const uint8_t *old = before ? before + i * RAM_PAGE : zeros;

		if (memcmp(now + i * RAM_PAGE, old, RAM_PAGE) != 0)
			bits |= (uint16_t)(1u << i);
	}
	return bits;
}

static int save_block(struct ram *r, uint32_t b, bool hole, struct err *e)
{
	static uint8_t base[RAM_BLOCK];
	struct ram_file *out = &r->file[r->n - 1];
	size_t len = pages_of(r, b) * (size_t)RAM_PAGE;
	uint8_t *now = r->buf[0];
	int rc = compose(r, r->n - 1, b, base, e);

	if (rc < 0 || (rc == 0 && hole))
		return rc;
	if (hole)
		memset(now, 0, len);
	else if (shm_read(r->mem, now, len, (uint64_t)b * RAM_BLOCK))
		return err_set(e, -EIO, "guest memory cannot be read");
	out->block[b].present = changed(now, rc ? base : NULL, pages_of(r, b));
	out->block[b].crc = crc_of(now, out->block[b].present);
	return write_pages(r, out->fd, write_full_at, b, now, out->block[b].present,
			   "the snapshot's memory", e);
}

int ram_save_end(struct ram *r, struct err *e)
{
	const struct ram_file *out = &r->file[r->n - 1];
	struct ram_tail t = {.size = r->size, .pages = r->pages, .nblocks = ram_blocks(r)};
	int rc;

	memcpy(t.magic, RAM_MAGIC, sizeof(t.magic));
	t.crc = crc_of_table(r, out);
	rc = write_full_at(out->fd, out->block, table_size(r), r->size);
	if (!rc)
		rc = write_full_at(out->fd, &t, sizeof(t), r->size + table_size(r));
	return rc ? err_sys(e, rc, "the snapshot's table cannot be written") : 0;
}

int ram_save_begin(struct ram *r, struct err *e)
{
	r->asked = r->data = 0; /* the memory is another one than last time */
	return read_tables(r, r->n - 1, e);
}

int ram_save_block(struct ram *r, uint32_t b, struct err *e)
{
	uint64_t from = (uint64_t)b * RAM_BLOCK;

	/* In order, one question answers for all blocks up to the next data. */
	if (from < r->asked || from >= r->data) {
		r->asked = from;
		r->data = shm_data(r->mem, from, r->size);
	}
	return save_block(r, b, r->data >= from + RAM_BLOCK, e);
}

int ram_save(struct ram *r, struct err *e)
{
	int rc = ram_save_begin(r, e);

	for (uint32_t b = 0; b < ram_blocks(r) && !rc; b++)
		rc = ram_save_block(r, b, e);
	return rc ? rc : ram_save_end(r, e);
}

/* ---- load ---- */

int ram_check(struct ram *r, struct err *e)
{
	return read_tables(r, r->n, e);
}

int ram_compose(struct ram *r, uint32_t b, uint16_t *present, struct err *e)
{
	int rc = compose(r, r->n, b, r->buf[0], e);

	*present = rc > 0 ? changed(r->buf[0], NULL, pages_of(r, b)) : 0;
	return rc < 0 ? rc : 0;
}

int ram_page(struct ram *r, uint32_t b, unsigned page, struct err *e)
{
	uint8_t *to = r->buf[0] + page * RAM_PAGE;
	uint64_t at = (uint64_t)b * RAM_BLOCK + page * RAM_PAGE;

	for (unsigned i = r->n; i-- > 0;) {
		int rc;

		if (!(r->file[i].block[b].present >> page & 1))
			continue;
		rc = read_full(r->file[i].fd, to, RAM_PAGE, at);
		return rc ? in_file(e, i, cannot_read(e, rc, at)) : 0;
	}
	memset(to, 0, RAM_PAGE);
	return 0;
}

int ram_load(struct ram *r, struct err *e)
{
	int rc = ram_check(r, e);

	for (uint32_t b = 0; b < ram_blocks(r) && !rc; b++) {
		uint16_t present;

		rc = ram_compose(r, b, &present, e);
		if (!rc && present)
			rc = write_pages(r, r->mem, shm_write, b, r->buf[0], present,
					 "guest memory", e);
	}
	return rc;
}
