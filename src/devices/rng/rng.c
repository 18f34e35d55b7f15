/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-rng. See rng.h. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include <insula/base.h>

#include "rng.h"

/* ---- I/O thread ---- */

/* Random bytes for one chain. A guest may change the buffer while it is filled: only itself is
 * hurt. */
static uint32_t fill_chain(const struct vq_chain *c)
{
	uint32_t done = 0;

	for (unsigned i = c->nread; i < c->nread + c->nwrite && done < RNG_REQUEST_MAX; i++) {
		size_t n = c->iov[i].iov_len, left = RNG_REQUEST_MAX - done;

		done += (uint32_t)random_bytes(c->iov[i].iov_base, n < left ? n : left);
	}
	return done;
}

/* 1: a request was answered; 0: there is none, or the guest made a mistake. */
static int serve_one(struct rng *r)
{
	struct virtqueue *q = &r->w.front.v.vq[0];
	struct vq_chain c = {.iov = r->iov};
	int rc = vq_next(q, &c);
	uint32_t n;

	if (rc == 0)
		return 0;
	if (rc < 0 || c.nread || !c.nwrite) {
		lane_fault(r->w.lane, rc < 0 ? q->why : "a request that is not one to write to");
		return 0;
	}
	n = fill_chain(&c);
	vq_push(q, c.head, n);
	bucket_take(&r->bucket, n);
	r->w.lane->stat[STAT_RNG_REQUESTS]++;
	r->w.lane->stat[STAT_RNG_BYTES] += n;
	return 1;
}

bool rng_turn(struct rng *r)
{
	unsigned n = 0;

	if (lane_runs(r->w.lane) && r->w.front.v.vq[0].num) {
		while (n < RNG_BUDGET && bucket_open(&r->bucket, clock_ns()) && serve_one(r))
			n++;
		lane_publish(r->w.lane);
	}
	lane_calm(r->w.lane);
	return n == RNG_BUDGET;
}

/* How long to sleep: until a kick; until the bucket has something again if somebody waits for it.
 */
static int rest(struct rng *r)
{
	int ms = bucket_wait_ms(&r->bucket, clock_ns());

	/* A driver may start the device without its queue. */
	if (!lane_runs(r->w.lane) || !r->w.front.v.vq[0].num)
		return -1;
	if (ms < 0)
		return lane_arm(r->w.lane, 0) ? 0 : -1;
	r->w.lane->stat[STAT_RNG_HELD] += vq_waiting(&r->w.front.v.vq[0]);
	return ms;
}

static void *io_main(void *arg)
{
	struct rng *r = arg;

	lane_born(r->w.lane);
	for (;;) {
		bool more = rng_turn(r);

		lane_freeze(r->w.lane);
		r->w.lane->stat[STAT_RNG_KICKS] += lane_sleep(r->w.lane, more ? 0 : rest(r));
	}
	return NULL;
}

/* ---- start ---- */

int rng_check_conf(const struct msg_start_rng *m, struct err *e)
{
	if (m->rate == 0 || m->rate >> 40)
		return err_set(e, -EINVAL, "rate of %llu bytes a second",
			       (unsigned long long)m->rate);
	return 0;
}

int rng_open(struct rng *r, struct helper *h, const struct msg_start_rng *m,
	     const struct start_fds *f, const char **step, struct err *e)
{
	int rc;

	memset(r, 0, sizeof(*r));
	/* A tenth of a second's worth at once. */
	bucket_init(&r->bucket, m->rate, m->rate / 10 + RNG_REQUEST_MAX, clock_ns());
	rc = worker_open(&r->w, h, &m->head.mem, f, RNG_TAG, step, e);
	if (rc)
		return rc;
	*step = "thread";
	rc = worker_begin(&r->w, io_main, &(void *){r}, e);
	if (rc)
		return rc;
	worker_describe(&r->w, VIRTIO_ID_RNG, 0, 1, NULL, 0);
	return 0;
}
