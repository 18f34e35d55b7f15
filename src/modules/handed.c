/* SPDX-License-Identifier: BSD-2-Clause */
/* Sockets and files that were handed in, for libraries. See handed.h. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "handed.h"
#include "stream.h"

#define HANDED_FILES 8

static _Thread_local int next_socket = -1;
static _Thread_local unsigned reads_left = UINT_MAX;
static _Thread_local bool (*see)(void *own, const void *p, size_t n);
static _Thread_local void *see_own;
static _Thread_local struct stream *stream;

static struct {
	const char *name, *text;
	size_t len;
} handed_files[HANDED_FILES];

void handed_socket(int fd)
{
	next_socket = fd;
}

int handed_back(void)
{
	int fd = next_socket;

	next_socket = -1;
	return fd;
}

void handed_reads(unsigned most)
{
	reads_left = most;
}

void handed_watch(bool (*fn)(void *own, const void *p, size_t n), void *own)
{
	see = fn;
	see_own = own;
}

void handed_stream(struct stream *s)
{
	stream = s;
}

void handed_file(const char *name, const char *text, size_t len)
{
	for (unsigned i = 0; i < HANDED_FILES; i++) {
		if (!handed_files[i].name) {
			handed_files[i].name = name;
			handed_files[i].text = text;
			handed_files[i].len = len;
			return;
		}
	}
}

/* ---- the C library's ---- */

int socket(int domain, int type, int protocol)
{
	int fd = handed_back();

	(void)domain;
	(void)type;
	(void)protocol;
	if (fd < 0)
		errno = EACCES;
	return fd;
}

/* The supervisor has begun it. Whoever asks waits until it can be written to. */
int connect(int fd, const struct sockaddr *at, socklen_t len)
{
	(void)fd;
	(void)at;
	(void)len;
	errno = EINPROGRESS;
	return -1;
}

/* Delays and keepalive are the supervisor's to set. */
int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	(void)fd;
	(void)level;
	(void)name;
	(void)value;
	(void)len;
	return 0;
}

int getsockname(int fd, struct sockaddr *restrict at, socklen_t *restrict len)
{
	(void)fd;
	(void)at;
	(void)len;
	errno = EACCES;
	return -1;
}

/* One address, which is nobody's: connect() does not look at it. */
int getaddrinfo(const char *restrict host, const char *restrict port,
		const struct addrinfo *restrict hints, struct addrinfo **restrict out)
{
	static struct sockaddr_in at = {.sin_family = AF_INET};
	static struct addrinfo one = {.ai_family = AF_INET,
				      .ai_socktype = SOCK_STREAM,
				      .ai_addrlen = sizeof(at),
				      .ai_addr = (struct sockaddr *)&at};

	(void)host;
	(void)port;
	(void)hints;
	*out = &one;
	return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
	(void)list;
}

/* True: it may not read any more in this turn. */
static bool read_enough(void)
{
	if (reads_left == UINT_MAX)
		return false;
	if (reads_left) {
		reads_left--;
		return false;
	}
	errno = EAGAIN;
	return true;
}

static ssize_t seen(const void *p, ssize_t n)
{
	if (n <= 0 || !see || see(see_own, p, (size_t)n))
		return n;
	errno = EPROTO;
	return -1;
}

static bool streams(int fd)
{
	return stream && stream->fd == fd;
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	if (streams(fd) && !flags)
		return stream_recv(stream, buf, len);
	return read_enough() ? -1
			     : seen(buf, syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL));
}

ssize_t readv(int fd, const struct iovec *iov, int n)
{
	return read_enough() ? -1 : seen(NULL, syscall(SYS_readv, fd, iov, n));
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	const struct iovec one = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

	/* MSG_MORE and MSG_NOSIGNAL: as it is here. */
	if (streams(fd))
		return stream_send(stream, &one, 1);
	return syscall(SYS_sendto, fd, buf, len, flags, NULL, 0);
}

/* A socket of a library's carries bytes, and no descriptors. The channel's messages carry both. */
ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	if (m->msg_name || m->msg_controllen)
		return syscall(SYS_sendmsg, fd, m, flags);
	if (streams(fd))
		return stream_send(stream, m->msg_iov, (int)m->msg_iovlen);
	return writev(fd, m->msg_iov, (int)m->msg_iovlen); /* SIGPIPE is ignored */
}

static int file_of(const char *path)
{
	size_t n = strlen(HANDED_DIR "/");

	for (int i = 0; i < HANDED_FILES && !strncmp(path, HANDED_DIR "/", n); i++) {
		if (handed_files[i].name && !strcmp(handed_files[i].name, path + n))
			return i;
	}
	errno = ENOENT;
	return -1;
}

int access(const char *path, int how)
{
	(void)how;
	return file_of(path) < 0 ? -1 : 0;
}

/* Constructors of libraries, which run before main(), read the host's files. */
FILE *fopen(const char *restrict path, const char *restrict mode)
{
	FILE *(*real)(const char *, const char *);
	int i = file_of(path);

	if (i >= 0)
		return fmemopen((void *)(uintptr_t)handed_files[i].text, handed_files[i].len, "r");
	if (!strncmp(path, HANDED_DIR "/", strlen(HANDED_DIR "/")))
		return NULL;
	*(void **)&real = dlsym(RTLD_NEXT, "fopen");
	return real ? real(path, mode) : NULL;
}
