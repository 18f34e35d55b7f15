/* SPDX-License-Identifier: BSD-2-Clause */
/* A vhost-user device's part of its device page: what outlives insula-vhost, and what a snapshot
 * holds. */
#ifndef DEVICES_VHOST_PAGE_H
#define DEVICES_VHOST_PAGE_H

#include "devices/dev_port.h"
#include "devices/virtio/virtio.h"
#include "vhost_start.h"

#define VHOST_PAGE_TAG 0x31484f56u /* "VOH1" */

enum vhost_ring_is {
	VHOST_RING_FRESH,   /* no back end has had it since the driver made it */
	VHOST_RING_RUNS,    /* a back end has it, or had it when its connection ended */
	VHOST_RING_STOPPED, /* it was given back, and goes on at `base` */
};

enum vhost_page_flags {
	/* The back end that is there can give what it holds, and so be part of a snapshot. The
	 * helper says so; whether it then does is another matter. */
	VHOST_CAN_SAVE = 1,
};

/* In the device page, behind struct virtio_state. All zero: no back end has been met yet. */
struct vhost_state {
	uint32_t known;    /* the back end has said what it is: */
	uint32_t flags;    /* enum vhost_page_flags */
	uint64_t features; /* that the guest is offered */
	uint8_t config[VHOST_CONFIG_MAX];
	uint8_t wrote[VHOST_CONFIG_MAX]; /* 1: the driver has written this byte of it */
	struct {
		uint16_t is; /* enum vhost_ring_is */
		uint16_t base;
		uint16_t since; /* vring_mend() */
		uint16_t pad;
	} ring[VIRTIO_MAX_QUEUES];
};

struct vhost_page {
	struct virtio_state virtio;
	struct vhost_state vhost;
};
_Static_assert(sizeof(struct vhost_page) <= PORT_DEV_STATE_SIZE, "the state fits the page");

/* Where it lies in the page. */
#define VHOST_STATE_OFF (DP_STATE_OFF + PORT_STATE_LEN + offsetof(struct vhost_page, vhost))

#endif
