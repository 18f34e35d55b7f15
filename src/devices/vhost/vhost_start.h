/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-vhost is told: insula/start.h, and this. */
#ifndef DEVICES_VHOST_START_H
#define DEVICES_VHOST_START_H

#include <insula/proto.h>

#define VHOST_START START_TAG('v', 'h', 's', '1')

#define VHOST_TAG_LEN 36     /* virtio 1.2, 5.11.4 */
#define VHOST_CONFIG_MAX 256 /* what a message of the protocol carries */
/* Of what a back end holds, as a snapshot has it. virtiofsd: some 50 bytes for each file that the
 * guest knows. */
#define VHOST_HELD_MAX (64u << 20)

enum vhost_flags {
	VHOST_AWAY =
		1, /* there is no back end: the socket has no other end, until MSG_VHOST_PEER */
	VHOST_INFLIGHT = 2, /* an earlier helper left `inflight`, and its descriptor comes along */
	VHOST_HAD = 4,    /* with VHOST_AWAY: the socket is the connection of the helper before. The
			* back end is asked for the rings, then it is closed */
	VHOST_NO_WCE = 8, /* of a disk: the guest is not offered to switch its write cache */
	VHOST_KEEPS_ACCOUNT = 16, /* the back end has INFLIGHT_SHMFD, though it does not offer it */
	VHOST_LOAD = 32, /* a snapshot has what the back end held: `held` bytes, in memory that
			  * comes along, for the one that is there now, before MSG_READY */
};

/* Requests that a back end has begun and not answered are in memory of its own making, which it
 * gets again with the next connection (INFLIGHT_SHMFD). Nobody of ours looks into it. */
struct vhost_inflight {
	uint64_t size, offset; /* of the memory in its descriptor; size 0: there is none */
	uint16_t nqueues, queue_size;
	uint32_t pad;
};
_Static_assert(sizeof(struct vhost_inflight) == 24, "wire size");

/* START_KICK: one for each queue. START_OWN: one stream socket, connected to the back end, then the
 * descriptor of `inflight` if there is one, then with VHOST_LOAD the memory. But for VHOST_HAD the
 * socket belongs to this generation of the helper alone. When it ends the helper says
 * MSG_VHOST_LOST, once, lives on, and gets another by MSG_VHOST_PEER. */
struct msg_start_vhost {
	struct start_head head;
	struct vhost_inflight inflight;
	uint32_t device_id;      /* virtio 1.2, 5 */
	uint32_t nqueues;        /* 1..VIRTIO_MAX_QUEUES */
	uint32_t config_len;     /* bytes of configuration to ask the back end for; 0: none */
	uint32_t flags;          /* enum vhost_flags */
	char tag[VHOST_TAG_LEN]; /* of a file system, padded with zeros; empty: the back end's */
	uint8_t mac[6];          /* of a network card; all zero: the guest chooses */
	uint8_t pad[2];
	uint64_t held; /* with VHOST_LOAD; else 0 */
};

#endif
