/* SPDX-License-Identifier: BSD-2-Clause */
/* The descriptors of insula-exec on Linux: a stream socket that does not block, and the user's,
 * which may be anything and whose flags are not ours. See exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "exec.h"

int exec_spec_read(int spec, void *buf, size_t len)
{
	return read_full(spec, buf, len, 0);
}

/* ---- the user's ---- */

/* Whatever it is, the filter lets us read or write it, and nothing else. */
int exec_user_check(const struct exec *x, struct err *e)
{
	(void)x;
	(void)e;
	return 0;
}

/* The negative errno of a read or write that failed. What was interrupted, or does not block and
 * has been waited for, can be tried again. */
static ssize_t failed(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int error = errno;

	if (error == EAGAIN)
		(void)poll(&p, 1, -1);
	return error == EINTR ? -EAGAIN : -error;
}

ssize_t exec_user_write(int fd, const void *buf, size_t n)
{
	ssize_t r = write(fd, buf, n);

	return r < 0 ? failed(fd, POLLOUT) : r;
}

ssize_t exec_user_read(int fd, void *buf, size_t n)
{
	ssize_t r = read(fd, buf, n);

	return r < 0 ? failed(fd, POLLIN) : r;
}

/* ---- the stream ---- */

/* The filter names the number of the first one. Its flags are ours alone; later ones come as they
 * have to be. */
int exec_stream_open(struct exec *x, int fd)
{
	if (x->place >= 0 && fd != x->place)
		return -EPROTO;
	if (x->place < 0 && fcntl(fd, F_SETFL, O_NONBLOCK))
		return -errno;
	x->stream = x->place = fd;
	return 0;
}

void exec_stream_close(struct exec *x)
{
	fd_close(&x->stream);
}

static ssize_t later(ssize_t r)
{
	return r >= 0 ? r : errno == EINTR ? -EAGAIN : -errno;
}

ssize_t exec_stream_read(struct exec *x, void *buf, size_t n)
{
	return later(read(x->stream, buf, n));
}

ssize_t exec_stream_write(struct exec *x, const void *buf, size_t n)
{
	return later(write(x->stream, buf, n));
}

unsigned exec_wait(struct exec *x, bool room)
{
	struct pollfd p[] = {
		{x->channel, POLLIN, 0}, {x->event, POLLIN, 0}, {x->stream, POLLIN, 0}};

	if (room)
		p[2].events |= POLLOUT;
	if (poll(p, ARRAY_LEN(p), -1) < 0)
		return 0;
	if (p[1].revents)
		event_drain(x->event);
	return (p[0].revents ? EXEC_ON_CHANNEL : 0) |
	       (p[2].revents & ~POLLOUT ? EXEC_ON_STREAM : 0);
}

void exec_rules(const struct exec *x, struct rule_list *l)
{
	rule_any(l, SYS_poll, "wait for the stream, the supervisor, the threads, the user");
	rule_fd(l, SYS_read, x->stream, "frames from the guest");
	rule_fd(l, SYS_write, x->stream, "frames to the guest");
	rule_fd(l, SYS_close, x->stream, "the command has ended");
	rule_fd(l, SYS_read, x->event, "wake-up by our own threads");
	rule_fd(l, SYS_write, x->event, "wake-up by our own threads");
	for (unsigned i = 0; i < 2; i++) {
		const struct exec_out *o = &x->out[i];

		rule_fd(l, SYS_write, o->fd, "what the command prints");
		rule_fd(l, SYS_read, o->wake, "writer thread: wake-up");
		rule_fd(l, SYS_write, o->wake, "wake the writer thread");
	}
	rule_fd(l, SYS_write, x->in_wake, "wake the reader thread");
	if (x->in_fd < 0)
		return;
	rule_fd(l, SYS_read, x->in_fd, "what the command reads");
	rule_fd(l, SYS_read, x->in_wake, "reader thread: wake-up");
}
