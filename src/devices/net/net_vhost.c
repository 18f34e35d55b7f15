/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pair of a card that the kernel's vhost-net serves (NET_VHOST): from the start of the driver to
 * its end a worker of the kernel's takes frames out of the rings and gives them to the TAP, and the
 * other way round. This process answers registers and commands. See devices/kvhost.h.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>

#include <insula/base.h>

#include "net.h"

#define BIT(n) (UINT64_C(1) << (n))
/* What of the features is the worker's; the others are the TAP's and ours. */
#define RING_FEATURES                                                 \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define NQUEUES 2u

int net_vhost_open(struct net *n, int fd, struct err *e)
{
	return kvhost_open(&n->vhost, "vhost-net", &n->w, fd, NQUEUES, RING_FEATURES, e);
}

void net_vhost_rules(const struct net *n, struct rule_list *l)
{
	kvhost_rules(&n->vhost, l);
	rule_ioctl(l, n->backing[0].fd, TUNSETOFFLOAD, "what kinds of frames the guest can take");
	rule_ioctl(l, n->vhost.fd, VHOST_NET_SET_BACKEND,
		   "begin to serve a ring for the TAP, or stop");
}

/* ---- the control thread, sealed ---- */

static int net_vhost_ring(const struct net *n, unsigned i, const char **what)
{
	int rc = kvhost_ring(&n->vhost, i, what);

	if (rc)
		return rc;
	*what = "NET_SET_BACKEND";
	rc = kvhost_file(&n->vhost, VHOST_NET_SET_BACKEND, i, n->backing[0].fd);
	return rc ? rc : kvhost_kick(&n->vhost, i, what);
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
	if (!rc)
		rc = kvhost_features(&n->vhost, what);
	for (unsigned i = 0; i < NQUEUES && !rc; i++) {
		if (kvhost_is_ready(&n->vhost, i))
			rc = net_vhost_ring(n, i, what);
	}
	return rc;
}

void net_vhost_start(struct net *n)
{
	const char *what;
	int rc;

	if (n->backing[0].dead)
		return;
	if (tap_is_gone(n)) {
		net_lost(n, &n->backing[0], -EPIPE);
		return;
	}
	rc = net_vhost_run(n, &what);
	if (rc)
		kvhost_failed(&n->vhost, what, rc);
}

void net_vhost_stop(const struct net *n)
{
	int rc = 0;

	/* Returns when the worker has let go of the ring. */
	for (unsigned i = 0; i < NQUEUES && !rc; i++)
		rc = kvhost_file(&n->vhost, VHOST_NET_SET_BACKEND, i, -1);
	kvhost_stopped(&n->vhost, rc);
}
