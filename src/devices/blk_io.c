/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The I/O thread of a virtio-blk device.
 *
 * A turn: finished requests have pushed their used entries; take new chains, a bounded number of
 * each queue; publish everything at once, with one interrupt; if nothing is left to take, ask the
 * driver for kicks; then wait in the engine, which at the same time submits what was taken.
 *
 * All queues are looked at in every turn, so a kick is nothing but a reason to have one.
 */
#include <errno.h>
#include <sched.h>

#include <insula/base.h>

#include "blk.h"

static void count(struct blk *b, uint32_t type, uint8_t status)
{
	static const uint8_t kind[] = {
		[VIRTIO_BLK_T_IN] = STAT_BLK_READS,
		[VIRTIO_BLK_T_OUT] = STAT_BLK_WRITES,
		[VIRTIO_BLK_T_FLUSH] = STAT_BLK_FLUSHES,
		[VIRTIO_BLK_T_DISCARD] = STAT_BLK_DISCARDS,
		[VIRTIO_BLK_T_WRITE_ZEROES] = STAT_BLK_ZEROES,
	};
	unsigned i = type < ARRAY_LEN(kind) ? kind[type] : 0;

	b->w.stat[i ? i : STAT_BLK_OTHERS]++;
	if (status != VIRTIO_BLK_S_OK)
		b->w.stat[STAT_BLK_ERRORS]++;
}

/* The pool grows by itself up to BLK_POOL: what was never needed was never touched, and costs no
 * memory. */
static struct blk_req *peek_free(struct blk *b)
{
	if (b->free)
		return b->free;
	return b->nfresh < BLK_POOL ? &b->pool[b->nfresh] : NULL;
}

static void take_free(struct blk *b, struct blk_req *r)
{
	if (b->free)
		b->free = r->next;
	else
		b->nfresh++;
	r->b = b;
	b->in_flight++;
}

static void give_free(struct blk *b, struct blk_req *r)
{
	r->next = b->free;
	b->free = r;
	b->in_flight--;
}

void blk_finish(struct blk_req *r, uint8_t status)
{
	struct blk *b = r->b;

	*(volatile uint8_t *)r->status = status;
	/* After an error nothing is promised but the status byte. */
	vq_push(&b->w.mmio.v.vq[r->queue], r->head, status == VIRTIO_BLK_S_OK ? r->used_len : 1);
	count(b, r->type, status);
	give_free(b, r);
}

/* True: there is more to take at once. */
static bool serve_queue(struct blk *b, unsigned i)
{
	struct virtqueue *q = &b->w.mmio.v.vq[i];

	for (unsigned n = 0; n < BLK_BUDGET; n++) {
		struct blk_req *r = peek_free(b);
		struct vq_chain c;
		const char *why;
		int rc;

		if (!r)
			return false; /* a request that finishes brings us back */
		c.iov = r->vec;
		rc = vq_next(q, &c);
		if (rc == 0)
			return false;
		if (rc < 0) {
			worker_fault(&b->w, q->why);
			return false;
		}
		take_free(b, r);
		r->queue = (uint8_t)i;
		if (blk_begin(r, &c, &why)) {
			give_free(b, r);
			worker_fault(&b->w, why);
			return false;
		}
	}
	return true;
}

bool blk_turn(struct blk *b)
{
	bool more = false, runs;

	if (worker_idle(&b->w))
		return false;
	worker_publish(&b->w); /* what has finished: the driver's next requests may come while we
				  take those that are there */
	blk_sync_published(b);
	runs = worker_runs(&b->w);
	for (unsigned i = 0; i < b->conf.nqueues && runs && !b->w.broken; i++) {
		if (b->w.mmio.v.vq[i].num)
			more |= serve_queue(b, i);
	}
	worker_publish(&b->w); /* what needed no disk */
	if (b->in_flight == 0)
		worker_calm(&b->w);
	return more && !b->w.broken;
}

/* May chains be taken at all? */
static bool may_take(struct blk *b)
{
	return worker_runs(&b->w) && !worker_commanded(&b->w) && peek_free(b);
}

bool blk_arm(struct blk *b)
{
	bool more = false;

	if (!may_take(b))
		return false; /* a request that finishes, or a command, brings us back */
	for (unsigned i = 0; i < b->conf.nqueues; i++)
		more |= worker_arm(&b->w, i);
	return more;
}

static unsigned pending(const struct blk *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->conf.nqueues; i++) {
		if (b->w.mmio.v.vq[i].num)
			n += vq_pending(&b->w.mmio.v.vq[i]);
	}
	return n;
}

/* Was it worth the time? Where there is one processor, the guest runs meanwhile: many requests at
 * once spare it the kicks, and it the interrupts; one alone had better been kicked for. */
static void learn(struct blk *b, bool worth)
{
	if (worth && b->luck < BLK_SPIN_LUCK)
		b->luck++;
	else if (!worth && b->luck > 0)
		b->luck--;
}

/*
 * Look a little longer before sleeping: a driver that has just got an answer often has its next
 * request ready in less time than a kick, a sleep and a wake-up cost. With one processor it can
 * only get there if we let it run. Where that does not happen it is soon given up, and only tried
 * again now and then. True: something came.
 */
static bool spin(struct blk *b)
{
	unsigned before = b->in_flight, n;
	bool alone = !b->w.h->spin, found;
	uint64_t until;

	if (!may_take(b) || (b->luck == 0 && ++b->skipped % BLK_SPIN_RETRY))
		return false;
	b->ops->wait(b->engine, false); /* submits */
	if (b->in_flight != before)
		return true; /* first the answers */
	until = clock_ns() + BLK_SPIN_NS;
	do {
		if (alone)
			sched_yield();
		else
			__builtin_ia32_pause();
		n = pending(b);
		found = n || b->ops->ready(b->engine) || worker_commanded(&b->w);
	} while (!found && clock_ns() < until);
	learn(b, alone ? n > 1 : found);
	return found;
}

void *blk_io_main(void *arg)
{
	struct blk *b = arg;

	(void)b->ops->enter(b->engine, &b->w.born);
	worker_born(&b->w);
	if (b->w.born.code)
		return NULL;
	for (;;) {
		if (blk_turn(b))
			b->ops->wait(b->engine, false);
		else if (!spin(b))
			b->ops->wait(b->engine, !blk_arm(b));
	}
}
