/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk as a device: the start message of insula-blk, the fence, the engine. */
#include <linux/io_uring.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "device.h"

/* Containers often forbid io_uring, and a host may: /proc/sys/kernel/io_uring_disabled (1 allows it
 * to privileged processes only, which a helper is not). Asked once, before any helper starts. */
static enum blk_engine choose_engine(void)
{
	struct io_uring_params p = {0};
	char c = '0';
	FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	long fd;

	if (f) {
		if (fread(&c, 1, 1, f) != 1)
			c = '0';
		fclose(f);
	}
	if (c != '0')
		return BLK_ENGINE_THREADS;
	fd = syscall(SYS_io_uring_setup, 1, &p);
	if (fd < 0)
		return BLK_ENGINE_THREADS;
	close((int)fd);
	return BLK_ENGINE_URING;
}

static const char *engine_name(const struct device *d)
{
	return d->engine == BLK_ENGINE_URING ? "io_uring" : "threads";
}

/* The descriptors of MSG_START_BLK. The first helper has no use for the other one. */
static int send_start(struct device *d, struct msg_start_blk *m, int mem, int disk, struct err *e)
{
	int fds[MSG_MAX_FDS] = {mem, d->page, d->call, d->irq, disk};
	unsigned n = 5;
	int rc;

	if (d->restart.total) {
		m->flags |= BLK_OTHER;
		fds[n++] = d->back.disk->fd;
	}
	for (unsigned i = 0; i < d->msg.nkicks; i++)
		fds[n++] = d->kick[i];
	rc = msg_send(d->child.jail.channel, MSG_START_BLK, m, sizeof(*m), fds, n);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

static int start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	const struct disk *disk = d->back.disk;
	struct msg_start_blk m = disk->start;
	int fd = disk_generation(disk, e), rc;

	if (fd < 0)
		return fd;
	m.mem = *map;
	m.nqueues = d->msg.nkicks;
	m.engine = d->engine = disk->conf->threads ? BLK_ENGINE_THREADS : choose_engine();
	m.log_level = log_most();
	log_info("%s: %s, %llu bytes, %s", d->msg.name, disk->conf->path,
		 (unsigned long long)m.capacity,
		 d->engine == BLK_ENGINE_URING ? "io_uring"
		 : disk->conf->threads         ? "threads, as told"
					       : "threads: io_uring is not allowed here");
	rc = send_start(d, &m, mem, fd, e);
	close(fd);
	return rc;
}

/* A dead helper's I/O may still be under way in the kernel; until it is not, nobody else touches
 * the disk. */
static int quiet(const struct device *d)
{
	return disk_quiet(d->back.disk);
}

/* An image does not grow: whoever has taken the helper over cannot fill the file system with it. */
static uint64_t fsize(const struct device *d)
{
	const struct msg_start_blk *m = &d->back.disk->start;

	return m->flags & BLK_RO ? 0 : m->capacity;
}

const struct device_class device_blk = {
	.program = "insula-blk",
	.kind = DEV_VIRTIO_MMIO,
	/* Control, I/O, and the pool of the threads engine, or of io_uring the workers of a ring:
	 * each queue has its own. */
	.threads = 24,
	.queue_threads = 19,
	.nofile = 64,
	.fsize = fsize,
	.start = start,
	.quiet = quiet,
	.engine = engine_name,
	.stats = &stats_blk,
};
