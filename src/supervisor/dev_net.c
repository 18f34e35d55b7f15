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

static int start(struct device *d, int mem, uint64_t mem_size, struct err *e)
{
	struct nic *c = d->back.nic;
	struct msg_start_net m = c->start;
	int fd, rc;

	m.mem_size = mem_size;
	m.log_level = log_most();
	log_info("%s: %02x:%02x:%02x:%02x:%02x:%02x, offloads %#x", d->msg.name, m.mac[0], m.mac[1],
		 m.mac[2], m.mac[3], m.mac[4], m.mac[5], m.tun_offloads);
	if (m.kind == NET_TAP)
		return send_start(d, &m, mem, c->tap, c->ntaps, e);
	fd = nic_connect(c, e);
	if (fd < 0)
		return fd;
	rc = send_start(d, &m, mem, &fd, 1, e);
	close(fd);
	return rc;
}

static int quiet(const struct device *d)
{
	return nic_reachable(d->back.nic);
}

static struct child *peer(const struct device *d)
{
	return d->back.nic->conf->kind == NET_ON_USER ? &d->back.nic->passt : NULL;
}

const struct device_class device_net = {
	.program = "insula-net",
	.kind = DEV_VIRTIO_MMIO,
	.threads = 3, /* control, I/O */
	.nofile = 64,
	.start = start,
	.quiet = quiet,
	.peer = peer,
	.stats = &stats_net,
};
