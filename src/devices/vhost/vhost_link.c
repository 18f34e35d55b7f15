/* SPDX-License-Identifier: BSD-2-Clause */
/* One connection to a vhost-user back end. See vhost_link.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/scm.h>

#include "vhost_link.h"

#define FDS_TAKEN 8u /* more than a back end ever sends with one message */

/* ---- the numbers ---- */

/* Whoever sent a descriptor may still hold the same open file, so it is taken out of the set by
 * name. */
static void vlink_place(struct vhost_link *l, int fd, int number, bool watched)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = number};

	(void)epoll_ctl(l->ep_fd, EPOLL_CTL_DEL, number, &ev);
	if (dup3(fd, number, O_CLOEXEC) < 0 ||
	    (watched && epoll_ctl(l->ep_fd, EPOLL_CTL_ADD, number, &ev)))
		panic("the number of a connection: %d", errno);
}

static void vlink_end_back(struct vhost_link *l)
{
	if (l->back_up)
		vlink_place(l, l->spare_fd, l->back_fd, false);
	l->back_up = false;
}

void vlink_first(struct vhost_link *l)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = l->fd};

	if (epoll_ctl(l->ep_fd, EPOLL_CTL_ADD, l->fd, &ev))
		panic("epoll_ctl: %d", errno);
	l->up = true;
}

void vlink_begin(struct vhost_link *l, int fd)
{
	vlink_end(l);
	vlink_place(l, fd, l->fd, true);
	close(fd);
	l->up = true;
	l->acks = l->config_news = false;
	l->in.got = 0;
}

void vlink_end(struct vhost_link *l)
{
	if (l->up)
		vlink_place(l, l->spare_fd, l->fd, false);
	l->up = false;
	vlink_end_back(l);
}

int vlink_open_back(struct vhost_link *l)
{
	int pair[2];

	vlink_end_back(l);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		return -errno;
	vlink_place(l, pair[0], l->back_fd, true);
	close(pair[0]);
	l->back_up = true;
	l->in.got = 0;
	return pair[1];
}

/* ---- bytes ---- */

/* What comes on the other channel meanwhile is dealt with, or a back end that waits for us there
 * would never answer. */
int vlink_wait_fd(struct vhost_link *l, int fd, short events)
{
	struct pollfd p[] = {{.fd = fd, .events = events},
			     {.fd = l->back_up ? l->back_fd : -1, .events = POLLIN}};
	uint64_t now = clock_ns();

	if (now >= l->until_ns)
		return -ETIMEDOUT;
	if (poll(p, ARRAY_LEN(p), (int)((l->until_ns - now + 999999u) / 1000000u)) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[1].revents)
		vlink_hear_back(l);
	return p[0].revents ? 1 : 0;
}

static int vlink_wait(struct vhost_link *l, short events)
{
	int rc = vlink_wait_fd(l, l->fd, events);

	return rc < 0 ? rc : 0;
}

static bool vlink_again(int code)
{
	return code == EAGAIN || code == EINTR;
}

int vlink_send(struct vhost_link *l, enum vhost_request r, uint32_t flags, const void *payload,
	       size_t len, const int *fds, unsigned nfds)
{
	struct vhost_hdr h = {(uint32_t)r, VHOST_VERSION | flags, (uint32_t)len};
	struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)payload, len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	union scm_buf ctl;
	size_t left = sizeof(h) + len;
	int rc = 0;

	if (!l->up)
		return -ENOTCONN;
	l->messages++;
	scm_attach(&m, &ctl, fds, nfds);
	while (left && !rc) {
		ssize_t n = sendmsg(l->fd, &m, MSG_NOSIGNAL);

		if (n < 0) {
			rc = vlink_again(errno) ? vlink_wait(l, POLLOUT) : -errno;
			continue;
		}
		left -= (size_t)n;
		m.msg_control = NULL; /* they travel with the first byte */
		m.msg_controllen = 0;
		for (unsigned i = 0; i < 2; i++) {
			size_t k = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			if (k) /* no payload, no place */
				iov[i].iov_base = (uint8_t *)iov[i].iov_base + k;
			iov[i].iov_len -= k;
			n -= (ssize_t)k;
		}
	}
	return rc;
}

/* Some bytes that are there, and descriptors, of which fds[] keeps FDS_TAKEN. -EAGAIN: none. */
static ssize_t vlink_take(int sock, void *to, size_t len, int *fds, unsigned *nfds)
{
	struct iovec iov = {to, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;
	ssize_t n;

	scm_expect(&m, &ctl, SCM_MAX_FDS);
	n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return vlink_again(errno) ? -EAGAIN : -errno;
	(void)scm_take(&m, fds, nfds, FDS_TAKEN);
	return n ? n : -EPIPE;
}

static int vlink_read(struct vhost_link *l, void *to, size_t len, int *fds, unsigned *nfds)
{
	uint8_t *p = to;

	while (len) {
		ssize_t n = vlink_take(l->fd, p, len, fds, nfds);
		int rc = n == -EAGAIN ? vlink_wait(l, POLLIN) : n < 0 ? (int)n : 0;

		if (rc)
			return rc;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* ---- replies ---- */

static bool vlink_is_reply(const struct vhost_hdr *h, enum vhost_request r)
{
	return h->request == (uint32_t)r && (h->flags & VHOST_VERSION_MASK) == VHOST_VERSION &&
	       (h->flags & VHOST_REPLY);
}

static void vlink_close_all(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* With what it brings, the caller's. */
static int vlink_reply_fds(struct vhost_link *l, enum vhost_request r, void *payload, size_t min,
			   size_t max, size_t *len, int fds[FDS_TAKEN], unsigned *nfds)
{
	struct vhost_hdr h;
	int rc = l->up ? vlink_read(l, &h, sizeof(h), fds, nfds) : -ENOTCONN;

	if (!rc && (!vlink_is_reply(&h, r) || h.size < min || h.size > max))
		rc = -EPROTO;
	if (!rc)
		rc = vlink_read(l, payload, h.size, fds, nfds);
	if (!rc && len)
		*len = h.size;
	return rc;
}

/* Of what a reply has brought, what was asked for. */
static int vlink_keep(int rc, const int *fds, unsigned nfds, unsigned want, int *fd)
{
	if (!rc && nfds != want)
		rc = -EPROTO;
	if (rc || !want)
		vlink_close_all(fds, nfds);
	else
		*fd = fds[0];
	return rc;
}

int vlink_reply(struct vhost_link *l, enum vhost_request r, void *payload, size_t min, size_t max,
		size_t *len, int *fd)
{
	int fds[FDS_TAKEN];
	unsigned nfds = 0;
	int rc = vlink_reply_fds(l, r, payload, min, max, len, fds, &nfds);

	return vlink_keep(rc, fds, nfds, fd ? 1 : 0, fd);
}

int vlink_set(struct vhost_link *l, enum vhost_request r, const void *payload, size_t len,
	      const int *fds, unsigned nfds)
{
	uint64_t failed = 0;
	int rc = vlink_send(l, r, l->acks ? VHOST_NEED_REPLY : 0, payload, len, fds, nfds);

	if (!rc && l->acks)
		rc = vlink_reply(l, r, &failed, sizeof(failed), sizeof(failed), NULL, NULL);
	return rc ? rc : failed ? -EREMOTEIO : 0;
}

int vlink_set_u64(struct vhost_link *l, enum vhost_request r, uint64_t value)
{
	return vlink_set(l, r, &value, sizeof(value), NULL, 0);
}

int vlink_get_u64(struct vhost_link *l, enum vhost_request r, uint64_t *value)
{
	int rc = vlink_send(l, r, 0, NULL, 0, NULL, 0);

	return rc ? rc : vlink_reply(l, r, value, sizeof(*value), sizeof(*value), NULL, NULL);
}

int vlink_transfer(struct vhost_link *l, uint32_t direction, int fd, int *other)
{
	const struct vhost_transfer t = {direction, VHOST_TRANSFER_STOPPED};
	const enum vhost_request r = VHOST_SET_DEVICE_STATE_FD;
	uint64_t answer = 0;
	int fds[FDS_TAKEN];
	unsigned nfds = 0;
	int rc = vlink_send(l, r, 0, &t, sizeof(t), &fd, 1);

	*other = -1;
	if (!rc)
		rc = vlink_reply_fds(l, r, &answer, sizeof(answer), sizeof(answer), NULL, fds,
				     &nfds);
	if (!rc && answer & VHOST_TRANSFER_ERROR)
		rc = -EREMOTEIO;
	return vlink_keep(rc, fds, nfds, answer & VHOST_TRANSFER_OURS ? 0 : 1, other);
}

/* ---- the back end's own requests ---- */

/* One whole request is there. A back end that does not read our answer gets no other. */
static int vlink_answer_back(struct vhost_link *l)
{
	bool known = l->in.hdr.request == VHOST_BACKEND_CONFIG_CHANGE && l->in.hdr.size == 0;
	struct {
		struct vhost_hdr hdr;
		uint64_t failed;
	} __attribute__((packed)) a = {{l->in.hdr.request, VHOST_VERSION | VHOST_REPLY, 8}, !known};
	struct iovec iov = {&a, sizeof(a)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	l->requests++;
	l->config_news |= known;
	if (!(l->in.hdr.flags & VHOST_NEED_REPLY))
		return 0;
	return sendmsg(l->back_fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(a) ? 0
											  : -EPIPE;
}

/* Some bytes of a request. -EAGAIN: there is nothing more. */
static int vlink_hear_some(struct vhost_link *l)
{
	bool head = l->in.got < sizeof(l->in.hdr);
	size_t end = sizeof(l->in.hdr) + (head ? 0 : l->in.hdr.size);
	uint8_t *to = head ? (uint8_t *)&l->in.hdr + l->in.got
			   : l->in.payload + (l->in.got - sizeof(l->in.hdr));
	int fds[FDS_TAKEN];
	unsigned nfds = 0;
	ssize_t n = vlink_take(l->back_fd, to, end - l->in.got, fds, &nfds);

	vlink_close_all(fds, nfds);
	if (n < 0)
		return (int)n;
	l->in.got += (size_t)n;
	if (l->in.got < sizeof(l->in.hdr))
		return 0;
	if ((l->in.hdr.flags & VHOST_VERSION_MASK) != VHOST_VERSION ||
	    (l->in.hdr.flags & VHOST_REPLY) || l->in.hdr.size > sizeof(l->in.payload))
		return -EPROTO;
	if (l->in.got < sizeof(l->in.hdr) + l->in.hdr.size)
		return 0;
	l->in.got = 0;
	return vlink_answer_back(l);
}

void vlink_hear_back(struct vhost_link *l)
{
	int rc = 0;

	/* A head and a payload are two steps. */
	for (unsigned i = 0; i < 2 * VHOST_BACK_BUDGET && l->back_up && !rc; i++)
		rc = vlink_hear_some(l);
	if (rc && rc != -EAGAIN)
		vlink_end_back(l);
}
