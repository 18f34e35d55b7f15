/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What carries the frames of a network device: one small interface, two kinds.
 *
 *   net_tap      a TAP queue with IFF_VNET_HDR: one frame and its header per system call
 *   net_stream   a stream socket, each frame behind its length (32 bits, big endian): what QEMU's
 *                "-netdev stream", switches made for it, and passt speak
 *
 * and beside it net_metadata, insula-metadata's socket, each message a frame.
 *
 * A backing makes no decision about what the guest may do: headers have been checked before send()
 * and are checked after recv(). Descriptors do not block.
 *
 * Thread: rules by the control thread before the jail is sealed, the rest by I/O threads. send()
 * and recv() of a TAP may be two threads'; all others have one.
 */
#ifndef DEVICES_NET_BACKING_H
#define DEVICES_NET_BACKING_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <insula/err.h>
#include <insula/proto.h>

#include "net_start.h"
#include "devices/helper.h"

#define NET_HDR_LEN ((unsigned)sizeof(struct virtio_net_hdr_v1)) /* 12; virtio 1.2, 5.1.6 */
#define NET_ETH_LEN 14u
/* The longest frame: 64 KiB of IP behind an Ethernet header with a VLAN tag; GSO is no longer. */
#define NET_MAX_FRAME (65535u + NET_ETH_LEN + 4u)
#define NET_MAX_PACKET (NET_HDR_LEN + NET_MAX_FRAME)

/* Not in the headers of every distribution: virtio 1.3 and Linux 6.2. */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO 56
#endif
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

/* What the guest's receiving side may be offered; CSUM is the condition of all others. */
#define NET_GUEST_GSO                                                                      \
	(UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6 | \
	 UINT64_C(1) << VIRTIO_NET_F_GUEST_UFO | UINT64_C(1) << VIRTIO_NET_F_GUEST_USO4 |  \
	 UINT64_C(1) << VIRTIO_NET_F_GUEST_USO6)
#define NET_GUEST_OFFLOADS                                        \
	(NET_GUEST_GSO | UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM | \
	 UINT64_C(1) << VIRTIO_NET_F_GUEST_ECN)

#define NET_STREAM_IN (128u << 10) /* bytes taken from a stream at once */
#define NET_STREAM_OUT (4u + NET_MAX_FRAME)

struct net_backing {
	const struct net_backing_ops *ops;
	int fd;
	_Atomic bool dead; /* its other side is gone: for good, or until replace() */
	bool no_loopback;  /* net_stream: NET_NO_LOOPBACK */

	/* net_stream: bytes in[in_at, in_end) are not delivered, out[out_at, out_end) not sent */
	uint8_t *in, *out;
	uint32_t in_at, in_end, out_at, out_end;
};

struct net_backing_ops {
	/* Send one frame. iov[0] is the backing's to fill, iov[1] up to iov[n] are the `len` bytes
	 * of the frame. 0: sent, or as good as; -EAGAIN: the same frame again when the descriptor
	 * is writable; -EPIPE: the other side is gone; else: this frame cannot be sent. */
	int (*send)(struct net_backing *b, const struct virtio_net_hdr_v1 *h, struct iovec *iov,
		    unsigned n, size_t len);
	/* Receive one frame behind a header of NET_HDR_LEN bytes (num_buffers is not filled in).
	 * The vector has room for NET_MAX_PACKET. Number of bytes; -EAGAIN: none there; -EPIPE: the
	 * other side is gone; -EPROTO: it broke the framing; else: a frame is lost. */
	ssize_t (*recv)(struct net_backing *b, struct iovec *iov, unsigned n);
	/* Write what is left of a frame that was as good as sent. As send(). */
	int (*flush)(struct net_backing *b);
	/* Go on with this stream, from between two frames; takes it over. NULL: cannot be. */
	void (*replace)(struct net_backing *b, int fd);
	/* Deliver frames with no more than these offloads (VIRTIO_NET_F_GUEST_* bits). */
	int (*offload)(struct net_backing *b, uint64_t features);
	void (*rules)(const struct net_backing *b, struct rule_list *l);
};

extern const struct net_backing_ops net_tap, net_stream, net_metadata;

/* Does the frame of `len` bytes go to 169.254.169.254, or ask for its address? iov[0] is not looked
 * at. */
bool net_metadata_is(const struct iovec *iov, unsigned n, size_t len);

/* NULL: no such kind (enum net_kind). */
const struct net_backing_ops *net_backing_find(uint32_t kind);
/* The VIRTIO_NET_F_* bits that a TAP with these TUN_F_* bits has, for both directions. */
uint64_t net_tap_features(uint32_t tun_offloads);
/* And back, for the guest's receiving side. */
uint32_t net_tap_offloads(uint64_t features);

#endif
