/* SPDX-License-Identifier: BSD-2-Clause */
/* The I/O thread of a virtio-balloon device: lists of pages, reports, statistics. See balloon.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "balloon.h"

#define STATS_MAX 64 /* entries that are looked at: there are 16 kinds */

enum step { STEP_MORE, STEP_DONE, STEP_BROKEN };

static enum step broken(struct balloon *b, const char *why)
{
	lane_fault(b->w.lane, why);
	return STEP_BROKEN;
}

static void count(struct balloon *b, unsigned what, uint64_t n)
{
	b->w.lane->stat[what] += n;
}

static void cut(struct balloon *b, void *at, uint64_t len, unsigned what)
{
	if (balloon_punch(at, len))
		count(b, STAT_BALLOON_ERRORS, 1);
	else
		count(b, what, len);
}

/* ---- the balloon: lists of page numbers (5.5.6) ---- */

static void cut_run(struct balloon *b)
{
	if (b->run_len)
		cut(b, b->run, b->run_len, STAT_BALLOON_INFLATED);
	b->run_len = 0;
}

/* Drivers name pages one by one, up or down. What is side by side is one call. */
static void add_page(struct balloon *b, uint8_t *p)
{
	if (b->run_len && p == b->run + b->run_len) {
		b->run_len += BALLOON_PAGE;
	} else if (b->run_len && p + BALLOON_PAGE == b->run) {
		b->run = p;
		b->run_len += BALLOON_PAGE;
	} else {
		cut_run(b);
		b->run = p;
		b->run_len = BALLOON_PAGE;
	}
}

static enum step inflate(struct balloon *b, const uint32_t *pfn, size_t n)
{
	b->run_len = 0;
	for (size_t i = 0; i < n; i++) {
		uint8_t *p = gm_ptr(&b->w.gm, (gpa_t)pfn[i] * BALLOON_PAGE, BALLOON_PAGE);

		if (!p)
			return broken(b, "a page of the balloon is not in memory");
		add_page(b, p);
	}
	cut_run(b);
	return STEP_MORE;
}

static enum step list_step(struct balloon *b)
{
	const struct vq_chain *c = &b->chain;
	uint32_t pfn[BALLOON_LIST];
	size_t len;

	if (c->nwrite || c->read_len % sizeof(*pfn))
		return broken(b, "not a list of pages");
	len = iov_get(c->iov, c->nread, b->at, pfn, sizeof(pfn));
	b->at += len;
	if (b->role == BALLOON_DEFLATE)
		count(b, STAT_BALLOON_DEFLATED, len / sizeof(*pfn) * BALLOON_PAGE);
	else if (inflate(b, pfn, len / sizeof(*pfn)) == STEP_BROKEN)
		return STEP_BROKEN;
	return b->at == c->read_len ? STEP_DONE : STEP_MORE;
}

/* ---- free page reports (5.5.6.7) ---- */

/* The next piece of a report: at most so much of one segment. */
static struct iovec piece(const struct vq_chain *c, uint64_t at)
{
	const struct iovec *v = c->iov;
	uint64_t left;

	for (; at >= v->iov_len; v++)
		at -= v->iov_len;
	left = v->iov_len - at;
	/* A piece ends where a block of its size does: no page is split between two. */
	if (left > BALLOON_PIECE)
		left = BALLOON_PIECE - ((uintptr_t)v->iov_base + at) % BALLOON_PIECE;
	return (struct iovec){.iov_base = (uint8_t *)v->iov_base + at, .iov_len = left};
}

static enum step report_step(struct balloon *b)
{
	const struct vq_chain *c = &b->chain;
	struct iovec v;

	if (c->nread)
		return broken(b, "a report that is not one to write to");
	v = piece(c, b->at);
	b->at += v.iov_len;
	if (!b->poison || !atomic_load(&b->st->poison))
		cut(b, v.iov_base, v.iov_len, STAT_BALLOON_REPORTED);
	return b->at == c->write_len ? STEP_DONE : STEP_MORE;
}

/* ---- statistics (5.5.6.3) ---- */

static void take_stats(struct balloon *b)
{
	const struct vq_chain *c = &b->chain;
	struct virtio_balloon_stat s;
	uint32_t has = 0;

	for (size_t i = 0; i < STATS_MAX; i++) {
		if (iov_get(c->iov, c->nread, i * sizeof(s), &s, sizeof(s)) != sizeof(s))
			break;
		if (s.tag >= BALLOON_TAGS)
			continue;
		has |= 1u << s.tag;
		atomic_store(&b->stat[s.tag], s.val);
	}
	atomic_store(&b->has, has);
	atomic_fetch_add(&b->count, 1);
	count(b, STAT_BALLOON_STATS, 1);
}

static struct virtqueue *queue_of(struct balloon *b, enum balloon_role r)
{
	unsigned i = b->queue[r];

	return i < BALLOON_QUEUES && b->w.front.v.vq[i].num ? &b->w.front.v.vq[i] : NULL;
}

static void give_back(struct balloon *b)
{
	if (b->held)
		vq_push(queue_of(b, BALLOON_STATS), b->held_head, 0);
	b->held = false;
}

/* The buffer stays here until somebody asks. A driver has one; a second one sets the first free. */
static enum step stats_step(struct balloon *b)
{
	if (b->chain.nwrite)
		return broken(b, "statistics that are not to be read");
	give_back(b);
	take_stats(b);
	b->held = true;
	b->held_head = b->chain.head;
	b->busy = false;
	/* Whoever asked while the buffer was at the driver asked for these. */
	atomic_store(&b->ask, false);
	atomic_store(&b->told, true);
	event_signal(b->w.h->event_fd);
	return STEP_MORE;
}

static void answer_ask(struct balloon *b)
{
	if (b->held && atomic_exchange(&b->ask, false))
		give_back(b);
}

/* ---- turns ---- */

/* Statistics first: they are short, and a guest that gives back gigabytes has more to say. */
static const enum balloon_role order[] = {BALLOON_STATS, BALLOON_DEFLATE, BALLOON_INFLATE,
					  BALLOON_REPORTS};

/* 1: b->chain is the next one; 0: there is none; -1: the guest's mistake. */
static int next_chain(struct balloon *b)
{
	for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
		struct virtqueue *q = queue_of(b, order[i]);
		int rc;

		b->chain = (struct vq_chain){.iov = b->iov};
		rc = q ? vq_next(q, &b->chain) : 0;
		if (rc < 0)
			lane_fault(b->w.lane, q->why);
		if (!rc)
			continue;
		b->role = order[i];
		b->at = 0;
		return rc > 0 ? 1 : -1;
	}
	return 0;
}

static enum step work(struct balloon *b)
{
	static enum step (*const steps[BALLOON_ROLES])(struct balloon * b) = {
		[BALLOON_INFLATE] = list_step,
		[BALLOON_DEFLATE] = list_step,
		[BALLOON_STATS] = stats_step,
		[BALLOON_REPORTS] = report_step,
	};
	enum step s = steps[b->role](b);

	if (s == STEP_DONE) {
		vq_push(queue_of(b, b->role), b->chain.head, 0);
		b->busy = false;
	}
	return s;
}

/* One piece. False: there is nothing to do, or the guest made a mistake. */
static bool one_piece(struct balloon *b)
{
	if (!b->busy) {
		if (next_chain(b) <= 0)
			return false;
		b->busy = true;
	}
	return work(b) != STEP_BROKEN;
}

bool balloon_turn(struct balloon *b)
{
	unsigned n = 0;

	if (lane_runs(b->w.lane)) {
		answer_ask(b);
		while (n < BALLOON_BUDGET && !lane_commanded(b->w.lane) && one_piece(b))
			n++;
		lane_publish(b->w.lane);
	}
	lane_calm(b->w.lane);
	return n == BALLOON_BUDGET;
}

/* What was being worked on is busy in the queue's state, so it comes again: from its beginning. */
void balloon_prepare(struct balloon *b)
{
	const struct virtio *v = &b->w.front.v;
	uint64_t f = v->st->driver_features;
	bool stats = f >> VIRTIO_BALLOON_F_STATS_VQ & 1;
	bool reports = f >> VIRTIO_BALLOON_F_REPORTING & 1;
	/* 5.5.2 numbers the queues for good; Linux leaves no gap for those that it did not
	 * negotiate. */
	unsigned report = v->vq[4].num ? 4 : stats ? 3 : 2;

	b->queue[BALLOON_INFLATE] = 0;
	b->queue[BALLOON_DEFLATE] = 1;
	b->queue[BALLOON_STATS] = stats ? 2 : BALLOON_NONE;
	b->queue[BALLOON_REPORTS] = reports ? report : BALLOON_NONE;
	b->poison = f >> VIRTIO_BALLOON_F_PAGE_POISON & 1;
	b->busy = b->held = false;
	b->serves = queue_of(b, BALLOON_STATS) != NULL;
}

static bool arm_all(struct balloon *b)
{
	bool any = false;

	for (unsigned i = 0; i < BALLOON_ROLES; i++)
		any |= queue_of(b, i) && lane_arm(b->w.lane, b->queue[i]);
	return any;
}

void *balloon_io_main(void *arg)
{
	struct balloon *b = arg;

	lane_born(b->w.lane);
	for (;;) {
		bool more = balloon_turn(b);

		lane_freeze(b->w.lane);
		if (!more && lane_runs(b->w.lane))
			more = b->busy || arm_all(b);
		count(b, STAT_BALLOON_KICKS, lane_sleep(b->w.lane, more ? 0 : -1));
	}
	return NULL;
}
