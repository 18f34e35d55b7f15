/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's side of the connections: packets from it and packets for it. See vsock_conn.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "vsock_table.h"

#define HDR_LEN sizeof(struct virtio_vsock_hdr)
_Static_assert(sizeof(struct virtio_vsock_hdr) == 44, "virtio 1.2, 5.10.6");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are little endian");

/* ---- from the guest ---- */

bool vconn_may_take(const struct vconns *t)
{
	return t->nstrays < VCONN_STRAYS;
}

/* A reset for a packet that belongs to no connection (5.10.6.4.1): it goes back the way it came. */
static void stray_reset(struct vconns *t, const struct virtio_vsock_hdr *h)
{
	unsigned i = (t->stray + t->nstrays) % VCONN_STRAYS;

	if (t->nstrays == VCONN_STRAYS || h->op == VIRTIO_VSOCK_OP_RST)
		return;
	t->nstrays++;
	t->strays[i] = (struct virtio_vsock_hdr){
		.src_cid = h->dst_cid,
		.dst_cid = h->src_cid,
		.src_port = h->dst_port,
		.dst_port = h->src_port,
		.type = h->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};
}

/* The counter of what the guest has taken can only go on, and not beyond what it was sent. An older
 * one than before is no mistake: a driver may queue packets in another order than it made them. */
static void learn_credit(struct vconn *c, const struct virtio_vsock_hdr *h)
{
	c->peer_alloc = h->buf_alloc;
	if (c->sent - h->fwd_cnt <= c->sent - c->peer_fwd)
		c->peer_fwd = h->fwd_cnt;
}

static void vsock_packet_refuse(struct vconns *t, struct vconn *c)
{
	t->stat.bad_packets++;
	vtab_reset(t, c);
}

typedef void handler(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
		     const struct iovec *iov, unsigned niov);

static void on_response(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
			const struct iovec *iov, unsigned niov)
{
	char ok[sizeof("OK 4294967295\n")];
	struct iovec text = {ok, 0};

	(void)h, (void)iov, (void)niov;
	if (c->owes & OWES_REQUEST) { /* an answer to what was not said */
		vsock_packet_refuse(t, c);
		return;
	}
	text.iov_len = (size_t)snprintf(ok, sizeof(ok), "OK %u\n", c->host_port);
	/* Nothing was written to this stream before: it takes a line. */
	if (c->greets && t->ops->write(t->ctx, c, &text, 1) != (ssize_t)text.iov_len) {
		vtab_reset(t, c);
		return;
	}
	vtab_deadline(t, c, 0);
	c->state = VCONN_OPEN;
	t->stat.connections++;
}

static void on_reset(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
		     const struct iovec *iov, unsigned niov)
{
	(void)h, (void)iov, (void)niov;
	vtab_release(t, c);
}

/* Both directions: as after close(). The guest is told at once that this is over; what it has sent
 * goes to the host all the same. */
static void guest_closed(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h)
{
	if (c->fd < 0 || c->fwd == c->received) {
		vtab_reset(t, c);
		return;
	}
	stray_reset(t, h);
	vtab_unlist(t, c);
	vtab_unname(t, c);
	c->state = VCONN_LINGER;
	c->owes = 0;
	vtab_deadline(t, c, VCONN_LINGER_NS);
}

static void on_shutdown(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
			const struct iovec *iov, unsigned niov)
{
	uint8_t more = (uint8_t)(h->flags & VSOCK_SHUT_BOTH & ~(uint32_t)c->guest_shut);

	(void)iov, (void)niov;
	c->guest_shut |= more;
	if (c->guest_shut == VSOCK_SHUT_BOTH) {
		guest_closed(t, c, h);
		return;
	}
	if (c->fd < 0)
		return;
	if (more & VIRTIO_VSOCK_SHUTDOWN_RCV)
		t->ops->shut(t->ctx, c, VCONN_SHUT_READ);
	if ((more & VIRTIO_VSOCK_SHUTDOWN_SEND) && c->fwd == c->received)
		t->ops->shut(t->ctx, c, VCONN_SHUT_WRITE);
}

/* Into the ring, from the byte number `c->received - left` on. */
static void keep(struct vconns *t, struct vconn *c, const struct iovec *iov, unsigned niov,
		 size_t skip, uint32_t left)
{
	uint32_t number = c->received - left;

	for (unsigned i = 0; i < niov && left; i++) {
		struct iovec one;
		size_t n;

		if (iov_cut(&one, 1, &iov[i], 1, skip, left, &n) == 0) {
			skip -= iov[i].iov_len;
			continue;
		}
		vtab_ring_put(t, c, number, one.iov_base, n);
		number += (uint32_t)n;
		left -= (uint32_t)n;
		skip = 0;
	}
}

static void to_host(struct vconns *t, struct vconn *c, const struct iovec *iov, unsigned niov,
		    uint32_t len)
{
	bool empty = c->fwd == c->received;
	ssize_t n = 0;

	c->received += len;
	if (empty)
		n = t->ops->write(t->ctx, c, iov, niov < VCONN_MAX_IOVS ? niov : VCONN_MAX_IOVS);
	if (n == -EAGAIN)
		n = 0;
	if (n < 0) {
		vtab_host_shut(t, c, VIRTIO_VSOCK_SHUTDOWN_RCV);
		return;
	}
	c->fwd += (uint32_t)n;
	t->stat.to_host += (uint64_t)n;
	if ((uint32_t)n == len)
		return;
	keep(t, c, iov, niov, (size_t)n, len - (uint32_t)n);
	vtab_watch(t, c);
}

static void on_data(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
		    const struct iovec *iov, unsigned niov)
{
	if ((c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) ||
	    h->len > vtab_ring_size(t, c) - (c->received - c->fwd)) {
		vsock_packet_refuse(t, c);
		return;
	}
	if (h->len == 0)
		return;
	if (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		c->received += h->len;
		c->fwd = c->received;
	} else {
		to_host(t, c, iov, niov, h->len);
	}
	if (c->state != VCONN_DEAD)
		vtab_owe_credit(t, c);
}

static void on_credit_request(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
			      const struct iovec *iov, unsigned niov)
{
	(void)t, (void)h, (void)iov, (void)niov;
	c->owes |= OWES_CREDIT;
}

/* learn_credit() has done it. */
static void on_nothing(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
		       const struct iovec *iov, unsigned niov)
{
	(void)t, (void)c, (void)h, (void)iov, (void)niov;
}

#define IN(state) (1u << (state))
#define ESTABLISHED (IN(VCONN_OPEN) | IN(VCONN_GONE))
#define ANY_STATE (ESTABLISHED | IN(VCONN_ASKING) | IN(VCONN_CALLING))

static const struct {
	handler *fn;
	unsigned states; /* in which it may come; in others the connection is reset */
} handlers[] = {
	[VIRTIO_VSOCK_OP_RESPONSE] = {on_response, IN(VCONN_CALLING)},
	[VIRTIO_VSOCK_OP_RST] = {on_reset, ANY_STATE},
	[VIRTIO_VSOCK_OP_SHUTDOWN] = {on_shutdown, ESTABLISHED},
	[VIRTIO_VSOCK_OP_RW] = {on_data, ESTABLISHED},
	[VIRTIO_VSOCK_OP_CREDIT_UPDATE] = {on_nothing, ANY_STATE},
	[VIRTIO_VSOCK_OP_CREDIT_REQUEST] = {on_credit_request, ESTABLISHED},
};

static void on_request(struct vconns *t, const struct virtio_vsock_hdr *h)
{
	struct vconn *c;

	if (!t->reachable || !vconn_has_room(t)) {
		stray_reset(t, h);
		return;
	}
	c = vtab_new(t, VCONN_ASKING, -1);
	vtab_name(t, c, h->src_port, h->dst_port);
	vtab_deadline(t, c, VCONN_ANSWER_NS);
	learn_credit(c, h);
	vtab_list(t, c, VCONN_ASK);
	vtab_ask(t);
}

static void for_connection(struct vconns *t, struct vconn *c, const struct virtio_vsock_hdr *h,
			   const struct iovec *iov, unsigned niov)
{
	unsigned op = h->op;
	bool known = op < ARRAY_LEN(handlers) && handlers[op].fn;

	if (c->state == VCONN_DEAD) { /* its reset is on the way */
		if (op == VIRTIO_VSOCK_OP_RST)
			vtab_release(t, c);
		return;
	}
	learn_credit(c, h);
	if (!known || !(handlers[op].states & IN(c->state)) ||
	    (h->len && op != VIRTIO_VSOCK_OP_RW)) {
		vsock_packet_refuse(t, c);
		return;
	}
	handlers[op].fn(t, c, h, iov, niov);
	if (c->state != VCONN_FREE)
		vtab_wake(t, c);
}

void vconn_packet(struct vconns *t, const struct virtio_vsock_hdr *h, const struct iovec *iov,
		  unsigned niov)
{
	struct vconn *c;

	/* Whoever does not use its own address (5.10.6.2) has no address for an answer. */
	if (h->src_cid != t->guest_cid) {
		t->stat.bad_packets++;
		return;
	}
	if (h->dst_cid != VCONN_HOST_CID || h->type != VIRTIO_VSOCK_TYPE_STREAM) {
		t->stat.bad_packets++;
		stray_reset(t, h);
		return;
	}
	if (t->cut && h->op != VIRTIO_VSOCK_OP_REQUEST)
		return;
	c = vtab_find(t, h->src_port, h->dst_port);
	if (c)
		for_connection(t, c, h, iov, niov);
	else if (h->op == VIRTIO_VSOCK_OP_REQUEST)
		on_request(t, h);
	else
		stray_reset(t, h);
}

/* ---- for the guest ---- */

bool vconn_pending(const struct vconns *t)
{
	return t->nstrays || t->list[VCONN_RUN].first != VCONN_NONE;
}

/* Each header tells how much room there is, whatever else it says. */
static void put_header(struct vconns *t, struct vconn *c, struct vconn_buf *b,
		       enum virtio_vsock_op op, uint32_t len)
{
	const struct virtio_vsock_hdr h = {
		.src_cid = VCONN_HOST_CID,
		.dst_cid = t->guest_cid,
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.len = len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = (uint16_t)op,
		.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? c->host_shut : 0,
		.buf_alloc = vtab_ring_size(t, c),
		.fwd_cnt = c->fwd,
	};

	iov_put(b->iov, b->niov, 0, &h, HDR_LEN);
	b->used = (uint32_t)HDR_LEN + len;
	c->told_fwd = c->fwd;
	c->owes &= (uint8_t)~OWES_CREDIT;
}

/* Read from the host straight into the guest's buffers. The number of buffers. */
static unsigned fill_data(struct vconns *t, struct vconn *c, struct vconn_buf *b, unsigned n)
{
	struct iovec iov[VCONN_MAX_IOVS];
	size_t room[VCONN_MAX_BUFS], left = vtab_credit(c);
	unsigned niov = 0;
	unsigned nb = 0, used = 0;
	ssize_t r;

	for (; nb < n && left && niov < VCONN_MAX_IOVS; nb++) {
		niov += iov_cut(&iov[niov], VCONN_MAX_IOVS - niov, b[nb].iov, b[nb].niov, HDR_LEN,
				left, &room[nb]);
		left -= room[nb];
	}
	r = t->ops->read(t->ctx, c, iov, niov);
	if (r == -EAGAIN) {
		c->readable = false;
		return 0;
	}
	if (r <= 0) {
		/* An error is the end in both directions. */
		vtab_host_shut(t, c, r ? VSOCK_SHUT_BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND);
		return 0;
	}
	c->sent += (uint32_t)r;
	t->stat.to_guest += (uint64_t)r;
	for (; used < nb && r > 0; used++) {
		size_t k = (size_t)r < room[used] ? (size_t)r : room[used];

		put_header(t, c, &b[used], VIRTIO_VSOCK_OP_RW, (uint32_t)k);
		r -= (ssize_t)k;
	}
	return used;
}

/* What is owed, in this order; data comes where it says 0. */
static const struct {
	uint8_t owes;
	uint8_t op;
} turn[] = {
	{OWES_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
	{OWES_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
	{OWES_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
	{0, VIRTIO_VSOCK_OP_RW},
	{OWES_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
	{OWES_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
};

static unsigned fill_one(struct vconns *t, struct vconn *c, struct vconn_buf *b, unsigned n)
{
	for (unsigned i = 0; i < ARRAY_LEN(turn); i++) {
		unsigned nb;

		if (turn[i].owes & c->owes) {
			c->owes &= (uint8_t)~turn[i].owes;
			put_header(t, c, b, turn[i].op, 0);
			return 1;
		}
		nb = !turn[i].owes && vtab_reads(c) && vtab_credit(c) ? fill_data(t, c, b, n) : 0;
		if (nb)
			return nb;
	}
	return 0;
}

static void fill_stray(struct vconns *t, struct vconn_buf *b)
{
	iov_put(b->iov, b->niov, 0, &t->strays[t->stray], HDR_LEN);
	b->used = (uint32_t)HDR_LEN;
	t->stray = (t->stray + 1) % VCONN_STRAYS;
	t->nstrays--;
	t->stat.resets++;
}

unsigned vconn_fill(struct vconns *t, struct vconn_buf *b, unsigned n)
{
	struct vconn *c;
	unsigned nb;

	if (t->nstrays) {
		fill_stray(t, b);
		return 1;
	}
	c = vtab_first(t, VCONN_RUN);
	if (!c)
		return 0;
	vtab_unlist(t, c);
	if (c->owes & OWES_RST) {
		put_header(t, c, b, VIRTIO_VSOCK_OP_RST, 0);
		t->stat.resets++;
		vtab_release(t, c);
		return 1;
	}
	nb = fill_one(t, c, b, n < VCONN_MAX_BUFS ? n : VCONN_MAX_BUFS);
	vtab_wake(t, c);
	return nb;
}
