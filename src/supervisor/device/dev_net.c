/* SPDX-License-Identifier: BSD-2-Clause */
/* A network card as a device: the start message of insula-net. */
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "dev_virtio.h"
#include "supervisor/backing/nic.h"

static void net_word(struct device_start *s, const struct msg_start_net *m, const int *backing,
		     unsigned nbackings)
{
	device_word(s, m, sizeof(*m));
	for (unsigned i = 0; i < nbackings; i++)
		device_add(s, backing[i]);
}

static const char *other_end(const struct nic *c)
{
	return c->conf->kind == NET_ON_USER ? "passt" : c->conf->name;
}

static int net_start(struct device *d, struct device_start *s, struct err *e)
{
	struct nic *c = d->back.nic;
	struct msg_start_net m = c->start;
	char mac[NIC_MAC_TEXT];

	nic_mac_text(m.mac, mac);
	log_info("%s: %s, offloads %#x", d->desc.name, mac, m.tun_offloads);
	if (m.kind == NET_TAP) {
		net_word(s, &m, c->tap, c->ntaps);
		return 0;
	}
	s->once[0] = nic_stream(c, e);
	if (s->once[0] < 0)
		return s->once[0];
	if (c->away) {
		log_warn("%s: nobody answers at %s: the link is down", d->desc.name, other_end(c));
		m.flags |= NET_AWAY;
	}
	net_word(s, &m, &s->once[0], 1);
	return 0;
}

/* The helper has lost the other end of its stream, and lives on. */
static bool net_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			size_t len)
{
	struct nic *c = d->back.nic;

	(void)vm;
	(void)body;
	if (t != MSG_NET_LOST || len || !nic_lost(c))
		return false;
	log_warn("%s: the connection to %s has ended: the link is down", d->desc.name,
		 other_end(c));
	return true;
}

static uint64_t net_due(const struct device *d)
{
	/* A new helper gets its stream with the start. */
	return d->child.state == CHILD_READY ? nic_due(d->back.nic) : 0;
}

static void net_tend(struct device *d)
{
	struct nic *c = d->back.nic;
	struct err e;
	int fd = nic_retry(c, &e);

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

static struct child *peer(const struct device *d)
{
	return d->back.nic->conf->kind == NET_ON_USER ? &d->back.nic->passt : NULL;
}

static bool peer_began(const struct device *d)
{
	return d->back.nic->passts == 1;
}

const struct device_class device_net = {
	.program = "insula-net",
	.tag = NET_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_NET,
	.threads = 3,       /* control, I/O */
	.queue_threads = 1, /* a pair has two queues, so this is more than enough */
	.nofile = 96,
	.describe = dev_virtio_describe,
	.start = net_start,
	.message = net_message,
	.due = net_due,
	.tend = net_tend,
	.peer = peer,
	.peer_began = peer_began,
	.stats = &stats_net,
};
