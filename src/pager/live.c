/* SPDX-License-Identifier: BSD-2-Clause */
/* See live.h. */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <insula/base.h>

#include "live.h"

#define LET_BLOCKS 32u /* at once, in order: 2 MiB, what a page table has */

int live_open(struct live *l, struct ram *ram, struct err *e)
{
	*l = (struct live){.ram = ram, .saved = reserve_memory(ram_blocks(ram) / 8 + 1, true)};
	return l->saved ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int live_add(struct live *l, int fd, uint64_t offset, uint64_t addr, uint64_t len, struct err *e)
{
	struct uffdio_register u = {.range = {.start = addr, .len = len},
				    .mode = UFFDIO_REGISTER_MODE_WP};
	const struct range *r = ranges_add(&l->ranges, l->ram->size, fd, offset, addr, len, e);

	if (!r)
		return e->code;
	return ioctl(fd, UFFDIO_REGISTER, &u) ? err_sys(e, -errno, "userfaultfd") : 0;
}

static int protect(const struct range *r, uint64_t from, uint64_t to, bool on)
{
	struct uffdio_writeprotect w = {
		.range = {.start = r->addr + (from - r->offset), .len = to - from},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};

	/* Another thread of the process changes its mappings. */
	while (ioctl(r->fd, UFFDIO_WRITEPROTECT, &w)) {
		if (errno != EAGAIN)
			return -errno;
	}
	return 0;
}

int live_freeze(struct live *l, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < l->ranges.n && !rc; i++) {
		const struct range *r = &l->ranges.range[i];

		rc = protect(r, r->offset, r->offset + r->len, true);
	}
	return rc ? err_sys(e, rc, "guest memory cannot be write-protected") : 0;
}

/* Whoever waits for blocks [from, to) goes on. */
static void let_go(struct live *l, uint32_t from, uint32_t to)
{
	uint64_t first = (uint64_t)from * RAM_BLOCK, end = (uint64_t)to * RAM_BLOCK;

	for (unsigned i = 0; i < l->ranges.n; i++) {
		struct range *r = &l->ranges.range[i];
		uint64_t a = first < r->offset ? r->offset : first;
		uint64_t b = end > r->offset + r->len ? r->offset + r->len : end;

		if (r->fd >= 0 && a < b && protect(r, a, b, false))
			fd_close(&r->fd); /* its process has ended */
	}
}

static int save_once(struct live *l, uint32_t b, struct err *e)
{
	int rc = l->saved[b / 8] >> b % 8 & 1 ? 0 : ram_save_block(l->ram, b, e);

	l->saved[b / 8] |= (uint8_t)(1u << b % 8);
	return rc;
}

static int on_write(void *ctx, struct range *r, uint64_t addr, struct err *e)
{
	struct live *l = ctx;
	uint32_t b = (uint32_t)((r->offset + (addr - r->addr)) / RAM_BLOCK);
	int rc = save_once(l, b, e);

	if (!rc)
		let_go(l, b, b + 1);
	return rc;
}

static int save_next(struct live *l, struct err *e)
{
	uint32_t n = ram_blocks(l->ram);
	int rc = save_once(l, l->at, e);

	if (rc)
		return rc;
	l->at++;
	if (l->at - l->let >= LET_BLOCKS || l->at == n) {
		let_go(l, l->let, l->at);
		l->let = l->at;
	}
	if (l->at < n)
		return 0;
	l->whole = true;
	return ram_save_end(l->ram, e);
}

int live_turn(struct live *l, int channel, bool *heard, struct err *e)
{
	int rc = ranges_turn(&l->ranges, channel, 0, heard, on_write, l, e);

	return rc ? rc : save_next(l, e);
}
