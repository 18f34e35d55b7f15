/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-net is told: insula/start.h, and this. */
#ifndef DEVICES_NET_START_H
#define DEVICES_NET_START_H

#include <insula/netpolicy.h>
#include <insula/proto.h>

#define NET_START START_TAG('n', 'e', 't', '1')

enum net_kind { NET_TAP = 1, NET_STREAM = 2 };
enum net_flags {
	NET_AWAY = 1,        /* the stream has no other end: the link is down until MSG_NET_PEER */
	NET_NO_LOOPBACK = 2, /* the other end would take the host's loopback addresses for its own:
			      * drop what the guest sends there */
	NET_METADATA = 4,    /* 169.254.169.254 is insula-metadata's: its socket is the last of the
			      * descriptors */
	NET_POLICED = 8,     /* drop all that the guest sends until MSG_NET_POLICY */
	NET_VHOST = 16,      /* of a TAP, without limits, a policy or metadata: the kernel serves
			      * it. A descriptor of /dev/vhost-net for each pair is behind those of
			      * the TAP, which this generation of the helper alone has */
};
/* START_KICK: 2 * npairs + 1 (receiveq 1, transmitq 1, ... controlq). START_OWN: for NET_TAP one
 * queue of the TAP per pair, for NET_STREAM one connected stream socket; with NET_METADATA one more,
 * a SOCK_SEQPACKET whose messages are frames. They do not block. The stream belongs to this generation of the helper alone. When it ends the helper says
 * MSG_NET_LOST, once, lives on with its link down, and gets another by MSG_NET_PEER. */
struct msg_start_net {
	struct start_head head;
	struct msg_limit limit;
	uint32_t kind;         /* enum net_kind */
	uint32_t npairs;       /* 1..NET_MAX_PAIRS; 1 for NET_STREAM */
	uint32_t tun_offloads; /* TUN_F_* that the TAP can do; 0 for NET_STREAM */
	uint32_t mtu;          /* told to the guest; 0: nothing is told */
	uint32_t flags;        /* enum net_flags; for NET_TAP the last three alone */
	uint8_t mac[6];
	uint16_t nthreads; /* for the pairs: 1..npairs; 1 with NET_VHOST */
};

#endif
