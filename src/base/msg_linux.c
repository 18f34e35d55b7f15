/* SPDX-License-Identifier: BSD-2-Clause */
/* The channel on Linux: messages with descriptors over SOCK_SEQPACKET. See insula/proto.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <insula/proto.h>

int msg_send(int sock, enum msg_type type, const void *body, size_t len, const int *fds,
	     unsigned nfds)
{
	struct msg_hdr h = {MSG_VERSION, (uint32_t)type, (uint32_t)len, nfds};
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * MSG_MAX_FDS)];
	} ctl;
	struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)body, len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t r;

	if (len > MSG_MAX_BODY || nfds > MSG_MAX_FDS)
		return -EMSGSIZE;
	if (nfds) {
		memset(&ctl, 0, sizeof(ctl));
		m.msg_control = ctl.buf;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	do
		r = sendmsg(sock, &m, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static void close_all(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* Take the descriptors out of the control data. More than there is room for: the kernel has set
 * MSG_CTRUNC. */
static unsigned take_fds(struct msghdr *m, int *fds)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < k; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < MSG_MAX_FDS)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

int msg_recv(int sock, enum msg_type *type, void *body, size_t size, size_t *len, int *fds,
	     unsigned *nfds)
{
	struct msg_hdr h;
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * MSG_MAX_FDS)];
	} ctl;
	struct iovec iov[2] = {{&h, sizeof(h)}, {body, size}};
	struct msghdr m = {.msg_iov = iov,
			   .msg_iovlen = 2,
			   .msg_control = ctl.buf,
			   .msg_controllen = sizeof(ctl.buf)};
	unsigned n;
	ssize_t r;

	/* A peer that died with unread messages shows as one ECONNRESET before what it had said
	 * itself. */
	do
		r = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (r < 0 && (errno == EINTR || errno == ECONNRESET));
	if (r < 0)
		return -errno;
	n = take_fds(&m, fds);
	if (r == 0 && n == 0)
		return -EPIPE;
	if ((m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || (size_t)r < sizeof(h) ||
	    h.version != MSG_VERSION || h.len != (size_t)r - sizeof(h) || h.nfds != n) {
		close_all(fds, n);
		return -EPROTO;
	}
	*type = (enum msg_type)h.type;
	*len = h.len;
	*nfds = n;
	return 0;
}
