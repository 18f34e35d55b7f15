/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests to the disk with preadv, pwritev, fdatasync and fallocate. See blk_disk.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blk_disk.h"

int blk_disk_event(void)
{
	return -1;
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
	case BLK_OP_PUNCH:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
				 (off_t)io->len);
	case BLK_OP_ZERO:
		return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off,
				 (off_t)io->len);
	}
	errno = EINVAL;
	return -1;
}

int blk_disk_execute(int disk_fd, const struct blk_io *io, int event)
{
	ssize_t r = attempt(disk_fd, io);

	(void)event;
	return r < 0 ? -errno : (int)r;
}

void blk_disk_rules(const struct blk_engine_conf *c, const int *event, unsigned n,
		    struct rule_list *l)
{
	for (unsigned i = 0; i < n; i++)
		rule_fd(l, SYS_read, event[i], "I/O thread: kicks, commands, finished requests");
	rule_fd(l, SYS_write, event[0], "a pool thread tells the I/O thread");
	rule_any(l, SYS_sched_yield, "one processor: the guest goes first");
	rule_fd(l, SYS_preadv, c->disk_fd, "read the disk");
	rule_fd(l, SYS_fdatasync, c->disk_fd, "flush");
	if (c->readonly)
		return;
	rule_fd(l, SYS_pwritev, c->disk_fd, "write the disk");
	rule_fd(l, SYS_fallocate, c->disk_fd, "discard and write zeroes");
}
