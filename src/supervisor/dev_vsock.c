/* SPDX-License-Identifier: BSD-2-Clause */
/* The vsock device: the start message of insula-vsock, and the connections that it asks for. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "vsock.h"

/* Descriptors of the helper besides those of its connections: events, the epoll set, and what is
 * in a message that it has not looked at. */
#define OTHER_FDS 160u

unsigned vsock_nofile(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_max > VSOCK_MAX_CONNS + OTHER_FDS)
		return VSOCK_MAX_CONNS + OTHER_FDS;
	return (unsigned)l.rlim_max;
}

static int start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	const struct vsock *v = d->back.vsock;
	struct msg_start_vsock m = {
		.mem = *map,
		.guest_cid = v->cid,
		.flags = v->listener >= 0 ? VSOCK_LISTENS : 0,
		.max_conns = d->child.nofile > OTHER_FDS ? d->child.nofile - OTHER_FDS : 1,
		.log_level = log_most(),
	};

	return device_send_start(d, MSG_START_VSOCK, &m, sizeof(m), mem, v->listener, e);
}

/* The helper's guest wants a stream. What it can reach is decided here: nothing but the sockets
 * next to the one that was named. */
static bool message(struct vm *vm, struct device *d, enum msg_type t, const void *body, size_t len)
{
	struct msg_vsock_connect q;
	struct msg_vsock_connected a = {0};
	int fd, rc;

	(void)vm;
	if (t != MSG_VSOCK_CONNECT || len != sizeof(q))
		return false;
	memcpy(&q, body, sizeof(q));
	fd = vsock_connect(d->back.vsock, q.port);
	a.id = q.id;
	a.error = fd < 0 ? fd : 0;
	if (fd < 0)
		log_debug("%s: port %u: %s", d->msg.name, q.port, strerror(-fd));
	rc = msg_send(d->child.jail.channel, MSG_VSOCK_CONNECTED, &a, sizeof(a), &fd,
		      fd < 0 ? 0 : 1);
	fd_close(&fd);
	/* It asks no more than it may if it reads the answers. One that has died has not. */
	return rc == 0 || rc == -EPIPE || rc == -ECONNRESET;
}

const struct device_class device_vsock = {
	.program = "insula-vsock",
	.kind = DEV_VIRTIO_MMIO,
	.threads = 3, /* control, I/O */
	.nofile = VSOCK_MAX_CONNS + OTHER_FDS,
	.start = start,
	.message = message,
	.stats = &stats_vsock,
};
