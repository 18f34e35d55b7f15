/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An I/O thread of a virtio-net device.
 *
 * A turn: commands (lane 0), then for each pair what it sends and for each queue of the backing
 * what comes in, each within its budget, with one interrupt at the end. When nothing more can be
 * done at once, the thread says what it waits for: kicks of transmit queues that are empty and of
 * receive queues whose buffers are used up, readable backings for which there are buffers, writable
 * ones that refused a frame, or the time when a limit lets the next frame through.
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
	if (atomic_exchange(&b->dead, true))
		return;
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
	return &n->w.front.v.vq[2 * n->npairs];
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

static bool limited(const struct net_limit *l)
{
	return atomic_load_explicit(&l->on, memory_order_relaxed);
}

bool net_allowed(struct net_limit *l)
{
	uint64_t now;
	bool ok;

	if (!limited(l))
		return true; /* the usual case needs no clock, and no lock */
	now = clock_ns();
	pthread_mutex_lock(&l->lock);
	ok = bucket_open(&l->bytes, now) && bucket_open(&l->frames, now);
	pthread_mutex_unlock(&l->lock);
	return ok;
}

/* Lanes that were allowed side by side put it into debt by a frame each. */
void net_passed(struct net_limit *l, size_t len)
{
	if (!limited(l))
		return;
	pthread_mutex_lock(&l->lock);
	bucket_take(&l->bytes, len);
	bucket_take(&l->frames, 1);
	pthread_mutex_unlock(&l->lock);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A hundredth of a second's worth at once, but at least one frame of any size. */
static void set_limit(struct net_limit *l, const struct msg_limit *m, uint64_t now)
{
	pthread_mutex_lock(&l->lock);
	bucket_init(&l->bytes, m->rate, larger(m->rate / 100, NET_MAX_FRAME), now);
	bucket_init(&l->frames, m->ops, larger(m->ops / 100, 16), now);
	l->on = m->rate || m->ops;
	pthread_mutex_unlock(&l->lock);
}

static void set_limits(struct net *n, const struct msg_limit *m)
{
	uint64_t now = clock_ns();

	set_limit(&n->rx_limit, m, now);
	set_limit(&n->tx_limit, m, now);
}

void net_limits_init(struct net *n)
{
	pthread_mutex_init(&n->rx_limit.lock, NULL);
	pthread_mutex_init(&n->tx_limit.lock, NULL);
	set_limits(n, &n->conf.limit);
}

void net_limits_set(struct net *n, const struct msg_limit *m)
{
	const struct msg_limit some = {m->rate < LIMIT_MOST ? m->rate : LIMIT_MOST,
				       m->ops < LIMIT_MOST ? m->ops : LIMIT_MOST};

	set_limits(n, &some);
	/* Who waits for the old one looks again. */
	for (unsigned i = 0; i < n->nlanes; i++)
		lane_wake(n->lane[i].l);
}

void net_prepare(struct net *n)
{
	n->features = n->w.front.v.st->driver_features;
	n->npairs = net_has(n, VIRTIO_NET_F_MQ) ? n->conf.npairs : 1;
	init_state(n);
}

void net_lane_init(struct net *n, unsigned i)
{
	n->lane[i] = (struct net_lane){.n = n, .l = &n->w.lane[i]};
	pthread_mutex_init(&n->lane[i].gate, NULL);
	pthread_mutex_init(&n->lane[i].turn, NULL);
}

static void start_offloads(struct net *n)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		struct net_backing *b = &n->backing[i];
		int rc = b->dead ? 0 : b->ops->offload(b, n->st->offloads);

		if (rc)
			log_warn("offloads %#llx: error %d", (unsigned long long)n->st->offloads,
				 -rc);
	}
}

static bool first_lane(const struct net_lane *l)
{
	return l->l->index == 0;
}

/* Is it this lane that serves pair i, and sends by backing i? */
static bool own_pair(const struct net_lane *l, unsigned i)
{
	return i % l->n->nlanes == l->l->index;
}

/* The pair that gets what backing i brings. */
static unsigned rx_pair(const struct net_lane *l, unsigned i)
{
	return i % l->active;
}

static bool has_commands(const struct net_lane *l)
{
	return first_lane(l) && net_has(l->n, VIRTIO_NET_F_CTRL_VQ);
}

/* The numbers of the queues depend on what the driver has accepted, so a lane hears kicks only
 * while it runs. */
static void net_io_start(struct net_lane *l)
{
	struct net *n = l->n;

	l->started = l->l->seen;
	l->l->queues = has_commands(l) ? 1u << 2 * n->npairs : 0;
	for (unsigned i = 0; i < n->npairs; i++) {
		if (!own_pair(l, i))
			continue;
		if (!net_is_vhost(n))
			l->l->queues |= 3u << 2 * i;
		net_rx_start(l, &n->rx[i], &n->w.front.v.vq[2 * i]);
		net_tx_start(l, &n->tx[i], &n->w.front.v.vq[2 * i + 1]);
	}
	if (first_lane(l))
		start_offloads(n);
}

/* ---- a turn ---- */

static bool serve_pairs(struct net_lane *l)
{
	struct net *n = l->n;
	bool more = false;

	l->active = n->st->npairs;
	for (unsigned i = l->l->index; i < n->npairs && !l->l->broken; i += n->nlanes)
		more |= net_tx_serve(l, &n->tx[i], &n->backing[i]);
	for (unsigned i = 0; i < n->nbackings && !l->l->broken; i++) {
		unsigned rx = rx_pair(l, i);

		if (own_pair(l, rx))
			more |= net_rx_serve(l, &n->rx[rx], &n->backing[i]);
	}
	return more;
}

static bool serve(struct net_lane *l)
{
	bool more = false;

	if (l->started != l->l->seen)
		net_io_start(l);
	if (has_commands(l))
		more = net_ctrl_serve(l, control_queue(l->n));
	if (!l->l->broken)
		more |= serve_pairs(l);
	lane_publish(l->l);
	return more && !l->l->broken;
}

bool net_turn(struct net_lane *l)
{
	bool more = false;

	pthread_mutex_lock(&l->gate);
	pthread_mutex_lock(&l->turn);
	pthread_mutex_unlock(&l->gate);
	if (first_lane(l))
		take_next(l->n);
	net_guard_turn(l);
	if (lane_runs(l->l))
		more = serve(l);
	else
		l->l->queues = 0;
	/* What was taken and not answered is in the page, and handed out again. */
	lane_calm(l->l);
	pthread_mutex_unlock(&l->turn);
	return more;
}

/* ---- waiting ---- */

/* Milliseconds until net_allowed(); -1: it is. */
static int wait_ms(struct net_limit *l)
{
	uint64_t now;
	int bytes, frames;

	if (!limited(l))
		return -1;
	now = clock_ns();
	pthread_mutex_lock(&l->lock);
	bytes = bucket_wait_ms(&l->bytes, now);
	frames = bucket_wait_ms(&l->frames, now);
	pthread_mutex_unlock(&l->lock);
	return bytes > frames ? bytes : frames;
}

static int sooner(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Ask for the kicks that matter; what a limit holds back its end will wake. True: something is there
 * already. */
static bool arm(struct net_lane *l, bool may_send, bool may_receive)
{
	struct net *n = l->n;
	bool more = has_commands(l) && lane_arm(l->l, 2 * n->npairs);

	for (unsigned i = l->l->index; i < n->npairs && may_send; i += n->nlanes) {
		if (!n->tx[i].held)
			more |= lane_arm(l->l, 2 * i + 1);
	}
	/* Buffers for a backing that brings no frames are left where they are. */
	for (unsigned i = 0; i < n->nbackings && may_receive; i++) {
		unsigned rx = rx_pair(l, i);

		if (own_pair(l, rx) && !n->backing[i].dead && net_rx_starved(&n->rx[rx]))
			more |= lane_arm(l->l, 2 * rx);
	}
	return more;
}

/* The end of a stream is to be seen at any time, also when nothing is wanted of it. */
static short net_io_end_of(const struct net_backing *b)
{
	return b->ops->replace && !b->dead ? POLLRDHUP : 0;
}

static unsigned watch(struct net_lane *l, bool may_receive, struct pollfd *p)
{
	const struct net *n = l->n;

	for (unsigned i = 0; i < n->nbackings; i++) {
		const struct net_backing *b = &n->backing[i];
		unsigned rx = rx_pair(l, i);
		short events = net_io_end_of(b);

		if (may_receive && own_pair(l, rx) && !net_rx_starved(&n->rx[rx]))
			events |= POLLIN;
		if (own_pair(l, i) && ((i < n->npairs && n->tx[i].held) || b->out_at < b->out_end))
			events |= POLLOUT;
		/* Without events poll() would still report errors, again and again. */
		p[i] = (struct pollfd){.fd = events && !b->dead ? b->fd : -1, .events = events};
	}
	return n->nbackings;
}

static unsigned watch_ends(const struct net *n, struct pollfd *p)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		short events = net_io_end_of(&n->backing[i]);

		p[i] = (struct pollfd){.fd = events ? n->backing[i].fd : -1, .events = events};
	}
	return n->nbackings;
}

/* Where frames are wanted the end comes behind the last of them. A stream has one lane. */
static void look_for_end(struct net *n, const struct pollfd *p)
{
	for (unsigned i = 0; i < n->nbackings; i++) {
		if (net_io_end_of(&n->backing[i]) && !(p[i].events & POLLIN) &&
		    (p[i].revents & ~(POLLIN | POLLOUT)))
			net_lost(n, &n->backing[i], -EPIPE);
	}
}

void net_wait(struct net_lane *l)
{
	struct net *n = l->n;
	struct pollfd p[NET_MAX_BACKINGS + NET_MAX_PAIRS];
	int rx_ms, tx_ms;
	unsigned np;

	if (!lane_runs(l->l) || l->started != l->l->seen) {
		if (!lane_commanded(l->l)) {
			lane_wait(l->l, p, watch_ends(n, p), -1);
			look_for_end(n, p);
		}
		return;
	}
	rx_ms = wait_ms(&n->rx_limit);
	tx_ms = wait_ms(&n->tx_limit);
	if (arm(l, tx_ms < 0, rx_ms < 0))
		return;
	if (rx_ms >= 0 || tx_ms >= 0)
		l->l->stat[STAT_NET_THROTTLED]++;
	np = watch(l, rx_ms < 0, p);
	if (net_is_vhost(n))
		kvhost_wait(n->vhost, n->conf.npairs, l->l, p, np, sooner(rx_ms, tx_ms));
	else
		lane_wait(l->l, p, np, sooner(rx_ms, tx_ms));
	look_for_end(n, p);
	l->l->stat[STAT_NET_IO_WAKEUPS]++;
}

void *net_io_main(void *arg)
{
	struct net_lane *l = arg;

	lane_born(l->l);
	for (;;) {
		bool more = net_turn(l);

		lane_freeze(l->l);
		if (!more)
			net_wait(l);
	}
}
