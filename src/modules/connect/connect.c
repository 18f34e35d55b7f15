/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * connect() for programs of the host whose module has a network (docs/modules.md). The loader puts
 * this library before the C library (LD_PRELOAD), as src/modules/handed.c stands before it in
 * modules of the first kind.
 *
 * In the program's jail socket() makes TCP sockets of a network namespace that is empty, and there
 * is no connect(). This one asks the supervisor (module_connect.h) for a connection to that
 * address, and puts it in the place of the socket. What a program set on its socket before is lost,
 * but for whether it blocks.
 *
 * There is no socketpair() either (confine_filter.c). libcurl wakes itself up with one, in one
 * direction: a pipe does, whose second end is written to.
 *
 * None of this protects anybody: a hostile program does without it. It keeps an honest one working.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/module/module_connect.h"

#define PATIENCE_MS 10000 /* of a connect() that blocks */
#define DESCRIPTORS 4096

static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;

enum what {
	NOT_OURS,
	CONNECTION, /* that was handed in */
	PIPE        /* in the place of a pair of sockets */
};

static uint8_t ours[DESCRIPTORS]; /* enum what */

static bool is(int fd, enum what what)
{
	return fd >= 0 && fd < DESCRIPTORS && __atomic_load_n(&ours[fd], __ATOMIC_RELAXED) == what;
}

static void set(int fd, enum what what)
{
	if (fd >= 0 && fd < DESCRIPTORS)
		__atomic_store_n(&ours[fd], (uint8_t)what, __ATOMIC_RELAXED);
}

/* Its last line is what people are shown. Status 0: nothing is wrong with what it was told, so that
 * the supervisor starts another one (vm_children.c). */
static void lost(const char *what, int error)
{
	char text[256];
	int n;

	if (!getenv(CONNECT_ENDS))
		return;
	n = snprintf(text, sizeof(text), "%s: %s\n", what, strerror(error));
	(void)!write(STDERR_FILENO, text, (size_t)n);
	_exit(0);
}

/* ---- asking ---- */

static int receive(struct connect_answer *a)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	struct iovec iov = {a, sizeof(*a)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = u.room,
			   .msg_controllen = sizeof(u.room)};
	const struct cmsghdr *c;
	ssize_t n;
	int fd;

	do
		n = recvmsg(CONNECT_ANSWER_FD, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	c = n == sizeof(*a) ? CMSG_FIRSTHDR(&m) : NULL;
	if (n != sizeof(*a))
		return -ENETDOWN;
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return a->code ? -a->code : -ENETDOWN;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* A connection, or a negative errno. */
static int ask(const struct connect_request *r)
{
	struct connect_answer a = {0};
	int rc;

	pthread_mutex_lock(&asking);
	rc = write(CONNECT_ASK_FD, r, sizeof(*r)) == sizeof(*r) ? receive(&a) : -ENETDOWN;
	pthread_mutex_unlock(&asking);
	return rc;
}

static int wait_for(int fd)
{
	struct pollfd p = {fd, POLLOUT, 0};
	socklen_t len = sizeof(int);
	int error = 0, n;

	do
		n = poll(&p, 1, PATIENCE_MS);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return -ETIMEDOUT;
	/* Not the one below. */
	return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &len) ? -errno : -error;
}

/* In the place of `fd`: 0, -EINPROGRESS, or why not. */
static int take(int fd, int got)
{
	int flags = fcntl(fd, F_GETFL), cloexec = fcntl(fd, F_GETFD), rc = -EINPROGRESS;

	if (flags < 0 || dup3(got, fd, cloexec & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		return -errno;
	set(fd, CONNECTION);
	if (flags & O_NONBLOCK)
		return rc;
	rc = wait_for(fd);
	fcntl(fd, F_SETFL, flags);
	return rc;
}

static bool read_address(const struct sockaddr *to, socklen_t len, struct connect_request *r)
{
	struct sockaddr_in6 six;
	struct sockaddr_in four;

	r->family = to->sa_family;
	if (to->sa_family == AF_INET && len >= sizeof(four)) {
		memcpy(&four, to, sizeof(four));
		r->port = ntohs(four.sin_port);
		memcpy(r->addr, &four.sin_addr, sizeof(four.sin_addr));
		return true;
	}
	if (to->sa_family == AF_INET6 && len >= sizeof(six)) {
		memcpy(&six, to, sizeof(six));
		r->port = ntohs(six.sin6_port);
		memcpy(r->addr, &six.sin6_addr, sizeof(six.sin6_addr));
		return true;
	}
	return false;
}

static void say_lost(const struct connect_request *r, int error)
{
	char host[INET6_ADDRSTRLEN] = "", text[96];

	inet_ntop(r->family, r->addr, host, sizeof(host));
	snprintf(text, sizeof(text), "connection to %s, port %u", host, r->port);
	lost(text, error);
}

/* ---- the C library's ---- */

#pragma GCC visibility push(default)

int connect(int fd, const struct sockaddr *to, socklen_t len)
{
	struct connect_request r = {0};
	struct sockaddr_storage peer;
	socklen_t n = sizeof(peer);
	int rc, got;

	if (!to || len < sizeof(to->sa_family) || !read_address(to, len, &r)) {
		errno = to && to->sa_family == AF_UNIX ? ENOENT : EAFNOSUPPORT;
		return -1;
	}
	if (is(fd, CONNECTION) && !getpeername(fd, (struct sockaddr *)&peer, &n)) {
		errno = EISCONN;
		return -1;
	}
	rc = got = ask(&r);
	if (got >= 0) {
		rc = take(fd, got);
		close(got);
	}
	if (rc && rc != -EINPROGRESS)
		say_lost(&r, -rc);
	errno = -rc;
	return rc ? -1 : 0;
}

int socketpair(int domain, int type, int protocol, int pair[2])
{
	if (domain != AF_UNIX || protocol ||
	    (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (pipe2(pair,
		  (type & SOCK_NONBLOCK ? O_NONBLOCK : 0) | (type & SOCK_CLOEXEC ? O_CLOEXEC : 0)))
		return -1;
	set(pair[0], PIPE);
	set(pair[1], PIPE);
	return 0;
}

/* The number may be another file's next. */
int close(int fd)
{
	set(fd, NOT_OURS);
	return (int)syscall(SYS_close, fd);
}

/* How one that did not wait learns what became of its connection. */
int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	int rc = (int)syscall(SYS_getsockopt, fd, level, name, value, len), error = 0;

	if (!rc && level == SOL_SOCKET && name == SO_ERROR && is(fd, CONNECTION) &&
	    *len == sizeof(error))
		memcpy(&error, value, sizeof(error));
	if (error)
		lost("connection", error);
	return rc;
}

static ssize_t passed(int fd, int flags, ssize_t n)
{
	const int keep = errno;

	if (!is(fd, CONNECTION) || n > 0 || (flags & MSG_PEEK))
		return n;
	if (n == 0)
		lost("connection", ECONNRESET);
	else if (keep != EAGAIN && keep != EINTR)
		lost("connection", keep);
	errno = keep;
	return n;
}

ssize_t recv(int fd, void *p, size_t n, int flags)
{
	ssize_t got;

	if (is(fd, PIPE))
		return read(fd, p, n);
	got = syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
	return n ? passed(fd, flags, got) : got;
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
	ssize_t sent;

	if (is(fd, PIPE))
		return write(fd, p, n);
	sent = syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
	return n ? passed(fd, 0, sent) : sent;
}

#pragma GCC visibility pop
