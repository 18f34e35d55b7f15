/* SPDX-License-Identifier: BSD-2-Clause */
/* The limits of a disk. See blk_limit.h. */
#include "blk_limit.h"

#define MS_NS 1000000u
#define SECOND_NS 1000000000ull

void blk_limit_init(struct blk_limit *b)
{
	*b = (struct blk_limit){.on = false};
	pthread_mutex_init(&b->lock, NULL);
}

bool blk_limit_on(const struct blk_limit *b)
{
	return atomic_load_explicit(&b->on, memory_order_relaxed);
}

static void fill_bucket(struct bucket *b, uint64_t rate, uint64_t now)
{
	if (rate > LIMIT_MOST)
		rate = LIMIT_MOST;
	bucket_init(b, rate, rate > 10 ? rate / 10 : 1, now);
}

void blk_limit_set(struct blk_limit *b, const struct msg_limit *m, uint64_t now_ns)
{
	pthread_mutex_lock(&b->lock);
	fill_bucket(&b->bytes, m->rate, now_ns);
	fill_bucket(&b->requests, m->ops, now_ns);
	b->on = m->rate || m->ops;
	pthread_mutex_unlock(&b->lock);
}

/* Does another lane that waits come first? */
static bool others_first(const struct blk_limit *b, unsigned i, uint64_t now)
{
	for (unsigned k = 0; k < BLK_MAX_QUEUES; k++) {
		const struct blk_limit_lane *l = &b->lane[k];

		if (k != i && l->waits && l->spent_ns + BLK_LIMIT_AHEAD_NS < b->lane[i].spent_ns &&
		    now < l->due_ns + BLK_LIMIT_LATE_NS)
			return true;
	}
	return false;
}

/* Who did not wait has saved nothing. */
static void comes(struct blk_limit *b, struct blk_limit_lane *l)
{
	if (!l->waits && l->spent_ns < b->last_ns)
		l->spent_ns = b->last_ns;
}

int blk_limit_ask(struct blk_limit *b, unsigned i, uint64_t now_ns)
{
	struct blk_limit_lane *l = &b->lane[i];
	int bytes, requests, ms;

	if (!blk_limit_on(b))
		return 0; /* the usual case needs no lock */
	pthread_mutex_lock(&b->lock);
	comes(b, l);
	bytes = bucket_wait_ms(&b->bytes, now_ns);
	requests = bucket_wait_ms(&b->requests, now_ns);
	ms = bytes > requests ? bytes : requests;
	if (ms < 0)
		ms = others_first(b, i, now_ns) ? 1 : 0;
	if (ms) {
		l->waits = true;
		l->due_ns = now_ns + (uint64_t)ms * MS_NS;
	}
	pthread_mutex_unlock(&b->lock);
	return ms;
}

/* How long the limit needs for it. */
static uint64_t cost(const struct blk_limit *b, uint64_t bytes)
{
	uint64_t ns = b->bytes.rate ? bytes * SECOND_NS / b->bytes.rate : 0;
	uint64_t one = b->requests.rate ? SECOND_NS / b->requests.rate : 0;

	return ns > one ? ns : one;
}

void blk_limit_take(struct blk_limit *b, unsigned i, uint64_t bytes)
{
	struct blk_limit_lane *l = &b->lane[i];

	if (!blk_limit_on(b))
		return;
	pthread_mutex_lock(&b->lock);
	comes(b, l);
	b->last_ns = l->spent_ns;
	l->spent_ns += cost(b, bytes);
	bucket_take(&b->bytes, bytes);
	bucket_take(&b->requests, 1);
	pthread_mutex_unlock(&b->lock);
}

void blk_limit_charge(struct blk_limit *b, uint64_t bytes)
{
	if (!blk_limit_on(b))
		return;
	pthread_mutex_lock(&b->lock);
	bucket_take(&b->bytes, bytes);
	pthread_mutex_unlock(&b->lock);
}

void blk_limit_leave(struct blk_limit *b, unsigned i)
{
	if (!b->lane[i].waits)
		return;
	pthread_mutex_lock(&b->lock);
	b->lane[i].waits = false;
	pthread_mutex_unlock(&b->lock);
}
