/* SPDX-License-Identifier: BSD-2-Clause */
/* A small driver of virtio-vsock for payloads (virtio 1.2, 5.10): one packet at a time each way. */
#ifndef PAYLOAD_VSOCKDRV_H
#define PAYLOAD_VSOCKDRV_H

#include <linux/virtio_vsock.h>

#include "virtio.h"

#define RX 0
#define TX 1
#define EVENT 2
#define SIZE 16
#define BUF 4096u
#define HDR ((uint32_t)sizeof(struct virtio_vsock_hdr))
#define CID 3u
#define HUGE (300u << 10)
#define ALLOC 0x40000000u

static _Alignas(BOARD_PAGE) uint8_t rx[SIZE][BUF], tx[HUGE + 64], ev[SIZE];
static uint64_t dev;
static struct vq q[3];
static struct virtio_vsock_hdr got;
static uint8_t *data;
static int last = -1; /* the buffer that `data` is in */

PAYLOAD_FN void offer_rx(uint16_t i)
{
	vq_desc(&q[RX], i, (uintptr_t)rx[i], BUF, VRING_DESC_F_WRITE, 0);
	vq_push(&q[RX], i);
}

PAYLOAD_FN bool start(void)
{
	if (!vdev_negotiate(dev,
			    VFEATURE(VIRTIO_F_VERSION_1) | VFEATURE(VIRTIO_RING_F_INDIRECT_DESC)))
		return false;
	for (unsigned i = 0; i < 3; i++)
		if (!vq_start(&q[i], dev, i, SIZE))
			return false;
	last = -1;
	for (uint16_t i = 0; i < SIZE; i++)
		offer_rx(i);
	vq_desc(&q[EVENT], 0, (uintptr_t)ev, 4, VRING_DESC_F_WRITE, 0);
	vq_push(&q[EVENT], 0);
	vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	for (unsigned i = 0; i < 3; i++)
		vq_kick(&q[i]);
	return vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

PAYLOAD_FN struct virtio_vsock_hdr packet(uint16_t op, uint32_t mine, uint32_t theirs)
{
	return (struct virtio_vsock_hdr){.src_cid = CID,
					 .dst_cid = 2,
					 .src_port = mine,
					 .dst_port = theirs,
					 .type = VIRTIO_VSOCK_TYPE_STREAM,
					 .op = op,
					 .buf_alloc = ALLOC};
}

/* The header and h->len bytes behind it in tx[], as two descriptors. False: not taken in time. */
PAYLOAD_FN bool send(const struct virtio_vsock_hdr *h)
{
	struct vring_used_elem u;

	memcpy(tx, h, HDR);
	vq_desc(&q[TX], 0, (uintptr_t)tx, 7, VRING_DESC_F_NEXT, 1);
	vq_desc(&q[TX], 1, (uintptr_t)tx + 7, HDR - 7 + h->len, 0, 0);
	vq_push(&q[TX], 0);
	vq_kick(&q[TX]);
	return vq_pop(&q[TX], &u, VIRTIO_WAIT_MS) && u.id == 0 && u.len == 0;
}

PAYLOAD_FN bool say(uint16_t op, uint32_t mine, uint32_t theirs)
{
	struct virtio_vsock_hdr h = packet(op, mine, theirs);

	return send(&h);
}

/* The next packet for us: `got` and `data`, valid until the next call. */
PAYLOAD_FN bool receive(uint32_t ms)
{
	struct vring_used_elem u;

	if (last >= 0) {
		offer_rx((uint16_t)last);
		vq_kick(&q[RX]);
	}
	last = -1;
	if (!vq_pop(&q[RX], &u, ms) || u.id >= SIZE || u.len < HDR)
		return false;
	last = (int)u.id;
	memcpy(&got, rx[u.id], HDR);
	data = rx[u.id] + HDR;
	return u.len == HDR + got.len && got.dst_cid == CID;
}

PAYLOAD_FN bool comes(uint16_t op, uint32_t mine, uint32_t theirs)
{
	return receive(VIRTIO_WAIT_MS) && got.op == op && got.dst_port == mine &&
	       got.src_port == theirs;
}

#endif
