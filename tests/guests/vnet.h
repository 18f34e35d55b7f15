/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A network card with a driver that does nothing wrong, on top of virtio.h: one pair of queues,
 * buffers for frames that come, and one frame at a time that is sent. Virtio 1.2, 5.1. Payloads
 * with hostile drivers fill queues themselves.
 */
#ifndef PAYLOAD_VNET_H
#define PAYLOAD_VNET_H

#include <linux/virtio_net.h>

#include "virtio.h"

#define VNET_HDR 12u /* struct virtio_net_hdr_mrg_rxbuf: always zeros, of what is sent */
#define VNET_QSIZE 64u
#define VNET_BUFS 64u
#define VNET_BUF_LEN 2048u

static struct {
	uint64_t dev;
	struct vq rx, tx, ctrl;
	uint8_t mac[6];
	bool wrong; /* the device has said something that cannot be */
	_Alignas(BOARD_PAGE) uint8_t rx_buf[VNET_BUFS][VNET_BUF_LEN];
	uint8_t tx_buf[VNET_BUF_LEN];
} net;

struct vnet_frame {
	const uint8_t *data; /* without its header */
	uint32_t len;
	uint16_t id;
};

/* The first card, with the control queue if that is among the features, and its address, too. */
PAYLOAD_FN bool vnet_start(uint64_t wanted)
{
	net.dev = vdev_find(VIRTIO_ID_NET);
	if (!net.dev || !vdev_negotiate(net.dev, vdev_offered(net.dev) & wanted) ||
	    !vq_start(&net.rx, net.dev, 0, VNET_QSIZE) ||
	    !vq_start(&net.tx, net.dev, 1, VNET_QSIZE) ||
	    ((wanted & VFEATURE(VIRTIO_NET_F_CTRL_VQ)) &&
	     !vq_start(&net.ctrl, net.dev, 2, VNET_QSIZE)))
		return false;
	vdev_add_status(net.dev, VIRTIO_CONFIG_S_DRIVER_OK);
	for (unsigned i = 0; i < 6; i++)
		net.mac[i] = *(volatile uint8_t *)(uintptr_t)(net.dev + VIRTIO_MMIO_CONFIG + i);
	for (uint16_t i = 0; i < VNET_BUFS; i++) {
		vq_desc(&net.rx, i, (uintptr_t)net.rx_buf[i], VNET_BUF_LEN, VRING_DESC_F_WRITE, 0);
		vq_push(&net.rx, i);
	}
	vq_kick(&net.rx);
	return vget(net.dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

/* What is sent next is put there. */
PAYLOAD_FN uint8_t *vnet_room(void)
{
	return net.tx_buf + VNET_HDR;
}
/* False: the card has not taken it in that time. */
PAYLOAD_FN bool vnet_send(uint32_t len, uint32_t ms)
{
	struct vring_used_elem u;

	vq_desc(&net.tx, 0, (uintptr_t)net.tx_buf, VNET_HDR + len, 0, 0);
	vq_push(&net.tx, 0);
	vq_kick(&net.tx);
	return vq_pop(&net.tx, &u, ms);
}

/* False: none has come in that time, or net.wrong. */
PAYLOAD_FN bool vnet_receive(struct vnet_frame *f, uint32_t ms)
{
	struct vring_used_elem u;

	if (net.wrong || !vq_pop(&net.rx, &u, ms))
		return false;
	net.wrong = u.id >= VNET_BUFS || u.len < VNET_HDR || u.len > VNET_BUF_LEN;
	if (net.wrong)
		return false;
	*f = (struct vnet_frame){net.rx_buf[u.id] + VNET_HDR, u.len - VNET_HDR, (uint16_t)u.id};
	return true;
}
PAYLOAD_FN void vnet_give_back(const struct vnet_frame *f)
{
	vq_push(&net.rx, f->id);
	vq_kick(&net.rx);
}

#endif
