/* SPDX-License-Identifier: BSD-2-Clause */
/* The I/O thread of a virtio-mem device: requests (virtio 1.2, 5.15.6). See mem.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "mem.h"

/* Up to what a driver must give room for; more is left as it is. */
#define RESPONSE_LEN sizeof(struct virtio_mem_resp)

static void count(struct vmem *b, unsigned what, uint64_t n)
{
	b->w.lane->stat[what] += n;
}

/* ---- blocks ---- */

static bool is_plugged(const struct vmem_state *st, uint32_t i)
{
	return st->map[i / 64] >> i % 64 & 1;
}

uint32_t vmem_count(const struct vmem_state *st, uint32_t from, uint32_t to)
{
	uint32_t n = 0;

	for (uint32_t i = from; i < to; i++) {
		if (i % 64 == 0 && to - i >= 64) {
			n += (uint32_t)__builtin_popcountll(st->map[i / 64]);
			i += 63;
		} else {
			n += is_plugged(st, i);
		}
	}
	return n;
}

static void set_block(struct vmem *b, uint32_t i, bool plugged)
{
	uint64_t bit = UINT64_C(1) << i % 64;

	if (is_plugged(b->st, i) == plugged)
		return;
	b->st->map[i / 64] ^= bit;
	if (plugged)
		atomic_fetch_add(&b->plugged, b->block);
	else
		atomic_fetch_sub(&b->plugged, b->block);
	count(b, plugged ? STAT_MEM_PLUGGED : STAT_MEM_UNPLUGGED, b->block);
}

/* ---- requests ---- */

/* The blocks that it names. False: it names none, or some that there are not. */
static bool range_of(const struct vmem *b, const struct vmem_request *r, uint32_t *from,
		     uint32_t *to)
{
	uint64_t off = r->addr - b->gpa, first = off / b->block;

	if (r->addr < b->gpa || off >= b->region || off % b->block || !r->n ||
	    r->n > b->nblocks - first)
		return false;
	*from = (uint32_t)first;
	*to = (uint32_t)first + r->n;
	return true;
}

static uint16_t begin_plug(struct vmem *b)
{
	uint32_t n = vmem_count(b->st, b->at, b->to);
	uint64_t new = (b->to - b->at) * b->block, now = atomic_load(&b->plugged);
	uint64_t most = atomic_load(&b->requested);

	if (n)
		return VIRTIO_MEM_RESP_ERROR;
	return now > most || new > most - now ? VIRTIO_MEM_RESP_NACK : VIRTIO_MEM_RESP_ACK;
}

static uint16_t begin_unplug(struct vmem *b)
{
	bool all = vmem_count(b->st, b->at, b->to) == b->to - b->at;

	return all ? VIRTIO_MEM_RESP_ACK : VIRTIO_MEM_RESP_ERROR;
}

static uint16_t begin_state(struct vmem *b)
{
	uint32_t n = vmem_count(b->st, b->at, b->to);

	b->found = n == b->to - b->at ? VIRTIO_MEM_STATE_PLUGGED
		   : n                ? VIRTIO_MEM_STATE_MIXED
				      : VIRTIO_MEM_STATE_UNPLUGGED;
	b->to = b->at; /* nothing is left to do */
	return VIRTIO_MEM_RESP_ACK;
}

/* What it is answered, if nothing goes wrong. */
static uint16_t begin_request(struct vmem *b, const struct vmem_request *r)
{
	if (r->type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
		b->at = 0;
		b->to = b->nblocks;
		return VIRTIO_MEM_RESP_ACK;
	}
	if (!range_of(b, r, &b->at, &b->to))
		return VIRTIO_MEM_RESP_ERROR;
	switch (r->type) {
	case VIRTIO_MEM_REQ_PLUG:
		return begin_plug(b);
	case VIRTIO_MEM_REQ_UNPLUG:
		return begin_unplug(b);
	case VIRTIO_MEM_REQ_STATE:
		return begin_state(b);
	default:
		return VIRTIO_MEM_RESP_ERROR;
	}
}

static bool same_request(const struct vmem_request *x, const struct vmem_request *y)
{
	return x->type == y->type && x->n == y->n && x->addr == y->addr;
}

static void begin(struct vmem *b, const struct vmem_request *r)
{
	struct vmem_request *now = &b->st->now;
	bool again = now->busy && same_request(now, r);

	b->before = atomic_load(&b->plugged);
	b->found = 0;
	b->answer = begin_request(b, r);
	if (again && b->answer != VIRTIO_MEM_RESP_ACK)
		b->answer = now->answer; /* an earlier helper has done a part of it */
	if (b->answer != VIRTIO_MEM_RESP_ACK)
		b->to = b->at;
	if (!again) {
		__atomic_store_n(&now->busy, 0, __ATOMIC_RELEASE);
		*now = (struct vmem_request){
			.type = r->type, .n = r->n, .answer = b->answer, .addr = r->addr};
		/* Before the first block is another one. */
		__atomic_store_n(&now->busy, 1, __ATOMIC_RELEASE);
	}
	b->phase = VMEM_WORKS;
	count(b, STAT_MEM_REQUESTS, 1);
}

/* ---- the chain ---- */

static bool broken(struct vmem *b, const char *why)
{
	lane_fault(b->w.lane, why);
	return false;
}

/* False: there is none, or it is none. */
static bool next_request(struct vmem *b)
{
	struct virtqueue *q = &b->w.front.v.vq[0];
	struct virtio_mem_req in;
	struct vmem_request r;
	int rc;

	b->chain = (struct vq_chain){.iov = b->iov};
	rc = q->num ? vq_next(q, &b->chain) : 0;
	if (rc < 0)
		return broken(b, q->why);
	if (!rc)
		return false;
	if (iov_get(b->iov, b->chain.nread, 0, &in, sizeof(in)) != sizeof(in))
		return broken(b, "a request that is too short");
	if (b->chain.write_len < RESPONSE_LEN)
		return broken(b, "no room for a response");
	/* The three of them have one form. */
	r = (struct vmem_request){
		.type = in.type, .n = in.u.plug.nb_blocks, .addr = in.u.plug.addr};
	begin(b, &r);
	return true;
}

static void respond(struct vmem *b)
{
	struct virtio_mem_resp out = {.type = b->answer};
	size_t n;

	if (b->st->now.type == VIRTIO_MEM_REQ_STATE && b->answer == VIRTIO_MEM_RESP_ACK)
		out.u.state.state = b->found;
	n = iov_put(b->iov + b->chain.nread, b->chain.nwrite, 0, &out, sizeof(out));
	count(b, STAT_MEM_REFUSED, b->answer != VIRTIO_MEM_RESP_ACK);
	vq_push(&b->w.front.v.vq[0], b->chain.head, (uint32_t)n);
	/* One by one: what comes again is the one that is written down. */
	lane_publish(b->w.lane);
	__atomic_store_n(&b->st->now.busy, 0, __ATOMIC_RELEASE);
	b->phase = VMEM_IDLE;
}

/* The next plugged one from `at` on is cut out. */
static void unplug_one(struct vmem *b)
{
	while (b->at < b->to && !is_plugged(b->st, b->at))
		b->at++;
	if (b->at == b->to)
		return;
	if (vmem_cut(b->host + b->at * b->block, b->block)) {
		/* The driver comes again, and is told which blocks it still has. */
		count(b, STAT_MEM_ERRORS, 1);
		b->answer = VIRTIO_MEM_RESP_BUSY;
		b->to = b->at;
		return;
	}
	set_block(b, b->at++, false);
}

static void plug_all(struct vmem *b)
{
	while (b->at < b->to)
		set_block(b, b->at++, true);
}

static void work(struct vmem *b)
{
	if (b->st->now.type == VIRTIO_MEM_REQ_PLUG)
		plug_all(b);
	else if (b->at < b->to)
		unplug_one(b);
	if (b->at < b->to)
		return;
	b->phase = VMEM_SHOWS;
	if (atomic_load(&b->plugged) == b->before)
		return;
	atomic_fetch_add(&b->changes, 1);
	event_signal(b->w.h->event_fd);
}

/* False: there is nothing to do now. */
static bool one_step(struct vmem *b)
{
	switch (b->phase) {
	case VMEM_IDLE:
		return next_request(b);
	case VMEM_WORKS:
		work(b);
		return true;
	case VMEM_SHOWS:
		break;
	}
	if (atomic_load(&b->shown) != atomic_load(&b->changes))
		return false; /* the control thread wakes us */
	respond(b);
	return true;
}

bool vmem_turn(struct vmem *b)
{
	unsigned n = 0;

	if (lane_runs(b->w.lane)) {
		while (n < VMEM_BUDGET && !lane_commanded(b->w.lane) && one_step(b))
			n++;
	}
	lane_calm(b->w.lane);
	return n == VMEM_BUDGET;
}

/* A request that has not been answered is busy in the queue's state, so it comes again. If there is
 * none, the one that is written down was the last that was. */
void vmem_prepare(struct vmem *b)
{
	struct virtqueue *q = &b->w.front.v.vq[0];

	b->phase = VMEM_IDLE;
	if (!q->num || !vq_resumed(q))
		b->st->now.busy = 0;
}

void *vmem_io_main(void *arg)
{
	struct vmem *b = arg;

	lane_born(b->w.lane);
	for (;;) {
		bool more = vmem_turn(b);

		lane_freeze(b->w.lane);
		if (!more && lane_runs(b->w.lane))
			more = b->phase == VMEM_WORKS ||
			       (b->phase == VMEM_IDLE && lane_arm(b->w.lane, 0));
		count(b, STAT_MEM_KICKS, lane_sleep(b->w.lane, more ? 0 : -1));
	}
	return NULL;
}
