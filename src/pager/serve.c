/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory that is filled when it is touched. See serve.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <insula/base.h>
#include <insula/log.h>

#include "serve.h"

#define ZERO_STEP (2ull << 20)
#define NO_BLOCK UINT32_MAX
#define ALL_PAGES ((1u << RAM_PAGES) - 1)
/* The working set is written so long after the first fault, and again: a VM may be killed. */
static const uint64_t write_ns[] = {50000000ull, 250000000ull, 1000000000ull, 4000000000ull};
/* So many pages asked for in a row, and the rest of the block comes with them. */
#define ROW 4u

/* In front of the blocks. */
struct order_head {
	char magic[8];
	uint32_t n, crc;
};
#define ORDER_MAGIC "INSWSET3"

/* ---- the working set ---- */

static size_t set_size(const struct serve *s)
{
	return s->n * sizeof(*s->set);
}

static uint32_t set_crc(const struct serve *s)
{
	return (uint32_t)crc32(crc32(0, NULL, 0), (const Bytef *)s->set, (uInt)set_size(s));
}

/* Each block once, and none beyond the memory. */
static bool set_places(struct serve *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t b = s->set[i].block;

		if (b >= ram_blocks(s->ram) || s->place[b])
			return false;
		s->place[b] = i + 1;
	}
	return true;
}

/* One that is damaged, or of another time, costs nothing but the prefetch. It may be longer than
 * the one that takes its place. */
static void read_order(struct serve *s)
{
	struct order_head h;
	struct stat st;

	if (fstat(s->order, &st) || read_full(s->order, &h, sizeof(h), 0) ||
	    memcmp(h.magic, ORDER_MAGIC, sizeof(h.magic)) != 0 || h.n > ram_blocks(s->ram) ||
	    (uint64_t)st.st_size < sizeof(h) + h.n * sizeof(*s->set) ||
	    read_full(s->order, s->set, h.n * sizeof(*s->set), sizeof(h)))
		return;
	s->n = h.n;
	s->replays = h.n && set_crc(s) == h.crc && set_places(s);
	if (!s->replays) {
		s->n = 0;
		memset(s->place, 0, ram_blocks(s->ram) * sizeof(*s->place));
	}
	s->end = s->n;
}

static void write_order(struct serve *s)
{
	struct order_head h = {.n = s->n};

	if (!s->changed)
		return;
	s->changed = false;
	memcpy(h.magic, ORDER_MAGIC, sizeof(h.magic));
	h.crc = set_crc(s);
	if (pwrite(s->order, s->set, set_size(s), sizeof(h)) < 0 ||
	    pwrite(s->order, &h, sizeof(h), 0) < 0)
		log_info("the working set cannot be written: %s", strerror(errno));
}

static void note(struct serve *s, uint32_t b, unsigned page)
{
	struct serve_block *w;

	if (!s->records)
		return;
	if (!s->begun_ns)
		s->begun_ns = clock_ns();
	if (!s->place[b]) {
		s->set[s->n] = (struct serve_block){.block = b};
		s->place[b] = ++s->n;
	}
	w = &s->set[s->place[b] - 1];
	s->changed |= !(w->pages >> page & 1);
	w->pages |= (uint16_t)(1u << page);
}

int serve_open(struct serve *s, struct ram *ram, int order, struct err *e)
{
	*s = (struct serve){.ram = ram, .block = NO_BLOCK, .order = order};
	s->checked = reserve_memory(ram_blocks(s->ram) / 8 + 1, true);
	if (!s->checked)
		return err_set(e, -ENOMEM, "out of memory");
	if (order < 0)
		return 0;
	s->set = reserve_memory(ram_blocks(s->ram) * sizeof(*s->set), true);
	s->place = reserve_memory(ram_blocks(s->ram) * sizeof(*s->place), true);
	if (!s->set || !s->place)
		return err_set(e, -ENOMEM, "out of memory");
	s->records = (fcntl(order, F_GETFL) & O_ACCMODE) == O_RDWR;
	return 0;
}

static void wake(const struct range *r, uint64_t at, uint64_t len)
{
	struct uffdio_range w = {.start = r->addr + at, .len = len};

	(void)ioctl(r->fd, UFFDIO_WAKE, &w);
}

int serve_add(struct serve *s, int fd, uint64_t offset, uint64_t addr, uint64_t len, struct err *e)
{
	struct range *r = ranges_add(&s->ranges, s->ram->size, fd, offset, addr, len, e);

	if (!r)
		return e->code;
	wake(r, 0, len);
	return 0;
}

/* ---- filling ---- */

static int fetch_page(struct serve *s, unsigned page, struct err *e)
{
	const uint8_t *at = s->ram->buf[0] + page * RAM_PAGE;
	int rc = ram_page(s->ram, s->block, page, e);

	if (rc)
		return rc;
	s->held |= 1u << page;
	if (!mem_is_zero(at, RAM_PAGE))
		s->present |= 1u << page;
	return 0;
}

/* All of block b, whose sum is checked. */
static int fetch_block(struct serve *s, uint32_t b, struct err *e)
{
	uint16_t present;
	int rc = ram_compose(s->ram, b, &present, e);

	if (rc)
		return rc;
	s->held = ALL_PAGES;
	s->present = present;
	s->checked[b / 8] |= (uint8_t)(1u << b % 8);
	return 0;
}

/* `pages` of block b are in the buffer, and perhaps others. */
static int fetch(struct serve *s, uint32_t b, unsigned pages, struct err *e)
{
	int rc = 0;

	if (s->block != b) {
		s->block = b;
		s->held = s->present = 0;
		if (!(s->checked[b / 8] >> b % 8 & 1))
			rc = fetch_block(s, b, e);
	}
	for (unsigned i = 0; i < RAM_PAGES && !rc; i++) {
		if (pages & ~s->held & 1u << i)
			rc = fetch_page(s, i, e);
	}
	if (rc)
		s->block = NO_BLOCK;
	return rc;
}

/* `n` bytes of the buffer, from `from` on, to `at` of the range. What is there already stays. -ESRCH:
 * the process has ended. */
static int put(struct serve *s, const struct range *r, uint64_t at, size_t from, size_t n)
{
	while (n) {
		struct uffdio_copy c = {.dst = r->addr + at,
					.src = (uint64_t)(uintptr_t)(s->ram->buf[0] + from),
					.len = n};
		size_t done = 0;

		if (!ioctl(r->fd, UFFDIO_COPY, &c))
			return 0;
		if (errno != EAGAIN && errno != EEXIST)
			return -errno;
		if (c.copy > 0)
			done = (size_t)c.copy;
		if (errno == EEXIST && !done) {
			wake(r, at, RAM_PAGE);
			done = RAM_PAGE;
		}
		at += done;
		from += done;
		n -= done;
	}
	return 0;
}

/* Those `pages` of the block in the buffer that are not zero and in the range. */
static int put_pages(struct serve *s, const struct range *r, unsigned pages)
{
	uint64_t start = (uint64_t)s->block * RAM_BLOCK;

	pages &= s->present;
	for (unsigned i = 0; i < RAM_PAGES; i++) {
		uint64_t off = start + i * RAM_PAGE;
		unsigned n = 0;
		int rc;

		while (pages >> (i + n) & 1)
			n++;
		if (!n || off < r->offset || off + n * RAM_PAGE > r->offset + r->len)
			continue;
		rc = put(s, r, off - r->offset, i * RAM_PAGE, n * RAM_PAGE);
		if (rc)
			return rc;
		i += n;
	}
	return 0;
}

static bool block_is_zero(const struct serve *s, uint32_t b)
{
	for (unsigned i = 0; i < s->ram->n; i++) {
		if (s->ram->file[i].block[b].present)
			return false;
	}
	return true;
}

/* The kernel's from now on: the largest piece around that the snapshot has as zeros. False: there
 * is none, but for the page itself. */
static bool give_away(struct serve *s, const struct range *r, uint64_t off)
{
	uint64_t from = off & ~(ZERO_STEP - 1), to = from + ZERO_STEP;
	struct uffdio_range u;

	if (to > s->ram->size)
		to = s->ram->size;
	for (uint64_t b = from / RAM_BLOCK; b * RAM_BLOCK < to; b++) {
		if (block_is_zero(s, (uint32_t)b))
			continue;
		if (b == off / RAM_BLOCK)
			return false;
		if (b < off / RAM_BLOCK)
			from = (b + 1) * RAM_BLOCK;
		else
			to = b * RAM_BLOCK;
	}
	from = from < r->offset ? r->offset : from;
	to = to > r->offset + r->len ? r->offset + r->len : to;
	u = (struct uffdio_range){.start = r->addr + (from - r->offset), .len = to - from};
	/* It wakes whoever waits in it. */
	return !ioctl(r->fd, UFFDIO_UNREGISTER, &u);
}

static int put_zero(const struct range *r, uint64_t at)
{
	struct uffdio_zeropage z = {.range = {.start = r->addr + at, .len = RAM_PAGE}};

	if (!ioctl(r->fd, UFFDIO_ZEROPAGE, &z))
		return 0;
	if (errno == EEXIST)
		wake(r, at, RAM_PAGE);
	return errno == EEXIST || errno == EAGAIN ? 0 : -errno;
}

/* What is filled of block b when its page `page` is asked for. */
static unsigned wanted(struct serve *s, uint32_t b, unsigned page)
{
	uint64_t asked = (uint64_t)b * RAM_PAGES + page;
	unsigned pages = 1u << page;

	s->row = asked == s->next ? s->row + 1 : 1;
	if (s->row >= ROW)
		pages = ALL_PAGES & ~(pages - 1);
	s->next = s->row >= ROW ? (b + 1ull) * RAM_PAGES : asked + 1;
	return pages;
}

static int on_fault(void *ctx, struct range *r, uint64_t addr, struct err *e)
{
	struct serve *s = ctx;
	uint64_t off = r->offset + ((addr & ~(uint64_t)(RAM_PAGE - 1)) - r->addr);
	uint32_t b = (uint32_t)(off / RAM_BLOCK);
	unsigned page = (unsigned)(off % RAM_BLOCK / RAM_PAGE);
	unsigned pages;
	int rc;

	if (block_is_zero(s, b) && give_away(s, r, off))
		return 0;
	note(s, b, page);
	pages = wanted(s, b, page);
	rc = fetch(s, b, pages, e);
	if (rc)
		return rc;
	rc = s->present >> page & 1 ? put_pages(s, r, 1u << page) : put_zero(r, off - r->offset);
	if (!rc)
		(void)put_pages(s, r, pages & ~(1u << page)); /* they are asked for later */
	/* Its process has ended, or this is no range of memory: nobody else has to suffer for it. */
	if (rc && rc != -ENOENT)
		fd_close(&r->fd);
	return 0;
}

/* ---- turns ---- */

/* `pages` of block b into the first process that takes them: page tables as well as pages. -EAGAIN:
 * none does. */
static int put_block(struct serve *s, uint32_t b, unsigned pages, struct err *e)
{
	uint64_t off = (uint64_t)b * RAM_BLOCK;
	int rc;

	if (block_is_zero(s, b))
		return 0;
	rc = fetch(s, b, pages, e);
	if (rc)
		return rc;
	for (unsigned i = 0; i < s->ranges.n; i++) {
		struct range *r = &s->ranges.range[i];

		if (r->fd < 0 || off < r->offset || off >= r->offset + r->len)
			continue;
		rc = put_pages(s, r, pages);
		if (!rc)
			return 0;
		if (rc != -ENOENT)
			fd_close(&r->fd);
	}
	return err_set(e, -EAGAIN, "nobody takes the memory at %llu", (unsigned long long)off);
}

static int prefetch(struct serve *s, struct err *e)
{
	const struct serve_block *w = &s->set[s->at++];
	int rc = put_block(s, w->block, w->pages, e);

	if (s->at == s->end)
		s->replays = false;
	return rc == -EAGAIN ? 0 : rc; /* they are asked for later */
}

/* Of a guest that goes on meanwhile: one block, and what is zero on the way to it. */
static int fill_some(struct serve *s, struct err *e)
{
	while (s->fill_at < ram_blocks(s->ram) && block_is_zero(s, s->fill_at))
		s->fill_at++;
	if (s->fill_at < ram_blocks(s->ram))
		return put_block(s, s->fill_at++, ALL_PAGES, e);
	s->fills = false;
	s->whole = true;
	return 0;
}

int serve_turn(struct serve *s, int channel, bool *heard, struct err *e)
{
	int timeout = -1, rc;

	if (s->records && s->begun_ns) {
		uint64_t now = clock_ns(), due = s->begun_ns + write_ns[s->writes];

		if (now >= due) {
			s->records = ++s->writes < ARRAY_LEN(write_ns);
			write_order(s);
		}
		timeout = now < due ? (int)((due - now) / 1000000) + 1 : 0;
	}
	if (s->replays || s->fills)
		timeout = 0;
	rc = ranges_turn(&s->ranges, channel, timeout, heard, on_fault, s, e);
	if (!rc && s->fills && s->ranges.n)
		rc = fill_some(s, e);
	else if (!rc && s->replays && s->ranges.n)
		rc = prefetch(s, e);
	return rc;
}

/* The working set that is there is followed when the first range has come. */
void serve_begin(struct serve *s)
{
	if (s->order >= 0)
		read_order(s);
}

void serve_stop(struct serve *s)
{
	s->records = false;
	write_order(s);
}

void serve_fill(struct serve *s)
{
	s->fills = true;
	s->fill_at = 0;
}
