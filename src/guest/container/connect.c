/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: `connect PORT`: its streams become a connection to a port of the loopback. Each
 * direction ends for itself; the whole ends when the port has closed its side. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "container.h"

#define PIECE 65536u

struct pipe_way {
	int from, to; /* -1: it has ended */
	bool socket;  /* `to` */
	char data[PIECE];
	size_t have, done;
};

/* 127.0.0.1, then ::1. */
static int connect_port(uint16_t port, struct err *e)
{
	const struct sockaddr_in v4 = {.sin_family = AF_INET,
				       .sin_port = htons(port),
				       .sin_addr = {htonl(INADDR_LOOPBACK)}};
	const struct sockaddr_in6 v6 = {.sin6_family = AF_INET6,
					.sin6_port = htons(port),
					.sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), why;

	if (fd >= 0 && connect(fd, (const struct sockaddr *)&v4, sizeof v4) == 0)
		return fd;
	why = errno;
	if (fd >= 0)
		close(fd);
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&v6, sizeof v6) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return err_sys(e, -why, "connect to port %u of the loopback", port);
}

static void end_way(struct pipe_way *w)
{
	if (w->socket)
		shutdown(w->to, SHUT_WR);
	else
		close(w->to);
	w->from = w->to = -1;
}

static void move(struct pipe_way *w)
{
	ssize_t n;

	if (w->done == w->have) {
		n = read(w->from, w->data, sizeof w->data);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		if (n <= 0) {
			end_way(w);
			return;
		}
		w->done = 0;
		w->have = (size_t)n;
	}
	n = write(w->to, w->data + w->done, w->have - w->done);
	if (n < 0 && errno != EINTR && errno != EAGAIN)
		end_way(w);
	w->done += n > 0 ? (size_t)n : 0;
}

/* What is waited for: room for what is there, or something to read. */
static struct pollfd waits_for(const struct pipe_way *w)
{
	bool full = w->done < w->have;

	return (struct pollfd){.fd = w->from < 0 ? -1
				     : full      ? w->to
						 : w->from,
			       .events = full ? POLLOUT : POLLIN};
}

static void copy_both(int socket)
{
	static struct pipe_way in, out;

	in.from = STDIN_FILENO;
	in.to = socket;
	in.socket = true;
	out.from = socket;
	out.to = STDOUT_FILENO;
	while (out.from >= 0) {
		struct pollfd p[2] = {waits_for(&in), waits_for(&out)};

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (p[0].revents)
			move(&in);
		if (p[1].revents)
			move(&out);
	}
}

int command_connect(char **argv)
{
	struct err e;
	uint64_t port;
	int fd;

	if (num_u64(argv[0], 10, 65535, &port) || port == 0) {
		err_set(&e, -EINVAL, "port \"%.20s\": expected 1 to 65535", argv[0]);
		return complain(&e);
	}
	fd = connect_port((uint16_t)port, &e);
	if (fd < 0)
		return complain(&e);
	copy_both(fd);
	return 0;
}
