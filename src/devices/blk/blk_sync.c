/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flushes, and writes of a driver without them: one sync of the disk at a time for all lanes.
 *
 * A request that comes while a sync runs waits for the next one: the one that runs may have begun
 * before what the request covers was answered. The lane that finds no sync running begins one, in
 * its own engine, for all that wait; the lane whose sync has ended hands each request back to its
 * lane, and begins the next one. So a flush takes two syncs at most, however many lanes ask.
 *
 * The order of one failure: sync_failed in the page; the answers, pushed and published by the lanes
 * that they belong to; the last of them clears sync_failed. What comes in between fails at once:
 * its driver did not know of the failure when it asked. After a restart the last of them is not
 * known: sync_failed stays until each lane has published its answers to all that it has resumed.
 *
 * With copy on write a sync may have more steps: see blk_overlay.h.
 */
#include <errno.h>

#include "blk.h"

void blk_sync_init(struct blk_sync *s, int other_fd)
{
	*s = (struct blk_sync){.other_fd = other_fd};
	pthread_mutex_init(&s->lock, NULL);
}

/* Under the lock. Is a failure told to all that it is about? */
static void forget_failure(struct blk *b)
{
	struct blk_sync *s = &b->sync;

	if (s->untold || s->owed || !s->told)
		return;
	s->told = false;
	b->page->sync_failed = 0;
}

void blk_sync_start(struct blk *b)
{
	struct blk_sync *s = &b->sync;

	pthread_mutex_lock(&s->lock);
	s->owed = 0;
	for (unsigned i = 0; i < b->conf.nqueues; i++) {
		b->lane[i].owes = b->page->sync_failed && b->lane[i].resumed;
		s->owed += b->lane[i].owes;
	}
	forget_failure(b);
	pthread_mutex_unlock(&s->lock);
}

static void submit_sync(struct blk_lane *l)
{
	l->b->ops->submit(l->engine, &l->sync.io);
}

static void start_sync(struct blk_lane *l)
{
	int other_fd = l->b->sync.other_fd;

	l->sync.lane = l;
	l->sync.tries = 0;
	l->in_flight++;
	blk_overlay_freeze(&l->b->overlay);
	/* What an earlier process may have been told, and not written down, is asked for first. */
	l->sync.io.op = other_fd >= 0 ? BLK_OP_SYNC_OTHER : BLK_OP_SYNC;
	l->sync.io.fd = other_fd;
	submit_sync(l);
}

/* Under the lock: is this lane to begin a sync for those that wait? */
static bool claim(struct blk_sync *s)
{
	if (s->running || !s->waiting)
		return false;
	s->running = true;
	s->covered = s->waiting;
	s->waiting = NULL;
	return true;
}

static void blk_sync_answer(struct blk_req *r)
{
	if (r->unstable)
		r->lane->told++;
	blk_finish(r, r->unstable ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

void blk_sync_begin(struct blk_req *r)
{
	struct blk *b = r->lane->b;
	struct blk_sync *s = &b->sync;
	bool first = false;

	if (b->overlay.thrown_away) { /* nothing is made stable */
		blk_finish(r, VIRTIO_BLK_S_OK);
		return;
	}
	pthread_mutex_lock(&s->lock);
	r->unstable = b->page->sync_failed;
	if (r->unstable) {
		s->untold++;
	} else {
		r->next = s->waiting;
		s->waiting = r;
		first = claim(s);
	}
	pthread_mutex_unlock(&s->lock);
	if (r->unstable)
		blk_sync_answer(r);
	else if (first)
		start_sync(r->lane);
}

/* Under the lock. */
static void fail_all(struct blk *b)
{
	struct blk_sync *s = &b->sync;
	struct blk_req **end = &s->covered;

	b->page->sync_failed = 1;
	while (*end)
		end = &(*end)->next;
	*end = s->waiting;
	s->waiting = NULL;
	for (struct blk_req *r = s->covered; r; r = r->next) {
		r->unstable = true;
		s->untold++;
	}
}

/* Under the lock: each to its lane. Which lanes got something. */
static unsigned hand_back(struct blk_sync *s)
{
	unsigned lanes = 0;

	while (s->covered) {
		struct blk_req *r = s->covered;

		s->covered = r->next;
		r->next = atomic_load_explicit(&r->lane->settled, memory_order_relaxed);
		atomic_store_explicit(&r->lane->settled, r, memory_order_release);
		lanes |= 1u << r->lane->l->index;
	}
	return lanes;
}

/* True: it is not over. */
static bool blk_sync_go_on(struct blk_lane *l, int res)
{
	bool other = l->sync.io.op == BLK_OP_SYNC_OTHER;
	bool more;

	if (res < 0 && blk_again(&l->sync, res)) {
		submit_sync(l);
		return true;
	}
	if (other) {
		l->b->sync.other_fd = -1; /* it has been told now */
		l->sync.io.op = BLK_OP_SYNC;
	}
	if (res < 0)
		return false;
	more = other || blk_overlay_sync_next(&l->b->overlay, &l->sync.io, res);
	if (more)
		submit_sync(l);
	return more;
}

void blk_sync_done(struct blk_lane *l, int res)
{
	struct blk *b = l->b;
	struct blk_sync *s = &b->sync;
	unsigned lanes;
	bool next;

	if (res == 0 && l->sync.io.op == BLK_OP_WRITE)
		res = -EIO;
	if (blk_sync_go_on(l, res))
		return;
	blk_overlay_thaw(&b->overlay, res >= 0);
	l->in_flight--;
	pthread_mutex_lock(&s->lock);
	if (res < 0)
		fail_all(b);
	lanes = hand_back(s);
	s->running = false;
	next = claim(s);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < b->conf.nqueues; i++) {
		if ((lanes >> i & 1) && &b->lane[i] != l)
			lane_wake(b->lane[i].l);
	}
	blk_sync_take(l);
	if (next)
		start_sync(l);
}

void blk_sync_take(struct blk_lane *l)
{
	struct blk_req *r, *next;

	if (!atomic_load_explicit(&l->settled, memory_order_acquire))
		return;
	pthread_mutex_lock(&l->b->sync.lock);
	r = atomic_exchange(&l->settled, NULL);
	pthread_mutex_unlock(&l->b->sync.lock);
	for (; r; r = next) {
		next = r->next;
		blk_sync_answer(r);
	}
}

void blk_sync_published(struct blk_lane *l)
{
	struct blk_sync *s = &l->b->sync;
	bool paid = l->owes && !l->resumed;

	if (!l->told && !paid)
		return;
	pthread_mutex_lock(&s->lock);
	s->untold -= l->told;
	s->told |= l->told != 0;
	l->told = 0;
	if (paid) {
		l->owes = false;
		s->owed--;
	}
	forget_failure(l->b);
	pthread_mutex_unlock(&s->lock);
}
