/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-vsock is told: insula/start.h, and this. */
#ifndef DEVICES_VSOCK_START_H
#define DEVICES_VSOCK_START_H

#include <insula/proto.h>

#define VSOCK_START START_TAG('v', 's', 'k', '1')

#define VSOCK_QUEUES 3u

enum vsock_flags {
	VSOCK_LISTENS = 1, /* there is a socket for the host's clients, and the guest may connect to
			    * sockets next to it; otherwise the guest's connections are refused */
	VSOCK_REACHES = 2, /* the same without a socket: clients come by MSG_VSOCK_CLIENT */
	VSOCK_VHOST = 4,   /* alone, and on Linux: the kernel's vhost-vsock has the streams. Its
			    * descriptor, which this generation of the helper alone has, knows
			    * the CID already. No message of the streams comes */
};
/* START_OWN: the listening socket if VSOCK_LISTENS; a descriptor of /dev/vhost-vsock if
 * VSOCK_VHOST. START_KICK: rx, tx and event queue. */
struct msg_start_vsock {
	struct start_head head;
	uint32_t guest_cid;
	uint32_t flags;     /* enum vsock_flags */
	uint32_t max_conns; /* 1..VSOCK_MAX_CONNS: as many descriptors may the helper have for them
			     */
	uint32_t pad;
};

#endif
