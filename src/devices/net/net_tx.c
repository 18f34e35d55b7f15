/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames from the guest (virtio 1.2, 5.1.6.2).
 *
 * The header is copied, checked against what was negotiated, and the copy is sent: the kernel never
 * reads a header from guest memory. The frame itself goes from guest memory into the backing.
 */
#include <errno.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "net.h"

void net_tx_start(struct net_lane *l, struct net_tx *t, struct virtqueue *q)
{
	(void)l;
	t->q = q;
	t->held = false;
}

static bool gso_allowed(uint64_t features, const struct virtio_net_hdr_v1 *h)
{
	static const uint8_t needs[] = {
		[VIRTIO_NET_HDR_GSO_TCPV4] = VIRTIO_NET_F_HOST_TSO4,
		[VIRTIO_NET_HDR_GSO_UDP] = VIRTIO_NET_F_HOST_UFO,
		[VIRTIO_NET_HDR_GSO_TCPV6] = VIRTIO_NET_F_HOST_TSO6,
		[VIRTIO_NET_HDR_GSO_UDP_L4] = VIRTIO_NET_F_HOST_USO,
	};
	uint8_t gso = h->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if (gso >= ARRAY_LEN(needs) || !needs[gso] || !(features >> needs[gso] & 1))
		return false;
	if ((h->gso_type & VIRTIO_NET_HDR_GSO_ECN) && !(features >> VIRTIO_NET_F_HOST_ECN & 1))
		return false;
	return h->gso_size && (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

bool net_tx_header(uint64_t features, struct virtio_net_hdr_v1 *h, size_t len)
{
	h->num_buffers = 0;
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (len < NET_ETH_LEN || len > NET_MAX_FRAME)
		return false;
	if (h->flags) {
		if (!(features >> VIRTIO_NET_F_CSUM & 1) ||
		    (size_t)h->csum_start + h->csum_offset + 2 > len)
			return false;
	} else {
		h->csum_start = h->csum_offset = 0;
	}
	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		h->gso_size = h->hdr_len = 0;
		return true;
	}
	/* A hint alone (5.1.6.2.1), but the kernel refuses one that is too long. */
	if (h->hdr_len > len)
		h->hdr_len = (uint16_t)len;
	return gso_allowed(features, h);
}

/* 1: the next frame is in t; 0: none; -1: a mistake, reported. */
static int net_tx_take(struct net_lane *l, struct net_tx *t)
{
	struct vq_chain c = {.iov = &t->iov[1]};
	int rc = vq_next(t->q, &c);

	if (rc < 0)
		lane_fault(l->l, t->q->why);
	if (rc <= 0)
		return rc;
	if (c.nwrite || c.read_len < NET_HDR_LEN) {
		lane_fault(l->l, "a frame to send that is for writing, or shorter than its header");
		return -1;
	}
	iov_get(c.iov, c.nread, 0, &t->hdr, NET_HDR_LEN);
	t->head = c.head;
	t->n = iov_cut(c.iov, VQ_MAX_NUM, c.iov, c.nread, NET_HDR_LEN, SIZE_MAX, &t->len);
	return 1;
}

static int send_frame(struct net_lane *l, struct net_tx *t, struct net_backing *b)
{
	bool inside = l->n->metadata && net_metadata_is(t->iov, t->n, t->len);
	int rc = -EINVAL;

	if (inside)
		b = l->n->metadata; /* which no policy is about */
	if (b->dead)
		rc = -EPIPE;
	else if (t->held || (net_tx_header(l->n->features, &t->hdr, t->len) &&
			     (inside || net_guard_lets(l, t))))
		rc = b->ops->send(b, &t->hdr, t->iov, t->n, t->len);
	t->held = rc == -EAGAIN;
	if (t->held)
		return rc;
	vq_push(t->q, t->head, 0);
	if (rc == 0) {
		l->l->stat[STAT_NET_TX_PACKETS]++;
		l->l->stat[STAT_NET_TX_BYTES] += t->len;
	} else {
		l->l->stat[STAT_NET_TX_DROPPED]++;
	}
	if (rc == -EPIPE)
		net_lost(l->n, b, rc);
	return rc;
}

bool net_tx_serve(struct net_lane *l, struct net_tx *t, struct net_backing *b)
{
	uint64_t bytes = 0;

	if (!t->q->num)
		return false;
	if (!b->dead && b->out_at < b->out_end && b->ops->flush(b) == -EPIPE)
		net_lost(l->n, b, -EPIPE);
	for (unsigned i = 0; i < NET_BUDGET && bytes < NET_BUDGET_BYTES; i++) {
		if (!t->held && (!net_allowed(&l->n->tx_limit) || net_tx_take(l, t) <= 0))
			return false;
		if (send_frame(l, t, b) == -EAGAIN)
			return false;
		bytes += t->len;
		net_passed(&l->n->tx_limit, t->len < NET_MAX_FRAME ? t->len : NET_MAX_FRAME);
	}
	return true;
}
