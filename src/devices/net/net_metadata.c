/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-metadata's socket as one more backing: the guest's frames to 169.254.169.254 go there in the
 * place of the TAP or the stream, and what comes from there goes to the guest.
 *
 * The destination is looked for where the guest has the frame, which it can change while it is sent.
 * That is no way out: insula-metadata looks again at what it got, and a frame that reaches the network
 * is one that the guest could have sent by a card without metadata. The address is looked for without
 * regard to the station that the frame goes to: a guest with a default route sends it to its router.
 *
 * Nothing here waits for insula-metadata: while it is away, or slow, frames to it are lost.
 */
#include <errno.h>
#include <net/ethernet.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "net_backing.h"

#define ADDRESS_AT(type) (NET_ETH_LEN + ((type) == ETHERTYPE_ARP ? 24u : 16u))

bool net_metadata_is(const struct iovec *iov, unsigned n, size_t len)
{
	static const uint8_t address[4] = {169, 254, 169, 254};
	uint8_t head[NET_ETH_LEN + 28];
	size_t at, have = len < sizeof(head) ? len : sizeof(head);
	unsigned type;

	if (have < NET_ETH_LEN + 20 || iov_get(iov + 1, n, 0, head, have) != have)
		return false;
	type = (unsigned)head[12] << 8 | head[13];
	if (type != ETHERTYPE_IP && type != ETHERTYPE_ARP)
		return false;
	at = ADDRESS_AT(type);
	return at + sizeof(address) <= have && !memcmp(head + at, address, sizeof(address));
}

static int metadata_send(struct net_backing *b, const struct virtio_net_hdr_v1 *h,
			 struct iovec *iov, unsigned n, size_t len)
{
	(void)h; /* it takes frames of any length, and does not look at checksums */
	(void)len;
	return writev(b->fd, iov + 1, (int)n) < 0 ? -ENOBUFS : 0;
}

static ssize_t metadata_recv(struct net_backing *b, struct iovec *iov, unsigned n)
{
	static const uint8_t no_header[NET_HDR_LEN];
	uint8_t frame[NET_ETH_LEN + 4 + 1500];
	ssize_t got = read(b->fd, frame, sizeof(frame));

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EIO;
	if (got < (ssize_t)NET_ETH_LEN)
		return -EINVAL;
	iov_put(iov, n, 0, no_header, sizeof(no_header));
	iov_put(iov, n, NET_HDR_LEN, frame, (size_t)got);
	return (ssize_t)NET_HDR_LEN + got;
}

static int metadata_flush(struct net_backing *b)
{
	(void)b;
	return 0;
}

static int metadata_offload(struct net_backing *b, uint64_t features)
{
	(void)b;
	(void)features;
	return 0;
}

static void metadata_rules(const struct net_backing *b, struct rule_list *l)
{
	rule_fd(l, SYS_read, b->fd, "a frame of insula-metadata");
	rule_fd(l, SYS_writev, b->fd, "a frame to 169.254.169.254");
}

const struct net_backing_ops net_metadata = {
	.send = metadata_send,
	.recv = metadata_recv,
	.flush = metadata_flush,
	.offload = metadata_offload,
	.rules = metadata_rules,
};
