/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One connection to a vhost-user back end: requests and their replies, and the channel of the back
 * end's own requests.
 *
 * The back end is not believed. Each reply has the number of its request, the version, the flag and
 * the length that it must have, and brings a descriptor only if one was asked for; anything else,
 * and no answer in time, is an error, after which the connection is of no use. Its own requests
 * have their length checked; "the configuration has changed" is noted, everything else is refused,
 * and what they bring is closed.
 *
 * The numbers of the two descriptors never change, because the jail's rules name them: while there
 * is no connection another descriptor keeps them.
 *
 * Thread: the control thread. Waits until `until_ns` at most; allocates nothing.
 */
#ifndef DEVICES_VHOST_LINK_H
#define DEVICES_VHOST_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include <insula/err.h>

#include "vhost_proto.h"

struct vhost_link {
	int fd;       /* owned: to the back end */
	int back_fd;  /* owned: our end of the channel of its requests */
	int spare_fd; /* borrowed: keeps the numbers */
	int ep_fd;    /* borrowed: the set in which both are while they are up */
	bool up, back_up;
	bool acks;         /* REPLY_ACK is in force */
	bool config_news;  /* the back end has said that its configuration changed */
	uint64_t until_ns; /* clock_ns(): nothing waits longer */
	uint64_t messages, requests;

	struct { /* of a request of the back end, as far as it has come */
		struct vhost_hdr hdr;
		uint8_t payload[VHOST_MAX_PAYLOAD];
		size_t got;
	} in;
};

#define VHOST_BACK_BUDGET 16u /* requests of the back end of one turn */

/* The connection that came with the start is in its place. */
void vlink_first(struct vhost_link *l);
/* Take over a connection; the number of `fd` is closed. */
void vlink_begin(struct vhost_link *l, int fd);
/* It is of no use any more: close it and the other channel. */
void vlink_end(struct vhost_link *l);
/* Make the channel of its requests. Returns the back end's end, the caller's; or a negative errno. */
int vlink_open_back(struct vhost_link *l);

/* Send one message, perhaps with descriptors, which stay the caller's. 0, -ETIMEDOUT, -EPIPE or
 * another negative errno. */
int vlink_send(struct vhost_link *l, enum vhost_request r, uint32_t flags, const void *payload,
	       size_t len, const int *fds, unsigned nfds);
/* The reply to the last request: `min` to `max` bytes of it, *len if not NULL. *fd: one descriptor,
 * the caller's, must come; NULL: none may. -EPROTO: it is not what it must be. */
int vlink_reply(struct vhost_link *l, enum vhost_request r, void *payload, size_t min, size_t max,
		size_t *len, int *fd);
/* A request that changes something; with REPLY_ACK it must say that it did: -EREMOTEIO. */
int vlink_set(struct vhost_link *l, enum vhost_request r, const void *payload, size_t len,
	      const int *fds, unsigned nfds);
int vlink_set_u64(struct vhost_link *l, enum vhost_request r, uint64_t value);
/* A question for a number. */
int vlink_get_u64(struct vhost_link *l, enum vhost_request r, uint64_t *value);
/* SET_DEVICE_STATE_FD with `fd`, which stays the caller's. *other: a descriptor to be used instead,
 * the caller's; -1: there is none. -EREMOTEIO: it refuses. */
int vlink_transfer(struct vhost_link *l, uint32_t direction, int fd, int *other);
/* Wait for another descriptor than the connection's. 1: it is ready; 0: not yet, look again;
 * -ETIMEDOUT or another negative errno. */
int vlink_wait_fd(struct vhost_link *l, int fd, short events);

/* The other channel has something: at most VHOST_BACK_BUDGET requests. It is closed when it ends or
 * when it says what cannot be. */
void vlink_hear_back(struct vhost_link *l);

#endif
