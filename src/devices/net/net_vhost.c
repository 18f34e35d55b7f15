/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pairs of a card that the kernel's vhost-net serves (NET_VHOST): from the start of the driver
 * to its end a worker of the kernel's for each takes frames out of the rings and gives them to the
 * TAP, and the other way round. This process answers registers and commands. See devices/kvhost.h.
 *
 * The kernel spreads what comes over all queues of a TAP. One whose pair the driver does not use is
 * taken out (TUNSETQUEUE), because nothing may come to that (virtio 1.2, 5.1.6.5.6); what vhost-net
 * has taken from the queue by then, a few frames, still does. The queues are the supervisor's as
 * well, and in the state in which the last process left them.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <insula/base.h>

#include "net.h"

#define BIT(n) (UINT64_C(1) << (n))
/* What of the features is the worker's; the others are the TAP's and ours. */
#define RING_FEATURES                                                 \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define RINGS 2u

int net_vhost_open(struct net *n, const int *fds, struct err *e)
{
	int rc = 0;

	for (unsigned p = 0; p < n->conf.npairs && !rc; p++)
		rc = kvhost_open(&n->vhost[p], "vhost-net", &n->w, fds[p], p * RINGS, RINGS,
				 RING_FEATURES, e);
	return rc;
}

static void net_vhost_pair_rules(const struct net *n, unsigned p, struct rule_list *l)
{
	kvhost_rules(&n->vhost[p], l);
	rule_ioctl(l, n->vhost[p].fd, VHOST_NET_SET_BACKEND,
		   "begin to serve a ring for the TAP, or stop");
	rule_ioctl(l, n->backing[p].fd, TUNSETOFFLOAD, "what kinds of frames the guest can take");
	if (p)
		rule_ioctl(l, n->backing[p].fd, TUNSETQUEUE,
			   "has the guest an active pair for this queue?");
}

void net_vhost_rules(const struct net *n, struct rule_list *l)
{
	for (unsigned p = 0; p < n->conf.npairs; p++)
		net_vhost_pair_rules(n, p, l);
}

/* ---- the queues of the TAP ---- */

static int set_queue(const struct net *n, unsigned p, short flag)
{
	struct ifreq r = {.ifr_flags = flag};

	return ioctl(n->backing[p].fd, TUNSETQUEUE, &r) ? -errno : 0;
}

int net_vhost_queues(const struct net *n, unsigned pairs)
{
	int rc = 0;

	/* The first one is always there. */
	for (unsigned p = 1; p < n->conf.npairs && !rc; p++) {
		rc = set_queue(n, p, IFF_DETACH_QUEUE);
		if (rc == -EINVAL) /* it was */
			rc = 0;
		if (!rc && p < pairs)
			rc = set_queue(n, p, IFF_ATTACH_QUEUE);
	}
	return rc;
}

/* ---- the control thread, sealed ---- */

static unsigned pairs_of_driver(const struct net *n)
{
	return n->w.front.v.st->driver_features & BIT(VIRTIO_NET_F_MQ) ? n->conf.npairs : 1;
}

/* All but the control queue. */
uint32_t net_vhost_lent(const void *dev)
{
	return (1u << pairs_of_driver(dev) * RINGS) - 1;
}

static int net_vhost_ring(const struct net *n, unsigned p, unsigned i, const char **what)
{
	const struct kvhost *k = &n->vhost[p];
	int rc = kvhost_ring(k, i, what);

	if (rc)
		return rc;
	*what = "NET_SET_BACKEND";
	rc = kvhost_file(k, VHOST_NET_SET_BACKEND, i, n->backing[p].fd);
	return rc ? rc : kvhost_kick(k, i, what);
}

static int net_vhost_pair(const struct net *n, unsigned p, const char **what)
{
	int rc = kvhost_features(&n->vhost[p], what);

	for (unsigned i = 0; i < RINGS && !rc; i++) {
		if (kvhost_is_ready(&n->vhost[p], i))
			rc = net_vhost_ring(n, p, i, what);
	}
	return rc;
}

static bool tap_is_gone(const struct net *n)
{
	struct pollfd p = {.fd = n->backing[0].fd};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

static int net_vhost_run(struct net *n, const char **what)
{
	int rc;

	*what = "TUNSETOFFLOAD";
	rc = n->backing[0].ops->offload(&n->backing[0], n->st->offloads);
	for (unsigned p = 0; p < n->npairs && !rc; p++)
		rc = net_vhost_pair(n, p, what);
	return rc;
}

void net_vhost_start(struct net *n, int rc)
{
	const char *what = "TUNSETQUEUE";

	if (n->backing[0].dead)
		return;
	if (tap_is_gone(n)) {
		net_lost(n, &n->backing[0], -EPIPE);
		return;
	}
	if (!rc)
		rc = net_vhost_run(n, &what);
	if (rc)
		kvhost_failed(&n->vhost[0], what, rc);
}

void net_vhost_stop(const struct net *n)
{
	int rc = 0;

	for (unsigned p = 0; p < n->conf.npairs; p++) {
		/* Returns when the worker has let go of the ring. */
		for (unsigned i = 0; i < RINGS && !rc; i++)
			rc = kvhost_file(&n->vhost[p], VHOST_NET_SET_BACKEND, i, -1);
		kvhost_stopped(&n->vhost[p], rc);
	}
}
