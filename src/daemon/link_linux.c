/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections over Unix sockets. See link.h. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/sockios.h>

#include <insula/base.h>
#include <insula/scm.h>

#include "link.h"

struct link {
	uv_loop_t *loop;
	int fd;
	bool packets;
	struct watch *watch;
};

struct link *link_new(uv_loop_t *loop, int fd, bool packets)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l) {
		fd_close(&fd);
		return NULL;
	}
	l->loop = loop;
	l->fd = fd;
	l->packets = packets;
	return l;
}

int link_watch(struct link *l, watch_fn *fn, void *ctx)
{
	watch_free(l->watch);
	l->watch = watch_new(l->loop, l->fd, fn, ctx);
	return l->watch ? 0 : -ENOMEM;
}

void link_set(struct link *l, int events)
{
	if (l->watch)
		watch_set(l->watch, events);
}

void link_free(struct link *l)
{
	if (!l)
		return;
	watch_free(l->watch);
	fd_close(&l->fd);
	free(l);
}

/* Behind shutdown() nothing more is queued. A packet may be empty and carry descriptors all the
 * same. */
static bool is_empty(const struct link *l)
{
	int n = 1;

	return !l->packets && !shutdown(l->fd, SHUT_RDWR) && !ioctl(l->fd, SIOCINQ, &n) && !n;
}

int link_detach(struct link *l)
{
	int fd;

	if (!l || is_empty(l)) {
		link_free(l);
		return -1;
	}
	fd = l->fd;
	l->fd = -1;
	link_free(l);
	(void)shutdown(fd, SHUT_RDWR); /* the peer is told now, whenever it is closed */
	return fd;
}

/* All of them: what there were no room for the kernel would close here and now. */
static void take_fds(struct msghdr *m, struct link_fds *fds)
{
	unsigned n = 0, free = fds->max - *fds->n;
	int all[LINK_FDS];

	fds->more |= scm_take(m, all, &n, LINK_FDS) || n > free;
	for (unsigned i = 0; i < n; i++) {
		if (i < free)
			fds->fd[(*fds->n)++] = all[i];
		else
			fds->rest[fds->nrest++] = all[i];
	}
}

int link_recv(struct link *l, void *buf, size_t size, struct link_fds *fds)
{
	struct iovec iov = {buf, size < INT_MAX ? size : INT_MAX};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;
	ssize_t n;

	scm_expect(&m, &ctl, LINK_FDS);
	n = recvmsg(l->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	/* A peer that went and had not read all: that is said once, and of packets before those
	 * that are still there. */
	if (n < 0 && errno == ECONNRESET)
		n = recvmsg(l->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	take_fds(&m, fds);
	return m.msg_flags & MSG_TRUNC ? -EMSGSIZE : (int)n;
}

int link_send(struct link *l, const void *buf, size_t len, const int *fds, unsigned nfds)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len < INT_MAX ? len : INT_MAX};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;
	ssize_t n;

	scm_attach(&m, &ctl, fds, nfds);
	n = sendmsg(l->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n >= 0 ? (int)n : errno == EINTR ? -EAGAIN : -errno;
}
