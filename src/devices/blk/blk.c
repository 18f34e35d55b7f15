/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread's part of a virtio-blk device. See blk.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include <insula/base.h>

#include "blk.h"

#define BIT(n) (UINT64_C(1) << (n))

/* ---- what the device is ---- */

static bool power_of_two(uint32_t v)
{
	return v && (v & (v - 1)) == 0;
}

int blk_check_disk(const struct msg_start_blk *m, struct err *e)
{
	if (m->capacity == 0 || m->capacity % BLK_SECTOR || m->capacity > INT64_MAX)
		return err_set(e, -EINVAL, "capacity of %llu bytes",
			       (unsigned long long)m->capacity);
	if (m->nqueues == 0 || m->nqueues > BLK_MAX_QUEUES)
		return err_set(e, -EINVAL, "%u queues", m->nqueues);
	if (m->flags & ~(uint32_t)(BLK_RO | BLK_DIRECT | BLK_DEVICE | BLK_OTHER | BLK_OVERLAY |
				   BLK_THROWN_AWAY))
		return err_set(e, -EINVAL, "unknown flags %#x", m->flags);
	if ((m->flags & BLK_OVERLAY) &&
	    ((m->flags & (BLK_RO | BLK_DEVICE)) || m->capacity > OVERLAY_MOST))
		return err_set(e, -EINVAL, "an overlay with flags %#x of %llu bytes", m->flags,
			       (unsigned long long)m->capacity);
	if (!power_of_two(m->logical) || m->logical < BLK_SECTOR || m->logical > 4096)
		return err_set(e, -EINVAL, "logical block of %u bytes", m->logical);
	if (!power_of_two(m->physical) || m->physical < m->logical ||
	    m->physical / m->logical > UINT16_MAX)
		return err_set(e, -EINVAL, "physical block of %u bytes", m->physical);
	if (m->max_io % BLK_SECTOR)
		return err_set(e, -EINVAL, "largest request of %u bytes", m->max_io);
	if (m->discard_align % BLK_SECTOR)
		return err_set(e, -EINVAL, "discard alignment of %u bytes", m->discard_align);
	if (m->limit.rate > LIMIT_MOST || m->limit.ops > LIMIT_MOST)
		return err_set(e, -EINVAL, "limit of %llu bytes and %llu requests a second",
			       (unsigned long long)m->limit.rate, (unsigned long long)m->limit.ops);
	return 0;
}

uint64_t blk_features(const struct msg_start_blk *m)
{
	uint64_t f = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_SIZE_MAX) |
		     BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_TOPOLOGY) |
		     BIT(VIRTIO_BLK_F_FLUSH);

	if (m->nqueues > 1)
		f |= BIT(VIRTIO_BLK_F_MQ);
	if (m->flags & BLK_RO)
		return f | BIT(VIRTIO_BLK_F_RO);
	if (m->discard_align)
		f |= BIT(VIRTIO_BLK_F_DISCARD);
	return f | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

struct virtio_blk_config blk_config_space(const struct msg_start_blk *m)
{
	return (struct virtio_blk_config){
		.capacity = m->capacity / BLK_SECTOR,
		.size_max = BLK_SIZE_MAX,
		.seg_max = BLK_SEG_MAX,
		.blk_size = m->logical,
		.physical_block_exp = (uint8_t)__builtin_ctz(m->physical / m->logical),
		.min_io_size = (uint16_t)(m->physical / m->logical),
		.opt_io_size = m->opt_io,
		.num_queues = (uint16_t)m->nqueues,
		.max_discard_sectors = BLK_DISCARD_SECTORS,
		.max_discard_seg = BLK_RANGES,
		.discard_sector_alignment = m->discard_align / BLK_SECTOR,
		.max_write_zeroes_sectors = BLK_ZEROES_SECTORS,
		.max_write_zeroes_seg = BLK_RANGES,
		.write_zeroes_may_unmap = m->discard_align != 0,
	};
}

/* ---- start ---- */

static int get_memory(struct blk_lane *l, struct err *e)
{
	const struct blk *b = l->b;
	bool direct = b->conf.flags & BLK_DIRECT;
	uint8_t *bounce = NULL;

	l->pool = reserve_memory(l->depth * sizeof(*l->pool), true);
	if (direct)
		bounce = reserve_memory(BLK_BOUNCES * BLK_BOUNCE_SIZE, true);
	if (b->overlay.on)
		l->gaps = reserve_memory((size_t)l->depth * OVERLAY_BLOCK, true);
	if (!l->pool || (direct && !bounce) || (b->overlay.on && !l->gaps))
		return err_set(e, -ENOMEM, "out of memory");
	for (; direct && l->nbounce < BLK_BOUNCES; l->nbounce++)
		l->bounce[l->nbounce] = bounce + (size_t)l->nbounce * BLK_BOUNCE_SIZE;
	return 0;
}

static int blk_base_fd(const struct blk *b)
{
	return b->overlay.on ? b->overlay.base_fd : -1;
}

static struct blk_engine_conf engine_conf(struct blk_lane *l)
{
	struct blk *b = l->b;

	return (struct blk_engine_conf){
		.disk_fd = b->disk_fd,
		.base_fd = blk_base_fd(b),
		.other_fd = b->sync.other_fd,
		.readonly = b->conf.flags & BLK_RO,
		.ctl_fd = l->l->ctl_fd,
		.kick_fd = b->w.kick_fd[l->l->index],
		.pool = &b->pool,
		.depth = l->depth + 1, /* and a sync */
		/* The page cache takes a request of any size at once. */
		.max_io = b->conf.flags & BLK_DIRECT ? b->conf.max_io : 0,
		.done = blk_io_done,
		.ctx = l,
		.kicks = &l->l->stat[STAT_BLK_KICKS],
	};
}

void blk_lane_init(struct blk *b, unsigned i)
{
	struct blk_lane *l = &b->lane[i];
	unsigned share = BLK_POOL / b->conf.nqueues;

	l->b = b;
	l->l = &b->w.lane[i];
	l->l->queues = 1u << i;
	l->q = &b->w.front.v.vq[i];
	l->depth = share > BLK_POOL_MIN ? share : BLK_POOL_MIN;
	l->waiting_end = &l->waiting;
}

static int open_lane(struct blk *b, unsigned i, const char **step, struct err *e)
{
	struct blk_lane *l = &b->lane[i];
	struct blk_engine_conf c;
	int rc;

	blk_lane_init(b, i);
	*step = "memory";
	rc = get_memory(l, e);
	if (rc)
		return rc;
	*step = "engine";
	c = engine_conf(l);
	return b->ops->open(&l->engine, &c, e);
}

static int open_lanes(struct blk *b, const char **step, struct err *e)
{
	void *arg[BLK_MAX_QUEUES];
	int rc;

	*step = "memory";
	b->zeros = reserve_memory(BLK_ZERO_SIZE, false);
	if (!b->zeros)
		return err_set(e, -ENOMEM, "out of memory");
	*step = "engine";
	b->w.stack = b->ops->stack;
	rc = blk_pool_open(&b->pool, b->disk_fd, b->ops->pool_threads, e);
	if (!rc)
		rc = worker_lanes(&b->w, b->conf.nqueues, e);
	for (unsigned i = 0; i < b->conf.nqueues && !rc; i++) {
		arg[i] = &b->lane[i];
		rc = open_lane(b, i, step, e);
	}
	return rc ? rc : worker_begin(&b->w, blk_io_main, arg, e);
}

/* The queues are about to run: what an earlier helper had in flight is counted. The dev of a model
 * is the worker, and the worker is the first member. */
static void model_start(void *dev)
{
	struct blk *b = dev;

	for (unsigned i = 0; i < b->conf.nqueues; i++) {
		b->lane[i].resumed = vq_resumed(&b->w.front.v.vq[i]);
		b->w.lane[i].stat[STAT_BLK_RESUBMITTED] += b->lane[i].resumed;
	}
	blk_sync_start(b);
	b->writethrough = !(b->w.front.v.st->driver_features & BIT(VIRTIO_BLK_F_FLUSH));
	worker_start(&b->w);
}

void blk_describe(struct blk *b)
{
	b->config = blk_config_space(&b->conf);
	worker_describe(&b->w, VIRTIO_ID_BLOCK, blk_features(&b->conf), b->conf.nqueues, &b->config,
			sizeof(b->config));
	b->w.model.start = model_start;
}

static int open_overlay(struct blk *b, const struct start_fds *f, struct err *e)
{
	const int *own = f->fd[START_OWN] + (b->conf.flags & BLK_OTHER ? 2 : 1);

	if (!(b->conf.flags & BLK_OVERLAY))
		return 0;
	return blk_overlay_open(&b->overlay, b->conf.capacity, b->conf.flags & BLK_THROWN_AWAY,
				b->disk_fd, own[0], own[1], e);
}

int blk_begin_disk(struct blk *b, struct helper *h, const struct msg_start_blk *m,
		   const struct start_fds *f, const struct blk_engine_ops *ops, const char **step,
		   struct err *e)
{
	bool other = m->flags & BLK_OTHER;
	int rc;

	memset(b, 0, sizeof(*b));
	b->conf = *m;
	b->ops = ops;
	b->disk_fd = ops->no_disk ? -1 : f->fd[START_OWN][0];
	blk_sync_init(&b->sync, other ? f->fd[START_OWN][1] : -1);
	blk_limit_init(&b->limit);
	blk_limit_set(&b->limit, &m->limit, clock_ns());
	rc = worker_open(&b->w, h, &m->head.mem, f, BLK_TAG, step, e);
	if (rc)
		return rc;
	b->page = h->port.dev_state;
	if (!h->port.resumed)
		b->page->sync_failed = 0;
	*step = "overlay";
	rc = open_overlay(b, f, e);
	return rc ? rc : open_lanes(b, step, e);
}

static void blk_stop(void *dev, struct msg_stats *s)
{
	struct blk *b = dev;

	worker_helper_ops.stop(dev, s);
	blk_overlay_finish(&b->overlay); /* no vCPU waits any more */
}

int blk_message(void *dev, enum msg_type type, const void *body, size_t len, const int *fds,
		unsigned nfds)
{
	struct blk *b = dev;
	struct msg_limit m;

	for (unsigned i = 0; i < nfds; i++)
		fd_close(&(int){fds[i]});
	if (type != MSG_LIMIT || len != sizeof(m) || nfds)
		return -EPROTO;
	memcpy(&m, body, sizeof(m));
	blk_limit_set(&b->limit, &m, clock_ns());
	/* Whoever waits for the old one looks again. */
	for (unsigned i = 0; i < b->w.nlanes; i++)
		lane_wake(&b->w.lane[i]);
	return 0;
}

int blk_attach(struct blk *b, struct helper *h, struct err *e)
{
	b->helper_ops = worker_helper_ops;
	b->helper_ops.stop = blk_stop;
	b->helper_ops.message = blk_message;
	return helper_attach(h, &b->helper_ops, &b->w, e);
}

void blk_rules(const struct blk *b, struct rule_list *l)
{
	const struct blk_engine_conf disk = {.disk_fd = b->disk_fd,
					     .base_fd = blk_base_fd(b),
					     .other_fd = b->sync.other_fd,
					     .readonly = b->conf.flags & BLK_RO};

	worker_rules(&b->w, l, false);
	b->ops->disk_rules(&disk, l);
	blk_overlay_rules(&b->overlay, l);
	for (unsigned i = 0; i < b->conf.nqueues; i++)
		b->ops->rules(b->lane[i].engine, l);
}
