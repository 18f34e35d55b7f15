/* SPDX-License-Identifier: BSD-2-Clause */
/* Copy on write: the system calls that are not requests to the disk. See blk_overlay.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "blk.h"

/* At the beginning of the memory: the index was taken from the file. */
#define OVERLAY_READY 0x3159444cu

/* What is a hole in the file stays one in memory. */
static int load_page(struct blk_overlay *o, uint64_t off)
{
	uint8_t page[OVERLAY_PAGE] __attribute__((aligned(OVERLAY_PAGE)));
	ssize_t n = pread(o->fd, page, sizeof(page), (off_t)(o->at.index_off + off));

	if (n != (ssize_t)sizeof(page))
		return n < 0 ? -errno : -EIO;
	if (!mem_is_zero(page, sizeof(page)))
		memcpy((uint8_t *)(void *)o->live + off, page, sizeof(page));
	return 0;
}

/* The next page that is not in a hole, from `off` on; a file system that does not know has none. */
static uint64_t next_data(const struct blk_overlay *o, uint64_t off)
{
	off_t at = lseek(o->fd, (off_t)(o->at.index_off + off), SEEK_DATA);

	if (at < 0)
		return errno == ENXIO ? o->at.index_len : off;
	return ((uint64_t)at - o->at.index_off) / OVERLAY_PAGE * OVERLAY_PAGE;
}

static int load_index(struct blk_overlay *o)
{
	int rc = 0;

	for (uint64_t off = 0; off < o->at.index_len && !rc; off += OVERLAY_PAGE) {
		off = next_data(o, off);
		if (off < o->at.index_len)
			rc = load_page(o, off);
	}
	return rc;
}

int blk_overlay_open(struct blk_overlay *o, uint64_t capacity, bool thrown_away, int fd,
		     int base_fd, int memory_fd, struct err *e)
{
	size_t size = overlay_layout(capacity).memory;
	void *memory =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory_fd, 0);
	_Atomic uint32_t *ready = memory;
	int rc;

	if (memory == MAP_FAILED)
		return err_sys(e, -errno, "index of the overlay: %zu bytes", size);
	close(memory_fd);
	rc = blk_overlay_init(o, capacity, thrown_away, memory, e);
	if (rc)
		return rc;
	o->fd = fd;
	o->base_fd = base_fd;
	if (!thrown_away && *ready != OVERLAY_READY)
		rc = load_index(o);
	if (rc)
		return err_sys(e, rc, "index of the overlay");
	*ready = OVERLAY_READY;
	return 0;
}

void blk_overlay_rules(const struct blk_overlay *o, struct rule_list *l)
{
	if (!o->on || o->thrown_away)
		return;
	rule_fd(l, SYS_fdatasync, o->fd, "the end: what no flush has asked for");
	rule_fd(l, SYS_pwritev, o->fd, "the end: the index of what no flush has asked for");
}

/* Whole, or not at all. */
static bool write_index(const struct blk_overlay *o, const struct blk_io *io)
{
	return pwritev(o->fd, io->iov, 1, (off_t)io->off) == (ssize_t)o->iov.iov_len;
}

void blk_overlay_finish(struct blk_overlay *o)
{
	struct blk_io io = {0};
	bool ok;

	blk_overlay_freeze(o);
	if (o->first_page == o->end_page)
		return;
	ok = fdatasync(o->fd) == 0;
	while (ok && blk_overlay_sync_next(o, &io, (int)o->iov.iov_len))
		ok = io.op == BLK_OP_SYNC ? fdatasync(o->fd) == 0 : write_index(o, &io);
	if (!ok)
		log_warn("overlay: what was not flushed is lost: error %d", errno);
	blk_overlay_thaw(o, ok);
}
