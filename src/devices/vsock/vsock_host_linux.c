/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's ends on Linux: sockets that do not block, in one epoll set. See vsock.h.
 *
 * Descriptors are watched by edges. A stream that nobody has credit for costs no event after the
 * first one, and one that was read until nothing is left costs no system call to be watched again.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "vsock.h"

#define CONN_EVENTS ((uint32_t)(EPOLLIN | EPOLLRDHUP) | EPOLLET)

struct vsock_host {
	int ep_fd;
};

enum what { ON_CONN, ON_CTL, ON_KICK, ON_MAIL, ON_CLIENT };

/* ---- the host's ends ---- */

static uint64_t tag(unsigned what, uint32_t id)
{
	return (uint64_t)what << 32 | id;
}

static int control(struct vsockdev *d, int op, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = {.events = events, .data.u64 = data};

	return epoll_ctl(d->host->ep_fd, op, fd, &ev) ? -errno : 0;
}

static int poll_add(struct vsockdev *d, unsigned what, int fd)
{
	return control(d, EPOLL_CTL_ADD, fd, (uint32_t)EPOLLIN | EPOLLET, tag(what, 0));
}

static int host_open(void *ctx, struct vconn *c)
{
	struct vsockdev *d = ctx;

	return control(d, EPOLL_CTL_ADD, c->fd, CONN_EVENTS, tag(ON_CONN, vconn_id(&d->conns, c)));
}

static ssize_t host_read(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov)
{
	ssize_t n = readv(c->fd, iov, (int)niov);

	(void)ctx;
	return n < 0 ? -errno : n;
}

static ssize_t host_write(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov)
{
	ssize_t n = writev(c->fd, iov, (int)niov);

	(void)ctx;
	return n < 0 ? -errno : n;
}

static void host_shut(void *ctx, struct vconn *c, enum vconn_shut how)
{
	(void)ctx;
	/* ENOTCONN: the other end is gone; that is another event. */
	(void)shutdown(c->fd, how == VCONN_SHUT_READ ? SHUT_RD : SHUT_WR);
}

static void host_close(void *ctx, struct vconn *c)
{
	/* Explicitly: whoever made the descriptor may still hold the same open file. */
	(void)control(ctx, EPOLL_CTL_DEL, c->fd, 0, 0);
	close(c->fd);
}

static void host_watch(void *ctx, struct vconn *c, bool on)
{
	struct vsockdev *d = ctx;
	int rc = control(d, EPOLL_CTL_MOD, c->fd, CONN_EVENTS | (on ? (uint32_t)EPOLLOUT : 0),
			 tag(ON_CONN, vconn_id(&d->conns, c)));

	if (rc) /* what was added can be changed, and that takes no memory */
		panic("epoll_ctl: %d", rc);
}

static void host_ask(void *ctx, uint32_t id, uint32_t port)
{
	vsock_ask(ctx, id, port);
}

static void host_forget(void *ctx, void *ring, size_t size)
{
	(void)ctx;
	(void)madvise(ring, size, MADV_DONTNEED);
}

const struct vconn_ops vsock_host_ops = {
	.open = host_open,
	.read = host_read,
	.write = host_write,
	.shut = host_shut,
	.close = host_close,
	.watch = host_watch,
	.ask = host_ask,
	.forget = host_forget,
};

void vsock_accept(struct vsockdev *d)
{
	for (unsigned i = 0; i < VSOCK_ACCEPTS && d->clients && vconn_has_room(&d->conns); i++) {
		int fd = accept4(d->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			vconn_client(&d->conns, fd);
		} else if (errno == EAGAIN) {
			d->clients = false;
		} else if (errno != ECONNABORTED && errno != EINTR) {
			d->retry = true; /* out of something: not at once again */
			return;
		}
	}
}

/* ---- wait ---- */

static void on_connection(struct vsockdev *d, uint32_t id, uint32_t events)
{
	static const struct {
		uint32_t events;
		void (*fn)(struct vconns *t, struct vconn *c);
	} handlers[] = {
		{EPOLLOUT, vconn_writable},
		{EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR, vconn_readable},
		{EPOLLHUP | EPOLLERR, vconn_hangup},
	};

	/* Each of them may be the end of the connection. */
	for (unsigned i = 0; i < ARRAY_LEN(handlers); i++) {
		struct vconn *c = vconn_find_id(&d->conns, id);

		if (c && (events & handlers[i].events))
			handlers[i].fn(&d->conns, c);
	}
}

void vsock_wait(struct vsockdev *d, int timeout)
{
	struct epoll_event ev[VSOCK_EVENTS];
	int n = epoll_wait(d->host->ep_fd, ev, (int)VSOCK_EVENTS, timeout);

	d->conns.now = clock_ns();
	for (int i = 0; i < n; i++) {
		unsigned what = (unsigned)(ev[i].data.u64 >> 32);

		if (what == ON_CONN)
			on_connection(d, (uint32_t)ev[i].data.u64, ev[i].events);
		else if (what == ON_KICK)
			d->w.lane->stat[STAT_VSOCK_KICKS]++;
		else if (what == ON_CLIENT)
			d->clients = true;
	}
}

/* ---- start ---- */

int vsock_host_open(struct vsockdev *d, struct err *e)
{
	int rc = 0;

	d->host = calloc(1, sizeof(*d->host));
	if (!d->host)
		return err_set(e, -ENOMEM, "out of memory");
	d->host->ep_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->host->ep_fd < 0)
		return err_sys(e, -errno, "epoll");
	for (unsigned i = 0; i < VSOCK_QUEUES && !rc; i++)
		rc = poll_add(d, ON_KICK, d->w.kick_fd[i]);
	if (!rc)
		rc = poll_add(d, ON_CTL, d->w.lane->ctl_fd);
	if (!rc)
		rc = poll_add(d, ON_MAIL, d->mail_fd);
	if (!rc && d->listen_fd >= 0)
		rc = poll_add(d, ON_CLIENT, d->listen_fd);
	return rc ? err_sys(e, rc, "epoll") : 0;
}

void vsock_rules(const struct vsockdev *d, struct rule_list *l)
{
	if (d->conf.flags & VSOCK_VHOST) {
		vsock_vhost_rules(d, l);
		return;
	}
	worker_rules(&d->w, l, false);
	rule_fd(l, SYS_write, d->mail_fd, "mail for the I/O thread");
	rule_fd(l, SYS_epoll_wait, d->host->ep_fd, "I/O thread: kicks, commands, mail, streams");
	rule_fd(l, SYS_epoll_pwait, d->host->ep_fd, "the same, as some C libraries call it");
	rule_fd(l, SYS_epoll_ctl, d->host->ep_fd, "streams that come and go");
	rule_any(l, SYS_readv, "what the host's ends say; carries no descriptors");
	rule_any(l, SYS_writev, "what the guest says; carries no descriptors");
	rule_any(l, SYS_shutdown, "one direction of a stream");
	rule_any(l, SYS_close, "streams that have ended");
	rule_any(l, SYS_madvise, "give back the memory of their rings");
	if (d->listen_fd >= 0)
		rule_fd(l, SYS_accept4, d->listen_fd, "clients of the host");
}
