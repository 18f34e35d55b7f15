/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire of the vhost-user protocol, as the specification in QEMU's documentation numbers it
 * (docs/interop/vhost-user.rst): a header, a payload, and descriptors with the first byte. All is
 * of the host's byte order.
 */
#ifndef DEVICES_VHOST_PROTO_H
#define DEVICES_VHOST_PROTO_H

#include <insula/memmap.h>

#include "vhost_start.h"

/* From the front end to the back end. */
enum vhost_request {
	VHOST_GET_FEATURES = 1,
	VHOST_SET_FEATURES = 2,
	VHOST_SET_OWNER = 3,
	VHOST_SET_MEM_TABLE = 5,
	VHOST_SET_VRING_NUM = 8,
	VHOST_SET_VRING_ADDR = 9,
	VHOST_SET_VRING_BASE = 10,
	VHOST_GET_VRING_BASE = 11,
	VHOST_SET_VRING_KICK = 12,
	VHOST_SET_VRING_CALL = 13,
	VHOST_SET_VRING_ERR = 14,
	VHOST_GET_PROTOCOL_FEATURES = 15,
	VHOST_SET_PROTOCOL_FEATURES = 16,
	VHOST_GET_QUEUE_NUM = 17,
	VHOST_SET_VRING_ENABLE = 18,
	VHOST_SET_BACKEND_REQ_FD = 21,
	VHOST_GET_CONFIG = 24,
	VHOST_SET_CONFIG = 25,
	VHOST_GET_INFLIGHT_FD = 31,
	VHOST_SET_INFLIGHT_FD = 32,
	VHOST_SET_DEVICE_STATE_FD = 42,
	VHOST_CHECK_DEVICE_STATE = 43,
};

/* On the channel of the back end's own requests. */
#define VHOST_BACKEND_CONFIG_CHANGE 2u

/* Of the features that both negotiate; the others are the guest's. */
#define VHOST_F_LOG_ALL 26
#define VHOST_F_PROTOCOL_FEATURES 30

enum vhost_protocol_feature {
	VHOST_P_MQ = 0,
	VHOST_P_REPLY_ACK = 3,
	VHOST_P_BACKEND_REQ = 5,
	VHOST_P_CONFIG = 9,
	VHOST_P_INFLIGHT_SHMFD = 12,
	VHOST_P_DEVICE_STATE = 19,
};

#define VHOST_VERSION 1u
#define VHOST_VERSION_MASK 3u
#define VHOST_REPLY 4u
#define VHOST_NEED_REPLY 8u

struct vhost_hdr {
	uint32_t request, flags;
	uint32_t size; /* of the payload */
};
_Static_assert(sizeof(struct vhost_hdr) == 12, "wire size");

/* SET_VRING_KICK, _CALL, _ERR: the number of the ring, and in this bit that no descriptor comes. */
#define VHOST_VRING_NO_FD 0x100u

struct vhost_vring_state { /* SET_VRING_NUM, _BASE, _ENABLE; the reply of GET_VRING_BASE */
	uint32_t index, num;
};
_Static_assert(sizeof(struct vhost_vring_state) == 8, "wire size");

struct vhost_vring_addr { /* addresses of the front end: for us the guest's */
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};
_Static_assert(sizeof(struct vhost_vring_addr) == 40, "wire size");

struct vhost_mem_table {
	uint32_t nregions, pad;
	struct {
		uint64_t gpa, size;
		uint64_t user; /* the front end's address: for us the guest's */
		uint64_t offset;
	} region[MEMMAP_MAX];
};
_Static_assert(sizeof(struct vhost_mem_table) == 8 + MEMMAP_MAX * 32, "wire size");

struct vhost_config_space {
	uint32_t offset, size, flags;
	uint8_t bytes[VHOST_CONFIG_MAX];
};
_Static_assert(sizeof(struct vhost_config_space) == 12 + VHOST_CONFIG_MAX, "wire size");
#define VHOST_CONFIG_HEAD 12u

/* SET_DEVICE_STATE_FD: which way what the back end holds goes through the descriptor that comes
 * along. Of phases there is one: all rings are stopped. */
struct vhost_transfer {
	uint32_t direction, phase;
};
_Static_assert(sizeof(struct vhost_transfer) == 8, "wire size");
#define VHOST_TRANSFER_SAVE 0u
#define VHOST_TRANSFER_LOAD 1u
#define VHOST_TRANSFER_STOPPED 0u
/* Its reply, a number: these bits are 0 if it begins; and it goes through our descriptor, or
 * through the one that comes with the reply. */
#define VHOST_TRANSFER_ERROR 0xffu
#define VHOST_TRANSFER_OURS 0x100u

#define VHOST_MAX_PAYLOAD sizeof(struct vhost_config_space)

#endif
