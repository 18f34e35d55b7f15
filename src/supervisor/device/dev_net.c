/* SPDX-License-Identifier: BSD-2-Clause */
/* A network card as a device: the start message of insula-net. */
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "dev_virtio.h"
#include "supervisor/backing/metadata.h"
#include "supervisor/backing/nic_policy.h"
#include "supervisor/backing/vhost_node.h"
#include "supervisor/control/control.h"
#include "supervisor/vm_common.h"

/* `more`: behind the backings; -1: none. */
static void net_word(struct device_start *s, const struct msg_start_net *m, const int *backing,
		     unsigned nbackings, int more)
{
	device_word(s, m, sizeof(*m));
	for (unsigned i = 0; i < nbackings; i++)
		device_add(s, backing[i]);
	if (more >= 0)
		device_add(s, more);
}

/* One of the kernel's for each pair, behind them. */
static int net_add_vhosts(struct device_start *s, unsigned npairs, struct err *e)
{
	for (unsigned i = 0; i < npairs; i++) {
		s->once[i] = vhost_node_open("net", e);
		if (s->once[i] < 0)
			return s->once[i];
		device_add(s, s->once[i]);
	}
	return 0;
}

static const char *other_end(const struct nic *c)
{
	return c->conf->kind == NET_ON_USER ? "passt" : c->conf->name;
}

static int net_start(struct device *d, struct device_start *s, struct err *e)
{
	struct nic *c = d->back.nic;
	int rc = nic_policy_refresh(c, e);
	struct msg_start_net m = c->start;
	int more = metadata_net_end(d->vm, c->conf);
	char mac[NIC_MAC_TEXT];

	if (rc)
		return rc;
	if (c->policy.flags & POLICY_ON)
		m.flags |= NET_POLICED;
	nic_mac_text(m.mac, mac);
	log_info("%s: %s, offloads %#x", d->desc.name, mac, m.tun_offloads);
	if (more >= 0)
		m.flags |= NET_METADATA;
	if (m.kind == NET_TAP) {
		/* That of a VM of a snapshot is known by now. */
		rc = attach_address(&c->attach, m.mac, e);
		net_word(s, &m, c->tap, c->ntaps, more);
		if (!rc && (m.flags & NET_VHOST))
			rc = net_add_vhosts(s, m.npairs, e);
		return rc;
	}
	s->once[0] = nic_stream(c, e);
	if (s->once[0] < 0)
		return s->once[0];
	if (c->away) {
		log_warn("%s: nobody answers at %s: the link is down", d->desc.name, other_end(c));
		m.flags |= NET_AWAY;
	}
	net_word(s, &m, &s->once[0], 1, more);
	return 0;
}

static void net_denied(struct vm *vm, const struct device *d, const struct msg_net_denied *m)
{
	char text[NIC_DENIED_TEXT];

	if (!nic_policy_denied(d->back.nic, m, text))
		return;
	log_info("%s: dropped by its policy: %s", d->desc.name, text);
	control_event(vm_control(vm), "net-denied", d->desc.name, text);
}

/* The helper has lost the other end of its stream, and lives on; or it speaks of its policy. */
static bool net_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			size_t len)
{
	struct nic *c = d->back.nic;

	if (t == MSG_NET_DENIED && len == sizeof(struct msg_net_denied)) {
		net_denied(vm, d, body);
		return true;
	}
	if (t == MSG_NET_NAME && len == sizeof(struct msg_net_name))
		return nic_policy_name(c, body);
	if (t != MSG_NET_LOST || len || !nic_lost(c))
		return false;
	log_warn("%s: the connection to %s has ended: the link is down", d->desc.name,
		 other_end(c));
	return true;
}

static uint64_t net_due(const struct device *d)
{
	if (d->back.nic->ntaps)
		return nft_due(&d->back.nic->nft);
	/* A new helper gets its stream with the start. */
	return d->child.state == CHILD_READY ? nic_due(d->back.nic) : 0;
}

static void net_tend(struct device *d)
{
	struct nic *c = d->back.nic;
	struct err e;
	int fd;

	if (c->ntaps) {
		nft_tend(&c->nft);
		return;
	}
	fd = nic_retry(c, &e);
	if (fd < 0) {
		log_debug("%s: %s", d->desc.name, e.text);
		return;
	}
	/* A helper that has just died does not get it; its successor gets one of its own. One that
	 * lives and whose channel does not take it gets the next one. */
	if (child_send(&d->child, MSG_NET_PEER, NULL, 0, &fd, 1))
		(void)nic_lost(c);
	else
		log_warn("%s: connected to %s again: the link is up", d->desc.name, other_end(c));
	close(fd);
}

static void net_serves(struct device *d, struct loop *l, bool serves)
{
	(void)l;
	if (serves && (d->back.nic->policy.flags & POLICY_ON))
		nic_policy_tell(d->back.nic, &d->child);
}

static struct child *peer(const struct device *d)
{
	struct nic *c = d->back.nic;

	return c->conf->kind == NET_ON_USER ? &c->passt : c->ntaps ? &c->nft.child : NULL;
}

/* nft has done what it was told, or not. */
static bool net_peer_over(struct device *d, const struct child_end *end)
{
	struct nic *c = d->back.nic;

	if (!c->ntaps)
		return false;
	if (nft_over(&c->nft, end))
		control_policy(vm_control(d->vm), d->desc.name,
			       end->status == 0       ? NULL
			       : c->nft.child.last[0] ? c->nft.child.last
						      : end->how);
	return true;
}

static bool peer_began(const struct device *d)
{
	return d->back.nic->passts == 1;
}

static struct msg_limit *net_limit_of(const struct device *d)
{
	return d->back.nic->conf->vhost ? NULL : &d->back.nic->start.limit;
}

static const char *net_unsaved_so(const struct device *d)
{
	return d->back.nic->conf->vhost ? "vhost=on: what the kernel does with its rings cannot be "
					  "part of a snapshot"
					: NULL;
}

const struct device_class device_net = {
	.program = "insula-net",
	.kind = "net",
	.tag = NET_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_NET,
	.unsaved_so = net_unsaved_so,
	.threads = 3,       /* control, I/O; with vhost=on the kernel's worker, from Linux 6.4 on */
	.queue_threads = 1, /* a pair has two queues, so this is more than enough */
	.nofile = 96,
	.describe = dev_virtio_describe,
	.start = net_start,
	.message = net_message,
	.limit = net_limit_of,
	.limited = "pps",
	.due = net_due,
	.tend = net_tend,
	.serves = net_serves,
	.peer = peer,
	.peer_over = net_peer_over,
	.peer_began = peer_began,
	.stats = &stats_net,
};
