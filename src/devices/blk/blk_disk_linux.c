/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests to the disk with preadv, pwritev, fdatasync, fallocate and BLKDISCARD. See blk_disk.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blk_disk.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
/* Without KEEP_SIZE: the range is inside of the disk. With it, RLIMIT_FSIZE would not hold for a
 * process that was taken over, and space beyond the end of the file could be had without a limit.
 */
#define ZERO FALLOC_FL_ZERO_RANGE

int blk_disk_event(void)
{
	return -1;
}

static int discard(int fd, const struct blk_io *io)
{
	const uint64_t range[2] = {io->off, io->len};

	return ioctl(fd, BLKDISCARD, range);
}

static ssize_t attempt(int fd, const struct blk_io *io)
{
	off_t off = (off_t)io->off;

	switch (io->op) {
	case BLK_OP_READ:
		return preadv(fd, io->iov, (int)io->niov, off);
	case BLK_OP_WRITE:
		return pwritev(fd, io->iov, (int)io->niov, off);
	case BLK_OP_SYNC:
		return fdatasync(fd);
	case BLK_OP_SYNC_OTHER:
		return fdatasync(io->fd);
	case BLK_OP_PUNCH:
		return fallocate(fd, PUNCH, off, (off_t)io->len);
	case BLK_OP_ZERO:
		return fallocate(fd, ZERO, off, (off_t)io->len);
	case BLK_OP_DISCARD:
		return discard(fd, io);
	}
	errno = EINVAL;
	return -1;
}

int blk_disk_execute(int disk_fd, const struct blk_io *io, int event)
{
	ssize_t r = attempt(io->base ? io->fd : disk_fd, io);

	(void)event;
	return r < 0 ? -errno : (int)r;
}

static void rule_mode(struct rule_list *l, int fd, uint64_t mode, const char *why)
{
	rule_arg(l, SYS_fallocate,
		 (struct jail_arg){.index = 0, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)fd},
		 (struct jail_arg){.index = 1, .cmp = JAIL_EQ, .value = mode}, why);
}

void blk_side_rules(const struct blk_engine_conf *c, struct rule_list *l)
{
	if (c->other_fd >= 0)
		rule_fd(l, SYS_fdatasync, c->other_fd, "the first flush: errors of before");
	if (c->readonly)
		return;
	rule_mode(l, c->disk_fd, PUNCH, "discard, and write zeroes that may unmap");
	rule_mode(l, c->disk_fd, ZERO, "write zeroes");
	rule_ioctl(l, c->disk_fd, BLKDISCARD, "discard on a block device");
}

void blk_disk_rules(const struct blk_engine_conf *c, struct rule_list *l)
{
	rule_any(l, SYS_sched_yield, "one processor: the guest goes first");
	rule_fd(l, SYS_preadv, c->disk_fd, "read the disk");
	if (c->base_fd >= 0)
		rule_fd(l, SYS_preadv, c->base_fd, "read the base of an overlay");
	rule_fd(l, SYS_fdatasync, c->disk_fd, "flush");
	if (!c->readonly)
		rule_fd(l, SYS_pwritev, c->disk_fd, "write the disk");
	blk_side_rules(c, l);
}

void blk_event_rules(const int *event, unsigned n, struct rule_list *l)
{
	for (unsigned i = 0; i < n; i++)
		rule_fd(l, SYS_read, event[i], "I/O thread: kicks, commands, finished requests");
	rule_fd(l, SYS_write, event[0], "a pool thread tells an I/O thread");
}
