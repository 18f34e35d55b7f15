/* SPDX-License-Identifier: BSD-2-Clause */
/* A network card as a device: the start message of insula-net. */
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "device.h"
#include "nic.h"

static int send_start(struct device *d, const struct msg_start_net *m, int mem, const int *backing,
		      unsigned nbackings, struct err *e)
{
	int fds[MSG_MAX_FDS] = {mem, d->page, d->call, d->irq};
	unsigned n = 4;
	int rc;

	for (unsigned i = 0; i < d->msg.nkicks; i++)
		fds[n++] = d->kick[i];
	for (unsigned i = 0; i < nbackings; i++)
		fds[n++] = backing[i];
	rc = msg_send(d->child.jail.channel, MSG_START_NET, m, sizeof(*m), fds, n);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

static const char *other_end(const struct nic *c)
{
	return c->conf->kind == NET_ON_USER ? "passt" : c->conf->name;
}

static int start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	struct nic *c = d->back.nic;
	struct msg_start_net m = c->start;
	int fd, rc;

	m.mem = *map;
	m.log_level = log_most();
	log_info("%s: %02x:%02x:%02x:%02x:%02x:%02x, offloads %#x", d->msg.name, m.mac[0], m.mac[1],
		 m.mac[2], m.mac[3], m.mac[4], m.mac[5], m.tun_offloads);
	if (m.kind == NET_TAP)
		return send_start(d, &m, mem, c->tap, c->ntaps, e);
	fd = nic_stream(c, e);
	if (fd < 0)
		return fd;
	if (c->away) {
		log_warn("%s: nobody answers at %s: the link is down", d->msg.name, other_end(c));
		m.flags |= NET_AWAY;
	}
	rc = send_start(d, &m, mem, &fd, 1, e);
	close(fd);
	return rc;
}

/* The helper has lost the other end of its stream, and lives on. */
static bool message(struct vm *vm, struct device *d, enum msg_type t, const void *body, size_t len)
{
	struct nic *c = d->back.nic;

	(void)vm;
	(void)body;
	if (t != MSG_NET_LOST || len || !nic_lost(c))
		return false;
	log_warn("%s: the connection to %s has ended: the link is down", d->msg.name, other_end(c));
	return true;
}

static uint64_t due(const struct device *d)
{
	/* A new helper gets its stream with the start. */
	return d->child.state == CHILD_READY ? nic_due(d->back.nic) : 0;
}

static void tend(struct device *d)
{
	struct nic *c = d->back.nic;
	struct err e;
	int fd = nic_retry(c, &e);

	if (fd < 0) {
		log_debug("%s: %s", d->msg.name, e.text);
		return;
	}
	/* A helper that has just died does not get it; its successor gets one of its own. One that
	 * lives and whose channel does not take it gets the next one. */
	if (msg_send(d->child.jail.channel, MSG_NET_PEER, NULL, 0, &fd, 1))
		(void)nic_lost(c);
	else
		log_warn("%s: connected to %s again: the link is up", d->msg.name, other_end(c));
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
	.kind = DEV_VIRTIO_MMIO,
	.threads = 3,       /* control, I/O */
	.queue_threads = 1, /* a pair has two queues, so this is more than enough */
	.nofile = 64,
	.start = start,
	.message = message,
	.due = due,
	.tend = tend,
	.peer = peer,
	.peer_began = peer_began,
	.stats = &stats_net,
};
