/* SPDX-License-Identifier: BSD-2-Clause */
/* A network card's part of its device page: what outlives insula-net, and what a snapshot holds. */
#ifndef DEVICES_NET_PAGE_H
#define DEVICES_NET_PAGE_H

#include "devices/dev_port.h"
#include "devices/virtio/virtio.h"

#define NET_TAG 0x3154454eu /* "NET1" */

/* What the driver has set with commands; in the device page, behind struct virtio_state. */
struct net_state {
	uint64_t offloads; /* VIRTIO_NET_F_GUEST_* in force */
	uint16_t npairs;   /* active */
	uint8_t mac[6];
	uint8_t promisc, allmulti;
	uint8_t valid; /* this was filled in for the driver that runs */
	uint8_t pad[5];
};

struct net_page {
	struct virtio_state virtio;
	struct net_state net;
};
_Static_assert(sizeof(struct net_page) <= PORT_DEV_STATE_SIZE, "the state fits the page");

/* Where it lies in the page. */
#define NET_STATE_OFF (DP_STATE_OFF + PORT_STATE_LEN + offsetof(struct net_page, net))

#endif
