/* SPDX-License-Identifier: BSD-2-Clause */
/* The channel: framed messages with descriptors over SOCK_SEQPACKET. See insula/proto.h. */
#include <errno.h>
#include <stdio.h>
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

/* The peer said MSG_FAILED instead of what was expected. */
static int report_failed(struct msg_failed *f, struct err *e)
{
	f->step[sizeof(f->step) - 1] = 0;
	f->text[sizeof(f->text) - 1] = 0;
	if (f->code >= 0 || f->code < -4095)
		f->code = -EPROTO;
	return err_set(e, f->code, "%s: %s", f->step, f->text);
}

int msg_expect(int sock, enum msg_type type, void *body, size_t len, int *fds, unsigned nfds,
	       struct err *e)
{
	union {
		struct msg_failed failed;
		uint8_t bytes[MSG_MAX_BODY];
	} b;
	int got[MSG_MAX_FDS];
	enum msg_type t = 0;
	size_t n = 0;
	unsigned k = 0;
	int rc = msg_recv(sock, &t, &b, sizeof(b), &n, got, &k);

	if (rc)
		return err_sys(e, rc, "channel");
	if (t == MSG_FAILED && n == sizeof(b.failed) && k == 0)
		return report_failed(&b.failed, e);
	if (t != type || n != len || k != nfds) {
		close_all(got, k);
		return err_set(
			e, -EPROTO,
			"channel: message %d of %zu bytes with %u descriptors, expected %d of "
			"%zu with %u",
			(int)t, n, k, (int)type, len, nfds);
	}
	if (len)
		memcpy(body, b.bytes, len);
	if (nfds)
		memcpy(fds, got, sizeof(int) * nfds);
	return 0;
}

void msg_fail(int sock, const char *step, int code, const char *text, int bad_input)
{
	struct msg_failed f = {.code = code, .bad_input = (uint32_t)bad_input};

	snprintf(f.step, sizeof(f.step), "%s", step);
	snprintf(f.text, sizeof(f.text), "%s", text);
	(void)msg_send(sock, MSG_FAILED, &f, sizeof(f), NULL, 0);
}
