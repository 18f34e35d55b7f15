/* SPDX-License-Identifier: BSD-2-Clause */
/* The channel on Linux: messages with descriptors over SOCK_SEQPACKET. See insula/proto.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <insula/proto.h>
#include <insula/scm.h>

int msg_send(int sock, enum msg_type type, const void *body, size_t len, const int *fds,
	     unsigned nfds)
{
	struct msg_hdr h = {MSG_VERSION, (uint32_t)type, (uint32_t)len, nfds};
	union scm_buf ctl;
	struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)body, len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t r;

	if (len > MSG_MAX_BODY || nfds > MSG_MAX_FDS)
		return -EMSGSIZE;
	scm_attach(&m, &ctl, fds, nfds);
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

int msg_recv(int sock, enum msg_type *type, void *body, size_t size, size_t *len, int *fds,
	     unsigned *nfds)
{
	struct msg_hdr h;
	union scm_buf ctl;
	struct iovec iov[2] = {{&h, sizeof(h)}, {body, size}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	unsigned n = 0;
	bool more;
	ssize_t r;

	/* A peer that died with unread messages shows as one ECONNRESET before what it had said
	 * itself. */
	scm_expect(&m, &ctl, MSG_MAX_FDS);
	do
		r = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (r < 0 && (errno == EINTR || errno == ECONNRESET));
	if (r < 0)
		return -errno;
	more = scm_take(&m, fds, &n, MSG_MAX_FDS);
	if (r == 0 && n == 0)
		return -EPIPE;
	if (more || (m.msg_flags & MSG_TRUNC) || (size_t)r < sizeof(h) ||
	    h.version != MSG_VERSION || h.len != (size_t)r - sizeof(h) || h.nfds != n) {
		close_all(fds, n);
		return -EPROTO;
	}
	*type = (enum msg_type)h.type;
	*len = h.len;
	*nfds = n;
	return 0;
}
