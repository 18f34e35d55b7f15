/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The I/O thread of a virtio-vsock device.
 *
 * A turn: mail of the supervisor, new clients, packets of the guest, packets for the guest, what
 * has waited too long; each of them bounded. Then kicks are asked for where they are wanted, and
 * vsock_wait().
 */
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "vsock.h"

#define HDR_LEN sizeof(struct virtio_vsock_hdr)
#define TICK_MS ((int)(VCONN_TICK_NS / 1000000u))

void vsock_ask(struct vsockdev *d, uint32_t id, uint32_t port)
{
	const struct vsock_mail m = {.type = MSG_VSOCK_CONNECT, .id = id, .port = port, .fd = -1};

	/* There is room for all questions that may be open at a time. */
	if (!vsock_box_put(&d->out, &m))
		panic("more than %u questions", VSOCK_MAX_ASKED);
	event_signal(d->w.h->event_fd);
}

/* ---- what others want ---- */

static void take_mail(struct vsockdev *d)
{
	struct vsock_mail m;

	for (unsigned i = 0; i < VSOCK_MAIL && vsock_box_get(&d->in, &m); i++) {
		bool room = vconn_has_room(&d->conns);

		if (m.type == MSG_VSOCK_STREAM && room)
			vconn_stream(&d->conns, m.fd, m.port);
		else if (m.type == MSG_VSOCK_CLIENT && room)
			vconn_client(&d->conns, m.fd);
		else if (m.type != MSG_VSOCK_CONNECTED)
			fd_close(&m.fd);
		else if (!vconn_connected(&d->conns, m.id, m.error, m.fd))
			fd_close(&m.fd);
	}
}

/* ---- packets of the guest ---- */

/* The number of bytes, or -1: the guest's mistake. */
static int64_t take_packet(struct vsockdev *d, const struct vq_chain *c)
{
	struct virtio_vsock_hdr h;
	size_t total;
	unsigned niov;

	if (c->nwrite || c->read_len < HDR_LEN) {
		lane_fault(d->w.lane, "a packet without a header, or one to write to");
		return -1;
	}
	iov_get(c->iov, c->nread, 0, &h, HDR_LEN);
	if (h.len > c->read_len - HDR_LEN) {
		lane_fault(d->w.lane, "a packet that is longer than its buffer");
		return -1;
	}
	niov = iov_cut(c->iov, c->nread, c->iov, c->nread, HDR_LEN, h.len, &total);
	vconn_packet(&d->conns, &h, c->iov, niov);
	return (int64_t)h.len;
}

/* True: there is more to take at once. */
static bool serve_tx(struct vsockdev *d)
{
	struct virtqueue *q = &d->w.front.v.vq[VSOCK_TX];
	uint64_t bytes = 0;

	for (unsigned n = 0; n < VSOCK_TX_BUDGET && bytes < VSOCK_TX_BYTES; n++) {
		struct vq_chain c = {.iov = d->iov};
		int64_t len;
		int rc;

		if (!q->num || !vconn_may_take(&d->conns))
			return false;
		rc = vq_next(q, &c);
		if (rc < 0)
			lane_fault(d->w.lane, q->why);
		if (rc <= 0)
			return false;
		len = take_packet(d, &c);
		if (len < 0)
			return false;
		vq_push(q, c.head, 0);
		bytes += (uint64_t)len;
	}
	return true;
}

/* ---- packets for the guest ---- */

/* Take buffers until as many are held as one connection may fill. False: none. */
static bool hold(struct vsockdev *d)
{
	struct virtqueue *q = &d->w.front.v.vq[VSOCK_RX];

	while (q->num && d->nheld < VCONN_MAX_BUFS) {
		struct vsock_held *b = &d->held[(d->first + d->nheld) % VCONN_MAX_BUFS];
		struct vq_chain c = {.iov = b->iov};
		int rc = vq_next(q, &c);

		if (rc == 0)
			break;
		if (rc < 0 || c.nread || c.write_len <= HDR_LEN) {
			lane_fault(d->w.lane,
				   rc < 0 ? q->why : "a receive buffer without room for a byte");
			return false;
		}
		b->head = c.head;
		b->niov = c.nwrite;
		b->len = c.write_len;
		d->nheld++;
	}
	return d->nheld > 0;
}

/* One connection's turn. The number of bytes. */
static uint64_t give_packets(struct vsockdev *d)
{
	struct vconn_buf b[VCONN_MAX_BUFS];
	uint64_t bytes = 0;
	unsigned k;

	for (unsigned i = 0; i < d->nheld; i++) {
		struct vsock_held *x = &d->held[(d->first + i) % VCONN_MAX_BUFS];

		b[i] = (struct vconn_buf){.iov = x->iov, .niov = x->niov, .len = x->len};
	}
	k = vconn_fill(&d->conns, b, d->nheld);
	for (unsigned i = 0; i < k; i++) {
		vq_push(&d->w.front.v.vq[VSOCK_RX], d->held[d->first].head, b[i].used);
		d->first = (d->first + 1) % VCONN_MAX_BUFS;
		bytes += b[i].used;
	}
	d->nheld -= k;
	return bytes;
}

static bool serve_rx(struct vsockdev *d)
{
	uint64_t bytes = 0;

	for (unsigned n = 0; !d->conns.cut && vconn_pending(&d->conns); n++) {
		if (n == VSOCK_RX_BUDGET || bytes >= VSOCK_RX_BYTES)
			return true;
		if (!hold(d))
			return false;
		bytes += give_packets(d);
	}
	return false;
}

/* ---- turns ---- */

static void copy_stats(struct vsockdev *d)
{
	const struct vconn_stats *s = &d->conns.stat;

	d->w.lane->stat[STAT_VSOCK_CONNECTIONS] = s->connections;
	d->w.lane->stat[STAT_VSOCK_TO_GUEST] = s->to_guest;
	d->w.lane->stat[STAT_VSOCK_TO_HOST] = s->to_host;
	d->w.lane->stat[STAT_VSOCK_RESETS] = s->resets;
	d->w.lane->stat[STAT_VSOCK_STALLS] = s->stalls;
	d->w.lane->stat[STAT_VSOCK_BAD_PACKETS] = s->bad_packets;
}

/* The driver has taken the queues away, and with them all connections. If it does not know that
 * (one queue was disabled and enabled), it is told when they run again. */
static void be_quiet(struct vsockdev *d)
{
	if (!lane_commanded(d->w.lane))
		return;
	if (d->conns.used > 0 || d->reset != VSOCK_RESET_NONE)
		d->reset = VSOCK_RESET_OWED;
	vconn_drop_all(&d->conns);
	d->nheld = 0;
	copy_stats(d);
	lane_calm(d->w.lane);
}

/* The queues run: look for what came before. */
static void vsock_io_begin(struct vsockdev *d)
{
	d->started = d->w.lane->seen;
	d->clients = d->listen_fd >= 0;
	vsock_event_begin(d, &d->w.front.v.vq[VSOCK_RX]);
}

static void tick(struct vsockdev *d)
{
	if (d->conns.now < d->next_tick)
		return;
	d->next_tick = d->conns.now + VCONN_TICK_NS;
	(void)vconn_tick(&d->conns);
}

bool vsock_turn(struct vsockdev *d)
{
	bool more;

	d->conns.now = clock_ns();
	if (!lane_runs(d->w.lane)) {
		be_quiet(d);
		return false;
	}
	if (d->started != d->w.lane->seen)
		vsock_io_begin(d);
	tick(d);
	take_mail(d);
	if (d->clients)
		vsock_accept(d);
	more = serve_tx(d);
	/* Behind the packets that came before the driver put its buffer back. */
	vsock_event_serve(d);
	more |= serve_rx(d);
	lane_publish(d->w.lane);
	more |= d->clients && !d->retry && vconn_has_room(&d->conns);
	return more && !d->w.lane->broken;
}

int vsock_rest(struct vsockdev *d)
{
	bool more = false, timed = d->conns.timed || d->retry;

	if (!lane_runs(d->w.lane))
		return -1;
	if (d->started != d->w.lane->seen)
		return 0; /* a start has come since the turn */
	d->retry = false;
	if (vconn_may_take(&d->conns))
		more |= lane_arm(d->w.lane, VSOCK_TX);
	if (!d->conns.cut && vconn_pending(&d->conns)) /* for want of buffers */
		more |= lane_arm(d->w.lane, VSOCK_RX);
	more |= vsock_event_arm(d);
	return more ? 0 : vsock_event_ms(d, timed ? TICK_MS : -1);
}

void *vsock_io_main(void *arg)
{
	struct vsockdev *d = arg;

	lane_born(d->w.lane);
	for (;;) {
		bool more = vsock_turn(d);

		lane_freeze(d->w.lane);
		vsock_wait(d, more ? 0 : vsock_rest(d));
	}
	return NULL;
}
