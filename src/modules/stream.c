/* SPDX-License-Identifier: BSD-2-Clause */
/* Few system calls for many pieces. See stream.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stream.h"

#define LONG 16384u  /* bytes that a library asks for at once: what comes is long */
#define DIRECT 2048u /* so many are not worth a copy */
#define AHEAD 512u   /* of what is long: the next header */
#define IOVS 8

#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))

void stream_begin(struct stream *s, int fd)
{
	s->fd = fd;
	s->big = s->over = false;
	s->error = 0;
	s->in_at = s->in_len = s->out_at = s->out_len = 0;
}

/* ---- in ---- */

static size_t take(struct stream *s, void *to, size_t len)
{
	size_t n = MIN_OF(len, s->in_len);

	memcpy(to, s->in + s->in_at, n);
	s->in_at += n;
	s->in_len -= n;
	return n;
}

/* Nothing is in `in`. So much into `to`, and what follows it ahead. How much of it was for `to`; -1:
 * nothing has come. */
static ssize_t read_more(struct stream *s, void *to, size_t len)
{
	struct iovec v[2] = {{.iov_base = to, .iov_len = len},
			     {.iov_base = s->in, .iov_len = s->big ? AHEAD : STREAM_ROOM}};
	/* recv() and readv() are handed.c's, which come here. */
	ssize_t n = len ? syscall(SYS_readv, s->fd, v, 2)
			: syscall(SYS_recvfrom, s->fd, s->in, v[1].iov_len, 0, NULL, NULL);

	if (n <= 0 && (n == 0 || (errno != EAGAIN && errno != EINTR))) {
		s->over = true;
		s->error = n ? errno : 0;
	}
	if (n <= 0)
		return -1;
	s->in_at = 0;
	s->in_len = (size_t)n > len ? (size_t)n - len : 0;
	return n - (ssize_t)s->in_len;
}

bool stream_fill(struct stream *s)
{
	return s->in_len || s->over || read_more(s, NULL, 0) >= 0 || s->over;
}

ssize_t stream_recv(struct stream *s, void *to, size_t len)
{
	size_t have = take(s, to, len);
	ssize_t more = 0;

	if (len >= AHEAD)
		s->big = len > LONG;
	if (!s->over && have < len && len - have >= DIRECT)
		more = read_more(s, (uint8_t *)to + have, len - have);
	else if (!s->over && !have && stream_fill(s))
		more = (ssize_t)take(s, to, len);
	if (more > 0)
		have += (size_t)more;
	if (have || !len)
		return (ssize_t)have;
	if (s->over && !s->error)
		return 0;
	errno = s->over ? s->error : EAGAIN;
	return -1;
}

/* ---- out ---- */

static int failed(struct stream *s)
{
	if (errno == EAGAIN || errno == EINTR)
		return -EAGAIN;
	s->out_len = 0;
	return -errno;
}

int stream_flush(struct stream *s)
{
	while (s->out_len) {
		ssize_t n = syscall(SYS_sendto, s->fd, s->out + s->out_at, s->out_len, MSG_NOSIGNAL,
				    NULL, 0);

		if (n < 0)
			return failed(s);
		s->out_at += (size_t)n;
		s->out_len -= (size_t)n;
	}
	s->out_at = 0;
	return 0;
}

/* What waits, and this behind it. */
static ssize_t send_both(struct stream *s, const struct iovec *iov, int n)
{
	struct iovec v[1 + IOVS] = {{.iov_base = s->out + s->out_at, .iov_len = s->out_len}};
	int k = MIN_OF(n, IOVS);
	ssize_t sent;

	memcpy(v + 1, iov, (size_t)k * sizeof(*iov));
	sent = writev(s->fd, v, 1 + k);
	if (sent < 0) {
		errno = -failed(s);
		return -1;
	}
	if ((size_t)sent > s->out_len) {
		sent -= (ssize_t)s->out_len;
		s->out_at = s->out_len = 0;
		return sent;
	}
	s->out_at += (size_t)sent;
	s->out_len -= (size_t)sent;
	errno = EAGAIN;
	return -1;
}

ssize_t stream_send(struct stream *s, const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (len > STREAM_ROOM - s->out_at - s->out_len || len > LONG)
		return send_both(s, iov, n);
	for (int i = 0; i < n; i++) {
		memcpy(s->out + s->out_at + s->out_len, iov[i].iov_base, iov[i].iov_len);
		s->out_len += iov[i].iov_len;
	}
	return (ssize_t)len;
}
