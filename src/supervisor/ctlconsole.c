/* SPDX-License-Identifier: BSD-2-Clause */
/* A console with clients that come and go. See ctlconsole.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctlconsole.h"

#define READS 8 /* per wake-up */
#define CHUNK 4096
#define DRAIN_TURNS 64 /* of READS x CHUNK bytes: more than three sockets hold */

static int open_output(struct ctlconsole *c, unsigned i, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "console: socketpair");
	c->from[i].fd = pair[0];
	c->from[i].helper = pair[1];
	return 0;
}

int ctlconsole_open(struct ctlconsole *c, struct vmlog *log, struct err *e)
{
	int rc = scrollback_init(&c->out);

	c->log = log;
	c->nin = 0;
	c->lost = 0;
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++) {
		c->from[i].fd = c->from[i].helper = -1;
		c->from[i].stream = i == CTLCONSOLE_ERRORS ? VMLOG_STDERR : VMLOG_CONSOLE;
	}
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++)
		c->client[i].fd = -1;
	if (rc)
		return err_set(e, rc, "out of memory");
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS && !rc; i++)
		rc = open_output(c, i, e);
	return rc;
}

void ctlconsole_has_command(struct ctlconsole *c)
{
	c->from[CTLCONSOLE_MAIN].stream = VMLOG_STDOUT;
}

void ctlconsole_close(struct ctlconsole *c)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++)
		fd_close(&c->client[i].fd);
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++) {
		fd_close(&c->from[i].fd);
		fd_close(&c->from[i].helper);
	}
	scrollback_free(&c->out);
}

int ctlconsole_adopt(struct ctlconsole *c, int fd, uint64_t scrollback, struct err *e)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].fd >= 0)
			continue;
		c->client[i].fd = fd;
		c->client[i].eof = false;
		c->client[i].pos = scrollback_from(&c->out, scrollback);
		return 0;
	}
	return err_set(e, -EBUSY, "%d clients are attached; expected at most as many",
		       CTLCONSOLE_CLIENTS);
}

int ctlconsole_attach(struct ctlconsole *c, uint64_t scrollback, struct err *e)
{
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "console: socketpair");
	rc = ctlconsole_adopt(c, pair[0], scrollback, e);
	if (rc) {
		close(pair[0]);
		close(pair[1]);
	}
	return rc ? rc : pair[1];
}

unsigned ctlconsole_clients(const struct ctlconsole *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++)
		n += c->client[i].fd >= 0;
	return n;
}

void ctlconsole_fill(const struct ctlconsole *c, struct pollfd *p)
{
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++)
		p[i] = (struct pollfd){c->from[i].fd, POLLIN, 0};
	p[CTLCONSOLE_MAIN].events |= c->nin ? POLLOUT : 0;
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		short in = c->nin || c->client[i].eof ? 0 : POLLIN;
		short out = c->client[i].pos < c->out.total ? POLLOUT : 0;

		p[CTLCONSOLE_OUTPUTS + i] = (struct pollfd){c->client[i].fd, (short)(in | out), 0};
	}
}

/* True: there may be more. */
static bool take_output(struct ctlconsole *c, unsigned i)
{
	char buf[CHUNK];

	for (int k = 0; k < READS; k++) {
		ssize_t n = recv(c->from[i].fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n <= 0)
			return false;
		if (i != CTLCONSOLE_SERIAL)
			scrollback_add(&c->out, buf, (size_t)n);
		vmlog_add(c->log, c->from[i].stream, buf, (size_t)n);
	}
	return true;
}

static void give_input(struct ctlconsole *c)
{
	ssize_t n;

	if (!c->nin)
		return;
	n = send(c->from[CTLCONSOLE_MAIN].fd, c->in, c->nin, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n <= 0)
		return;
	c->nin -= (size_t)n;
	memmove(c->in, c->in + n, c->nin);
}

static void give_output(struct ctlconsole *c, unsigned i)
{
	const uint8_t *at;

	for (int k = 0; k < READS && c->client[i].fd >= 0; k++) {
		size_t len = scrollback_at(&c->out, &c->client[i].pos, &at, &c->lost);
		ssize_t n;

		if (!len)
			return;
		n = send(c->client[i].fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			fd_close(&c->client[i].fd);
		if (n <= 0)
			return;
		c->client[i].pos += (uint64_t)n;
	}
}

/* Only while c->in is empty: what is typed waits in the client's socket otherwise. */
static void take_input(struct ctlconsole *c, unsigned i)
{
	ssize_t n;

	if (c->nin)
		return;
	n = recv(c->client[i].fd, c->in, sizeof(c->in), MSG_DONTWAIT);
	if (n > 0)
		c->nin = (size_t)n;
	else if (n == 0)
		c->client[i].eof = true; /* POLLHUP tells if it has gone altogether */
	else if (errno != EAGAIN && errno != EINTR)
		fd_close(&c->client[i].fd);
}

void ctlconsole_serve(struct ctlconsole *c, const struct pollfd *p)
{
	const struct pollfd *clients = p + CTLCONSOLE_OUTPUTS;

	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++) {
		if (p[i].revents & POLLIN)
			take_output(c, i);
	}
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].fd < 0)
			continue;
		if (clients[i].revents & POLLIN)
			take_input(c, i);
		else if (clients[i].revents & (POLLHUP | POLLERR | POLLNVAL))
			fd_close(&c->client[i].fd);
		give_output(c, i);
	}
	give_input(c);
}

/* What the streams hold is bounded: nobody writes to them any more. */
void ctlconsole_drain(struct ctlconsole *c)
{
	bool more = true;

	for (int turn = 0; turn < DRAIN_TURNS && more; turn++) {
		more = false;
		for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++)
			more |= take_output(c, i);
		for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++)
			give_output(c, i);
	}
}
