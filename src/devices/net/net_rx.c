/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames to the guest (virtio 1.2, 5.1.6.3, 5.1.6.4).
 *
 * The length of the next frame is not known before it is read. So buffers are taken ahead, enough
 * for the longest frame expected, and the read goes into all of them, with room of our own behind
 * them: a frame for which they are not enough spills over, and waits until the guest has given
 * more. What was taken and not used serves the next frame; in the page it counts as in flight, so
 * that a successor finds it.
 */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "net.h"

/* Kept small where no larger frame can come: each segment costs a little in each read. */
#define USUAL_PACKET (NET_HDR_LEN + NET_ETH_LEN + 4u + 1500u)

void net_rx_start(struct net_lane *l, struct net_rx *r, struct virtqueue *q)
{
	r->q = q;
	r->nbuf = r->niov = 0;
	r->bytes = 0;
	r->held = r->in_guest = 0;
	r->want = l->n->st->offloads & NET_GUEST_GSO ? NET_MAX_PACKET : USUAL_PACKET;
}

static bool mergeable(const struct net_lane *l)
{
	return net_has(l->n, VIRTIO_NET_F_MRG_RXBUF);
}

/* 1: taken; 0: none there, or no room; -1: a mistake, reported. */
static int take_buffer(struct net_lane *l, struct net_rx *r)
{
	struct vq_chain c = {.iov = &r->iov[r->niov]};
	int rc;

	if (r->nbuf == r->q->num || r->niov >= NET_RX_IOVS)
		return 0;
	rc = vq_next(r->q, &c);
	if (rc == 0)
		return 0;
	if (rc > 0 && (c.nread || c.write_len < NET_HDR_LEN)) {
		lane_fault(l->l, "a receive buffer that is not for writing, or too small");
		return -1;
	}
	if (rc < 0) {
		lane_fault(l->l, r->q->why);
		return -1;
	}
	r->buf[r->nbuf].head = c.head;
	r->buf[r->nbuf].niov = c.nwrite;
	r->buf[r->nbuf].len = c.write_len;
	r->nbuf++;
	r->niov += c.nwrite;
	r->bytes += c.write_len;
	return 1;
}

/* Take buffers until there are `want` bytes of them; where they cannot be merged, one is all that a
 * frame may use. */
static bool take_buffers(struct net_lane *l, struct net_rx *r, size_t want)
{
	int rc = 1;

	if (!r->q->num)
		return false;
	while (rc > 0 && r->bytes < want && (mergeable(l) || r->nbuf == 0))
		rc = take_buffer(l, r);
	return rc >= 0 && r->nbuf > 0;
}

bool net_rx_starved(const struct net_rx *r)
{
	return r->held || r->nbuf == 0;
}

/* The first k buffers were given back. */
static void forget(struct net_rx *r, unsigned k)
{
	unsigned iovs = 0;

	for (unsigned i = 0; i < k; i++) {
		iovs += r->buf[i].niov;
		r->bytes -= r->buf[i].len;
	}
	r->nbuf -= k;
	r->niov -= iovs;
	memmove(r->buf, r->buf + k, r->nbuf * sizeof(r->buf[0]));
	memmove(r->iov, r->iov + iovs, r->niov * sizeof(r->iov[0]));
}

static void give(struct net_lane *l, struct net_rx *r, size_t len)
{
	size_t left = len;
	uint16_t count;
	unsigned k;

	for (k = 0; left; k++) {
		uint64_t used = r->buf[k].len < left ? r->buf[k].len : left;

		vq_push(r->q, r->buf[k].head, (uint32_t)used);
		left -= used;
	}
	/* 5.1.6.4.1: 1 where buffers are not merged. */
	count = (uint16_t)k;
	iov_put(r->iov, r->niov, offsetof(struct virtio_net_hdr_v1, num_buffers), &count,
		sizeof(count));
	forget(r, k);
	l->l->stat[STAT_NET_RX_PACKETS]++;
	l->l->stat[STAT_NET_RX_BYTES] += len - NET_HDR_LEN;
}

bool net_rx_header(uint64_t offloads, const struct virtio_net_hdr_v1 *h)
{
	static const uint8_t needs[] = {
		[VIRTIO_NET_HDR_GSO_TCPV4] = VIRTIO_NET_F_GUEST_TSO4,
		[VIRTIO_NET_HDR_GSO_UDP] = VIRTIO_NET_F_GUEST_UFO,
		[VIRTIO_NET_HDR_GSO_TCPV6] = VIRTIO_NET_F_GUEST_TSO6,
		[VIRTIO_NET_HDR_GSO_UDP_L4] = VIRTIO_NET_F_GUEST_USO4,
	};
	uint8_t gso = h->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if ((h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !(offloads >> VIRTIO_NET_F_GUEST_CSUM & 1))
		return false;
	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	if (gso >= ARRAY_LEN(needs) || !needs[gso] || !(offloads >> needs[gso] & 1))
		return false;
	return !(h->gso_type & VIRTIO_NET_HDR_GSO_ECN) || (offloads >> VIRTIO_NET_F_GUEST_ECN & 1);
}

/* What the backing had in its queue when the driver changed may not be for this driver. */
static bool acceptable(const struct net_lane *l, const struct net_rx *r)
{
	struct virtio_net_hdr_v1 h = {0};

	iov_get(r->iov, r->niov, 0, &h, sizeof(h));
	return net_rx_header(l->n->st->offloads, &h);
}

/* A frame waits for buffers. True: it does not any more. */
static bool finish_held(struct net_lane *l, struct net_rx *r)
{
	size_t at = r->in_guest;

	if (!take_buffers(l, r, r->held))
		return false;
	if (r->bytes >= r->held) {
		iov_put(r->iov, r->niov, at, r->spill, r->held - at);
		give(l, r, r->held);
	} else if (r->nbuf < r->q->num && r->niov < NET_RX_IOVS) {
		return false;
	} else {
		l->l->stat[STAT_NET_RX_DROPPED]++; /* all there are cannot hold it */
	}
	r->held = 0;
	return true;
}

/* A frame of `len` bytes lies in the buffers and, if it is too long for them, behind. */
static void place(struct net_lane *l, struct net_rx *r, size_t len)
{
	if (!acceptable(l, r) || (len > r->bytes && !mergeable(l))) {
		l->l->stat[STAT_NET_RX_DROPPED]++;
		return;
	}
	if (len <= r->bytes) {
		give(l, r, len);
		return;
	}
	l->l->stat[STAT_NET_RX_SPILLED]++;
	r->held = len;
	r->in_guest = r->bytes;
	if (len > r->want)
		r->want = len;
	(void)finish_held(l, r);
}

/* Into memory of our own, where it can be read before the guest could change it; then to where it
 * would have gone. */
static ssize_t receive_seen(struct net_lane *l, struct net_rx *r, struct net_backing *b)
{
	struct iovec own = {.iov_base = r->spill, .iov_len = sizeof(r->spill)};
	ssize_t len = b->ops->recv(b, &own, 1);

	if (len <= 0)
		return len;
	if (len > (ssize_t)NET_HDR_LEN)
		net_guard_sees(l, r->spill + NET_HDR_LEN, (size_t)len - NET_HDR_LEN);
	iov_put(r->iov, r->niov, 0, r->spill, (size_t)len);
	if ((uint64_t)len > r->bytes)
		memmove(r->spill, r->spill + r->bytes, (size_t)len - r->bytes);
	return len;
}

static ssize_t net_rx_receive(struct net_lane *l, struct net_rx *r, struct net_backing *b)
{
	ssize_t len;

	/* Room for it: see struct net_rx. */
	r->iov[r->niov] = (struct iovec){.iov_base = r->spill, .iov_len = sizeof(r->spill)};
	len = net_guard_reads(l) && b != l->n->metadata ? receive_seen(l, r, b)
							: b->ops->recv(b, r->iov, r->niov + 1);
	if (len == -EPIPE || len == -EPROTO)
		net_lost(l->n, b, (int)len);
	else if (len < 0 && len != -EAGAIN)
		l->l->stat[STAT_NET_RX_DROPPED]++;
	else if (len > 0)
		place(l, r, (size_t)len);
	return len;
}

bool net_rx_serve(struct net_lane *l, struct net_rx *r, struct net_backing *b)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < NET_BUDGET && bytes < NET_BUDGET_BYTES; i++) {
		ssize_t len;

		if (b->dead || (r->held && !finish_held(l, r)) || !net_allowed(&l->n->rx_limit) ||
		    !take_buffers(l, r, r->want))
			return false;
		len = net_rx_receive(l, r, b);
		if (len == -EAGAIN || l->l->broken)
			return false;
		if (b->dead)
			return true; /* what waits to be sent over it is given back */
		if (len < 0)
			continue;
		bytes += (uint64_t)len;
		net_passed(&l->n->rx_limit, (uint64_t)len - NET_HDR_LEN);
	}
	return true;
}
