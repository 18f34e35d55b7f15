/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk as a device: the start message of insula-blk, the fence, the engine. */
#include <insula/base.h>
#include <insula/log.h>

#include "devices/blk/blk_overlay_start.h"

#include "dev_virtio.h"

_Static_assert(DISK_ONCE <= ARRAY_LEN(((struct device_start *)0)->once), "all are closed");

static const char *blk_engine_name(const struct device *d)
{
	return d->engine == BLK_ENGINE_URING ? "io_uring" : "threads";
}

static int blk_start(struct device *d, struct device_start *s, struct err *e)
{
	const struct disk *disk = d->back.disk;
	struct msg_start_blk m = disk->start;
	int fds[DISK_FDS], rc;
	unsigned n;

	rc = disk_hand_out(disk, d->restart.total > 0, &m, fds, &n, s->once, e);
	if (rc)
		return rc;
	m.nqueues = d->nqueues;
	m.limit = disk->limit;
	d->engine = (enum blk_engine)m.engine;
	log_info("%s: %s%s%s, %llu bytes, %s%s", d->desc.name, disk->conf->path,
		 disk->conf->overlay ? ", overlay " : "",
		 disk->conf->overlay ? disk->conf->overlay : "", (unsigned long long)m.capacity,
		 blk_engine_name(d),
		 d->engine == BLK_ENGINE_URING ? ""
		 : disk->conf->threads         ? ", as told"
					       : ": io_uring is not allowed here");
	device_word(s, &m, sizeof(m));
	for (unsigned i = 0; i < n; i++)
		device_add(s, fds[i]);
	return 0;
}

/* A dead helper's I/O may still be under way in the kernel; until it is not, nobody else touches
 * the disk. */
static int blk_quiet(const struct device *d)
{
	return disk_quiet(d->back.disk);
}

/* An image does not grow: whoever has taken the helper over cannot fill the file system with it. */
static uint64_t blk_fsize(const struct device *d)
{
	const struct msg_start_blk *m = &d->back.disk->start;

	if (m->flags & BLK_OVERLAY)
		return overlay_layout(m->capacity).size;
	return m->flags & BLK_RO ? 0 : m->capacity;
}

static struct msg_limit *blk_limit_of(const struct device *d)
{
	return &d->back.disk->limit;
}

static const char *blk_unsaved_so(const struct device *d)
{
	const char *overlay = d->back.disk->conf->overlay;

	return overlay && !strcmp(overlay, "discard")
		       ? "overlay=discard: what the guest has written is nowhere when the VM has "
			 "ended, and cannot be part of a snapshot"
		       : NULL;
}

const struct device_class device_blk = {
	.program = "insula-blk",
	.kind = "disk",
	.tag = BLK_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_BLOCK,
	/* Control, I/O, and the pool of the threads engine, or of io_uring the workers of a ring:
	 * each queue has its own. */
	.threads = 24,
	.queue_threads = 19,
	.nofile = 64,
	.describe = dev_virtio_describe,
	.fsize = blk_fsize,
	.unsaved_so = blk_unsaved_so,
	.start = blk_start,
	.quiet = blk_quiet,
	.engine = blk_engine_name,
	.limit = blk_limit_of,
	.limited = "iops",
	.stats = &stats_blk,
};
