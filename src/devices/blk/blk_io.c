/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An I/O thread of a virtio-blk device: one queue.
 *
 * A turn: finished requests have pushed their used entries; take new chains, a bounded number;
 * publish everything at once, with one interrupt; if nothing is left to take, ask the driver for
 * kicks; then wait in the engine, which at the same time submits what was taken. While a limit holds
 * the queue back (blk_limit.h) no kicks are asked for: the wait has an end then.
 *
 * The queue is looked at in every turn, so a kick is nothing but a reason to have one.
 */
#include <errno.h>
#include <sched.h>

#include <insula/base.h>

#include "blk.h"

static void count(struct blk_lane *l, uint32_t type, uint8_t status)
{
	static const uint8_t kind[] = {
		[VIRTIO_BLK_T_IN] = STAT_BLK_READS,
		[VIRTIO_BLK_T_OUT] = STAT_BLK_WRITES,
		[VIRTIO_BLK_T_FLUSH] = STAT_BLK_FLUSHES,
		[VIRTIO_BLK_T_DISCARD] = STAT_BLK_DISCARDS,
		[VIRTIO_BLK_T_WRITE_ZEROES] = STAT_BLK_ZEROES,
	};
	unsigned i = type < ARRAY_LEN(kind) ? kind[type] : 0;

	l->l->stat[i ? i : STAT_BLK_OTHERS]++;
	if (status != VIRTIO_BLK_S_OK)
		l->l->stat[STAT_BLK_ERRORS]++;
}

/* The pool grows by itself up to its depth: what was never needed was never touched, and costs no
 * memory. */
static struct blk_req *peek_free(struct blk_lane *l)
{
	if (l->free)
		return l->free;
	return l->nfresh < l->depth ? &l->pool[l->nfresh] : NULL;
}

static void take_free(struct blk_lane *l, struct blk_req *r)
{
	if (l->free)
		l->free = r->next;
	else
		l->nfresh++;
	r->lane = l;
	l->in_flight++;
}

static void give_free(struct blk_lane *l, struct blk_req *r)
{
	r->next = l->free;
	l->free = r;
	l->in_flight--;
}

void blk_finish(struct blk_req *r, uint8_t status)
{
	struct blk_lane *l = r->lane;

	*(volatile uint8_t *)r->status = status;
	/* After an error nothing is promised but the status byte. */
	vq_push(l->q, r->head, status == VIRTIO_BLK_S_OK ? r->used_len : 1);
	count(l, r->type, status);
	if (r->resumed)
		l->resumed--;
	give_free(l, r);
}

/* What the guest asks to be moved; ranges are not: nobody reads or writes them here. */
static uint64_t blk_io_bytes(const struct blk_req *r, const struct vq_chain *c)
{
	uint64_t n = 0;

	if (r->type == VIRTIO_BLK_T_IN)
		n = c->write_len - 1;
	else if (r->type == VIRTIO_BLK_T_OUT)
		n = c->read_len - sizeof(struct virtio_blk_outhdr);
	return n < BLK_MAX_DATA ? n : BLK_MAX_DATA;
}

/* Does a limit hold back what is in the queue? Not what an earlier process had taken: that was let
 * through. */
static bool held_back(struct blk_lane *l, bool resumed)
{
	if (!resumed && vq_waiting(l->q))
		l->wait_ms = blk_limit_ask(&l->b->limit, l->l->index, clock_ns());
	return l->wait_ms > 0;
}

/* True: there is more to take at once. */
static bool serve_queue(struct blk_lane *l)
{
	for (unsigned n = 0; n < BLK_BUDGET; n++) {
		struct blk_req *r = peek_free(l);
		struct vq_chain c;
		bool resumed = l->q->iresume < l->q->nresume;
		const char *why;
		int rc;

		if (!r)
			return false; /* a request that finishes brings us back */
		if (blk_limit_on(&l->b->limit) && held_back(l, resumed))
			return false;
		c.iov = r->vec;
		rc = vq_next(l->q, &c);
		if (rc == 0)
			return false;
		if (rc < 0) {
			lane_fault(l->l, l->q->why);
			return false;
		}
		take_free(l, r);
		r->resumed = resumed;
		if (blk_begin(r, &c, &why)) {
			give_free(l, r);
			lane_fault(l->l, why);
			return false;
		}
		blk_limit_take(&l->b->limit, l->l->index, blk_io_bytes(r, &c));
	}
	return true;
}

static void publish(struct blk_lane *l)
{
	lane_publish(l->l);
	blk_sync_published(l);
}

bool blk_turn(struct blk_lane *l)
{
	bool more = false;

	if (lane_idle(l->l)) {
		lane_freeze(l->l);
		return false;
	}
	blk_sync_take(l);
	blk_overlay_take(l);
	publish(l); /* what has finished: the driver's next requests may come while we take those
		       that are there */
	l->wait_ms = 0;
	if (lane_runs(l->l) && l->q->num && !lane_freezes(l->l))
		more = serve_queue(l);
	if (!l->wait_ms)
		blk_limit_leave(&l->b->limit, l->l->index);
	publish(l); /* what needed no disk */
	if (l->in_flight == 0) {
		lane_calm(l->l);
		lane_freeze(l->l);
	}
	return more && !l->l->broken;
}

/* May chains be taken at all? */
static bool may_take(struct blk_lane *l)
{
	return lane_runs(l->l) && !lane_commanded(l->l) && !lane_freezes(l->l) && l->q->num &&
	       !l->wait_ms && peek_free(l);
}

bool blk_arm(struct blk_lane *l)
{
	/* A request that finishes, a command, or the end of a wait brings us back. */
	return may_take(l) && lane_arm(l->l, l->l->index);
}

/* Has something come that a turn deals with? */
static bool blk_io_has_news(struct blk_lane *l)
{
	return l->b->ops->ready(l->engine) || lane_commanded(l->l) ||
	       atomic_load_explicit(&l->settled, memory_order_relaxed) ||
	       atomic_load_explicit(&l->granted, memory_order_relaxed);
}

/* Was it worth the time? Where there is one processor, the guest runs meanwhile: many requests at
 * once spare it the kicks, and it the interrupts; one alone had better been kicked for. */
static void learn(struct blk_lane *l, bool worth)
{
	if (worth && l->luck < BLK_SPIN_LUCK)
		l->luck++;
	else if (!worth && l->luck > 0)
		l->luck--;
}

/* With one processor, and a server on it: a request that is sent at once is answered before the guest
 * has got to its next one, and each costs it a kick and an interrupt. True: more have come, take
 * them first. */
static bool crowds(struct blk_lane *l)
{
	unsigned n = 0;

	if (l->crowd < BLK_CROWD && (l->crowd || blk_aside_try(&l->aside))) {
		blk_aside_step(&l->aside);
		n = vq_pending(l->q);
		if (!l->crowd)
			blk_aside_learn(&l->aside, n > 1 || (n && l->in_flight));
	}
	l->crowd = n ? l->crowd + 1 : 0;
	return n;
}

/*
 * Look a little longer before sleeping: a driver that has just got an answer often has its next
 * request ready in less time than a kick, a sleep and a wake-up cost. With one processor it can
 * only get there if we let it run. Where that does not happen it is soon given up, and only tried
 * again now and then. True: something came.
 */
static bool spin(struct blk_lane *l)
{
	unsigned before = l->in_flight, n;
	bool alone = !l->b->w.h->spin, found;
	uint64_t until;

	if (alone && l->b->ops->by_processes)
		return l->in_flight && may_take(l) && crowds(l);
	if (!may_take(l) || (l->luck == 0 && ++l->skipped % BLK_SPIN_RETRY))
		return false;
	l->b->ops->wait(l->engine, 0); /* submits */
	if (l->in_flight != before)
		return true; /* first the answers */
	until = clock_ns() + BLK_SPIN_NS;
	do {
		if (alone)
			sched_yield();
		else
			__builtin_ia32_pause();
		n = vq_pending(l->q);
		found = n || blk_io_has_news(l);
	} while (!found && clock_ns() < until);
	learn(l, alone ? n > 1 : found);
	return found;
}

/* Until something comes that a turn deals with. */
static void sleep_well(struct blk_lane *l)
{
	int ms = blk_arm(l) ? 0 : -1;

	if (l->wait_ms) {
		l->l->stat[STAT_BLK_THROTTLED]++;
		ms = l->wait_ms;
	}
	l->b->ops->wait(l->engine, ms);
}

void *blk_io_main(void *arg)
{
	struct blk_lane *l = arg;

	(void)l->b->ops->enter(l->engine, &l->l->born);
	lane_born(l->l);
	if (l->l->born.code)
		return NULL;
	for (;;) {
		if (blk_turn(l))
			l->b->ops->wait(l->engine, 0);
		else if (!spin(l))
			sleep_well(l);
	}
}
