/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The I/O thread of a virtio-net device.
 *
 * A turn: commands, then for each pair what it sends and for each queue of the backing what comes
 * in, each within its budget, with one interrupt at the end. When nothing more can be done at once,
 * the thread says what it waits for: kicks of transmit queues that are empty and of receive queues
 * whose buffers are used up, readable backings for which there are buffers, writable ones that
 * refused a frame, or the time when a limit lets the next frame through.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include <insula/base.h>

#include "net.h"

bool net_has(const struct net *n, unsigned feature)
{
	return n->features >> feature & 1;
}

void net_tell(struct net *n, uint32_t news)
{
	atomic_fetch_or(&n->told, news);
	event_signal(n->w.h->event_fd);
}

void net_lost(struct net *n, struct net_backing *b, int rc)
{
	if (b->dead)
		return;
	b->dead = true;
	if (rc == -EPROTO)
		log_error("a frame of a length that cannot be");
	atomic_store(&n->link_down, true);
	net_tell(n, b->ops->replace ? NET_NEWS_LINK | NET_NEWS_LOST : NET_NEWS_LINK);
}

/* The supervisor has another stream for us. */
static void take_next(struct net *n)
{
	struct net_backing *b = &n->backing[0];
	int fd = atomic_load(&n->next) ? atomic_exchange(&n->next, 0) - 1 : -1;

	if (fd < 0)
		return;
	b->ops->replace(b, fd);
	b->dead = false;
	atomic_store(&n->link_down, false);
	net_tell(n, NET_NEWS_LINK);
}

/* ---- start and stop ---- */

/* 5.1.2: without MQ there is one pair, and the control queue is the one behind it. */
static struct virtqueue *control_queue(struct net *n)
{
	return &n->w.mmio.v.vq[2 * n->npairs];
}

static void init_state(struct net *n)
{
	uint64_t could = n->features & NET_GUEST_OFFLOADS;

	if (!n->st->valid) {
		n->st->npairs = 1;
		n->st->offloads = could;
		memcpy(n->st->mac, n->conf.mac, sizeof(n->st->mac));
		n->st->valid = 1;
	}
	/* Another process was here before; whatever it left, it is within bounds now. */
	if (n->st->npairs == 0 || n->st->npairs > n->npairs)
		n->st->npairs = 1;
	n->st->offloads &= could;
}

bool net_allowed(struct net_limit *l)
{
	uint64_t now;

	if (!l->bytes.rate && !l->frames.rate)
		return true; /* the usual case needs no clock */
	now = clock_ns();
	return bucket_open(&l->bytes, now) && bucket_open(&l->frames, now);
}

void net_passed(struct net_limit *l, size_t len)
{
	bucket_take(&l->bytes, len);
	bucket_take(&l->frames, 1);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A hundredth of a second's worth at once, but at least one frame of any size. */
static void start_limit(struct net *n, struct net_limit *l, uint64_t now)
{
	bucket_init(&l->bytes, n->conf.rate, larger(n->conf.rate / 100, NET_MAX_FRAME), now);
	bucket_init(&l->frames, n->conf.pps, larger(n->conf.pps / 100, 16), now);
}

static void start(struct net *n)
{
	uint64_t now = clock_ns();

	n->started = n->w.lane->seen;
	n->features = n->w.mmio.v.st->driver_features;
	n->npairs = net_has(n, VIRTIO_NET_F_MQ) ? n->conf.npairs : 1;
	init_state(n);
	for (unsigned i = 0; i < n->npairs; i++) {
		net_rx_start(n, &n->rx[i], &n->w.mmio.v.vq[2 * i]);
		net_tx_start(n, &n->tx[i], &n->w.mmio.v.vq[2 * i + 1]);
	}
	for (unsigned i = 0; i < n->nbackings; i++) {
		struct net_backing *b = &n->backing[i];
		int rc = b->dead ? 0 : b->ops->offload(b, n->st->offloads);

		if (rc)
			log_warn("offloads %#llx: error %d", (unsigned long long)n->st->offloads,
				 -rc);
	}
	start_limit(n, &n->rx_limit, now);
	start_limit(n, &n->tx_limit, now);
}

/* ---- a turn ---- */

static bool serve_pairs(struct net *n)
{
	bool more = false;

	for (unsigned i = 0; i < n->npairs && !n->w.lane->broken; i++)
		more |= net_tx_serve(n, &n->tx[i], &n->backing[i]);
	for (unsigned i = 0; i < n->nbackings && !n->w.lane->broken; i++)
		more |= net_rx_serve(n, &n->rx[i % n->st->npairs], &n->backing[i]);
	return more;
}

bool net_turn(struct net *n)
{
	bool more = false;

	take_next(n);
	if (lane_runs(n->w.lane)) {
		if (n->started != n->w.lane->seen)
			start(n);
		if (net_has(n, VIRTIO_NET_F_CTRL_VQ))
			more = net_ctrl_serve(n, control_queue(n));
		if (!n->w.lane->broken)
			more |= serve_pairs(n);
		lane_publish(n->w.lane);
	}
	/* What was taken and not answered is in the page, and handed out again. */
	lane_calm(n->w.lane);
	return more && !n->w.lane->broken;
}

/* ---- waiting ---- */

/* Milliseconds until net_allowed(); -1: it is. */
static int wait_ms(struct net_limit *l)
{
	uint64_t now = clock_ns();
	int bytes = bucket_wait_ms(&l->bytes, now), frames = bucket_wait_ms(&l->frames, now);

	return bytes > frames ? bytes : frames;
}

static int sooner(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Ask for the kicks that matter. True: something is there already. */
static bool arm(struct net *n, bool may_send)
{
	bool more = net_has(n, VIRTIO_NET_F_CTRL_VQ) && lane_arm(n->w.lane, 2 * n->npairs);

	for (unsigned i = 0; i < n->npairs && may_send; i++) {
		if (!n->tx[i].held)
			more |= lane_arm(n->w.lane, 2 * i + 1);
	}
	/* Buffers for a backing that brings no frames are left where they are. */
	for (unsigned i = 0; i < n->nbackings; i++) {
		unsigned rx = i % n->st->npairs;

		if (!n->backing[i].dead && net_rx_starved(&n->rx[rx]))
			more |= lane_arm(n->w.lane, 2 * rx);
	}
	return more;
}

/* The end of a stream is to be seen at any time, also when nothing is wanted of it. */
static short end_of(const struct net_backing *b)
{
	return b->ops->replace && !b->dead ? POLLRDHUP : 0;
}

static unsigned watch(struct net *n, bool may_receive, struct pollfd *p)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		const struct net_backing *b = &n->backing[i];
		short events = end_of(b);

		if (may_receive && !net_rx_starved(&n->rx[i % n->st->npairs]))
			events |= POLLIN;
		if ((i < n->npairs && n->tx[i].held) || b->out_at < b->out_end)
			events |= POLLOUT;
		/* Without events poll() would still report errors, again and again. */
		p[i] = (struct pollfd){.fd = events && !b->dead ? b->fd : -1, .events = events};
	}
	return n->nbackings;
}

static unsigned watch_ends(struct net *n, struct pollfd *p)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		short events = end_of(&n->backing[i]);

		p[i] = (struct pollfd){.fd = events ? n->backing[i].fd : -1, .events = events};
	}
	return n->nbackings;
}

/* Where frames are wanted the end comes behind the last of them. */
static void look_for_end(struct net *n, const struct pollfd *p)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		if (end_of(&n->backing[i]) && !(p[i].events & POLLIN) &&
		    (p[i].revents & ~(POLLIN | POLLOUT)))
			net_lost(n, &n->backing[i], -EPIPE);
	}
}

void net_wait(struct net *n)
{
	struct pollfd p[NET_MAX_PAIRS];
	int rx_ms, tx_ms;
	unsigned np;

	if (!lane_runs(n->w.lane) || n->started != n->w.lane->seen) {
		if (!lane_commanded(n->w.lane)) {
			lane_wait(n->w.lane, p, watch_ends(n, p), -1);
			look_for_end(n, p);
		}
		return;
	}
	rx_ms = wait_ms(&n->rx_limit);
	tx_ms = wait_ms(&n->tx_limit);
	if (arm(n, tx_ms < 0))
		return;
	if (rx_ms >= 0 || tx_ms >= 0)
		n->w.lane->stat[STAT_NET_THROTTLED]++;
	np = watch(n, rx_ms < 0, p);
	lane_wait(n->w.lane, p, np, sooner(rx_ms, tx_ms));
	look_for_end(n, p);
	n->w.lane->stat[STAT_NET_IO_WAKEUPS]++;
}

void *net_io_main(void *arg)
{
	struct net *n = arg;

	lane_born(n->w.lane);
	for (;;) {
		if (!net_turn(n))
			net_wait(n);
	}
}
