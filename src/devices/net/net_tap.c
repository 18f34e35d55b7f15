/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TAP queue as the backing of a network device. The supervisor has opened it with IFF_TAP,
 * IFF_NO_PI and IFF_VNET_HDR, set the length of the header to NET_HDR_LEN, and made it
 * non-blocking.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <insula/base.h>

#include "net_backing.h"

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#define BIT(n) (UINT64_C(1) << (n))

/* One kernel offload, what it lets the guest send, what it lets the guest receive. */
static const struct {
	uint32_t tun;
	uint64_t host, guest;
} offloads[] = {
	{TUN_F_CSUM, BIT(VIRTIO_NET_F_CSUM), BIT(VIRTIO_NET_F_GUEST_CSUM)},
	{TUN_F_TSO4, BIT(VIRTIO_NET_F_HOST_TSO4), BIT(VIRTIO_NET_F_GUEST_TSO4)},
	{TUN_F_TSO6, BIT(VIRTIO_NET_F_HOST_TSO6), BIT(VIRTIO_NET_F_GUEST_TSO6)},
	{TUN_F_TSO_ECN, BIT(VIRTIO_NET_F_HOST_ECN), BIT(VIRTIO_NET_F_GUEST_ECN)},
	{TUN_F_UFO, BIT(VIRTIO_NET_F_HOST_UFO), BIT(VIRTIO_NET_F_GUEST_UFO)},
	{TUN_F_USO4, BIT(VIRTIO_NET_F_HOST_USO), BIT(VIRTIO_NET_F_GUEST_USO4)},
	{TUN_F_USO6, 0, BIT(VIRTIO_NET_F_GUEST_USO6)},
};

uint64_t net_tap_features(uint32_t tun_offloads)
{
	uint64_t f = 0;

	/* 5.1.3.1: everything else needs the checksum. */
	if (!(tun_offloads & TUN_F_CSUM))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(offloads); i++) {
		if (tun_offloads & offloads[i].tun)
			f |= offloads[i].host | offloads[i].guest;
	}
	return f;
}

uint32_t net_tap_offloads(uint64_t features)
{
	uint32_t tun = 0;

	if (!(features & BIT(VIRTIO_NET_F_GUEST_CSUM)))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(offloads); i++) {
		if (features & offloads[i].guest)
			tun |= offloads[i].tun;
	}
	/* ECN is a property of TSO, and the kernel takes USO for both protocols or not at all. */
	if (!(tun & (TUN_F_TSO4 | TUN_F_TSO6)))
		tun &= ~(uint32_t)TUN_F_TSO_ECN;
	if ((tun & (TUN_F_USO4 | TUN_F_USO6)) != (TUN_F_USO4 | TUN_F_USO6))
		tun &= ~(uint32_t)(TUN_F_USO4 | TUN_F_USO6);
	return tun;
}

/* EBADFD: the interface has been removed. EIO: it is down: frames are lost, as on a wire. */
static int result(ssize_t n)
{
	if (n >= 0)
		return 0;
	if (errno == EBADFD || errno == ENODEV)
		return -EPIPE;
	return errno == EINTR ? -EAGAIN : -errno;
}

static int tap_send(struct net_backing *b, const struct virtio_net_hdr_v1 *h, struct iovec *iov,
		    unsigned n, size_t len)
{
	(void)len;
	/* writev() does not write what iov[0] points to. */
	iov[0] = (struct iovec){.iov_base = (void *)(uintptr_t)h, .iov_len = NET_HDR_LEN};
	return result(writev(b->fd, iov, (int)n + 1));
}

static ssize_t tap_recv(struct net_backing *b, struct iovec *iov, unsigned n)
{
	ssize_t got = readv(b->fd, iov, (int)n);

	if (got >= (ssize_t)(NET_HDR_LEN + NET_ETH_LEN))
		return got;
	return got < 0 ? result(got) : -EINVAL;
}

static int tap_flush(struct net_backing *b)
{
	(void)b;
	return 0;
}

static int tap_offload(struct net_backing *b, uint64_t features)
{
	unsigned long tun = net_tap_offloads(features);

	return ioctl(b->fd, TUNSETOFFLOAD, tun) ? -errno : 0;
}

static void tap_rules(const struct net_backing *b, struct rule_list *l)
{
	rule_fd(l, SYS_readv, b->fd, "receive a frame");
	rule_fd(l, SYS_writev, b->fd, "send a frame");
	rule_ioctl(l, b->fd, TUNSETOFFLOAD, "what kinds of frames the guest can take");
}

const struct net_backing_ops net_tap = {
	.send = tap_send,
	.recv = tap_recv,
	.flush = tap_flush,
	.offload = tap_offload,
	.rules = tap_rules,
};

const struct net_backing_ops *net_backing_find(uint32_t kind)
{
	static const struct net_backing_ops *const kinds[] = {
		[NET_TAP] = &net_tap,
		[NET_STREAM] = &net_stream,
	};

	return kind < ARRAY_LEN(kinds) ? kinds[kind] : NULL;
}
