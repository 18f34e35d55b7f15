/* SPDX-License-Identifier: BSD-2-Clause */
/* A console with clients that come and go. See ctlconsole.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctlconsole.h"

#define READS 8 /* per wake-up */
#define CHUNK 4096
#define DRAIN_TURNS 64 /* of READS x CHUNK bytes: more than three sockets hold */

static void watch_client(struct ctlconsole_client *k);

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
	c->loop = NULL;
	c->nin = 0;
	c->lost = 0;
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++) {
		c->from[i] = (struct ctlconsole_from){
			.console = c,
			.fd = -1,
			.helper = -1,
			.stream = i == CTLCONSOLE_ERRORS ? VMLOG_STDERR : VMLOG_CONSOLE};
	}
	for (unsigned i = 0; i < CTLCONSOLE_FIRST; i++)
		c->apart[i] = (struct scrollback){.ring = NULL};
	for (unsigned i = 0; i < CTLCONSOLE_ALL; i++) {
		const struct scrollback *ring =
			i < CTLCONSOLE_CLIENTS ? &c->out : &c->apart[i - CTLCONSOLE_CLIENTS];

		c->client[i] = (struct ctlconsole_client){.console = c, .ring = ring, .fd = -1};
	}
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

static void drop_client(struct ctlconsole_client *k)
{
	watch_off(&k->watch);
	fd_close(&k->fd);
}

void ctlconsole_close(struct ctlconsole *c)
{
	for (unsigned i = 0; i < CTLCONSOLE_ALL; i++)
		drop_client(&c->client[i]);
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++) {
		watch_off(&c->from[i].watch);
		fd_close(&c->from[i].fd);
		fd_close(&c->from[i].helper);
	}
	scrollback_free(&c->out);
	for (unsigned i = 0; i < CTLCONSOLE_FIRST; i++)
		scrollback_free(&c->apart[i]);
}

int ctlconsole_adopt(struct ctlconsole *c, int fd, uint64_t scrollback, struct err *e)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].fd >= 0)
			continue;
		c->client[i].fd = fd;
		c->client[i].eof = false;
		c->client[i].pos = scrollback_from(&c->out, scrollback);
		watch_client(&c->client[i]);
		return 0;
	}
	return err_set(e, -EBUSY, "%d clients are attached; expected at most as many",
		       CTLCONSOLE_CLIENTS);
}

/* The client of this output that must see all of it; NULL: there is none. */
static struct ctlconsole_client *first_of(struct ctlconsole *c, unsigned output)
{
	struct ctlconsole_client *k =
		output < CTLCONSOLE_FIRST ? &c->client[CTLCONSOLE_CLIENTS + output] : NULL;

	return k && k->fd >= 0 ? k : NULL;
}

int ctlconsole_first(struct ctlconsole *c, int fd, int errors, struct err *e)
{
	const int fds[CTLCONSOLE_FIRST] = {fd, errors};

	for (unsigned i = 0; i < CTLCONSOLE_FIRST; i++) {
		int rc = scrollback_init(&c->apart[i]);

		c->client[CTLCONSOLE_CLIENTS + i].fd = fds[i];
		if (rc)
			return err_set(e, rc, "out of memory");
	}
	for (unsigned i = 0; i < CTLCONSOLE_FIRST; i++)
		watch_client(&c->client[CTLCONSOLE_CLIENTS + i]);
	return 0;
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

	for (unsigned i = 0; i <= CTLCONSOLE_CLIENTS; i++)
		n += c->client[i].fd >= 0;
	return n;
}

/* Is there no room for a CHUNK more of what the first client has not taken yet? */
static bool must_wait(struct ctlconsole *c, unsigned output)
{
	const struct ctlconsole_client *k = first_of(c, output);

	return k && k->ring->total - k->pos > SCROLLBACK_LEN - CHUNK;
}

/* True: there may be more. */
static bool ctlconsole_take_output(struct ctlconsole *c, unsigned i)
{
	char buf[CHUNK];

	for (int k = 0; k < READS && !must_wait(c, i); k++) {
		ssize_t n = recv(c->from[i].fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n <= 0)
			return false;
		if (i != CTLCONSOLE_SERIAL)
			scrollback_add(&c->out, buf, (size_t)n);
		if (first_of(c, i))
			scrollback_add(&c->apart[i], buf, (size_t)n);
		vmlog_add(c->log, c->from[i].stream, buf, (size_t)n);
	}
	return true;
}

/* Input of clients is taken while there is room for it. */
static void set_wants(struct ctlconsole *c)
{
	for (unsigned i = 0; i < CTLCONSOLE_FIRST; i++)
		c->from[i].watch.want = must_wait(c, i) ? 0u : WATCH_IN;
	c->from[CTLCONSOLE_MAIN].watch.want |= c->nin ? WATCH_OUT : 0u;
	for (unsigned i = 0; i < CTLCONSOLE_ALL; i++) {
		struct ctlconsole_client *k = &c->client[i];

		k->watch.want = (c->nin || k->eof ? 0u : WATCH_IN) |
				(k->pos < k->ring->total ? WATCH_OUT : 0u);
	}
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
		size_t len = scrollback_at(c->client[i].ring, &c->client[i].pos, &at, &c->lost);
		ssize_t n;

		if (!len)
			return;
		n = send(c->client[i].fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			drop_client(&c->client[i]);
		if (n <= 0)
			return;
		c->client[i].pos += (uint64_t)n;
	}
}

/* Only while c->in is empty: what is typed waits in the client's socket otherwise. */
static void ctlconsole_take_input(struct ctlconsole *c, unsigned i)
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
		drop_client(&c->client[i]);
}

/* ---- what the loop finds ---- */

/* All that can be given now is given; then what is waited for follows from what is left. */
static void ctlconsole_spread(struct ctlconsole *c)
{
	give_input(c);
	for (unsigned i = 0; i < CTLCONSOLE_ALL; i++)
		give_output(c, i);
	set_wants(c);
}

static void on_output(void *ctx, unsigned events)
{
	struct ctlconsole_from *f = ctx;

	if (events & WATCH_IN)
		ctlconsole_take_output(f->console, (unsigned)(f - f->console->from));
	ctlconsole_spread(f->console);
}

static void ctlconsole_on_client(void *ctx, unsigned events)
{
	struct ctlconsole_client *k = ctx;

	if (events & WATCH_IN)
		ctlconsole_take_input(k->console, (unsigned)(k - k->console->client));
	else if (events & WATCH_END)
		drop_client(k);
	ctlconsole_spread(k->console);
}

static void watch_client(struct ctlconsole_client *k)
{
	if (!k->console->loop || k->fd < 0)
		return;
	watch_on(k->console->loop, &k->watch, k->fd, 0, ctlconsole_on_client, k);
	set_wants(k->console);
}

void ctlconsole_begin(struct ctlconsole *c, struct loop *l)
{
	c->loop = l;
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++)
		watch_on(l, &c->from[i].watch, c->from[i].fd, WATCH_IN, on_output, &c->from[i]);
	for (unsigned i = 0; i < CTLCONSOLE_ALL; i++)
		watch_client(&c->client[i]);
}

/* False: the first client has all there is, or has gone. */
static bool wait_for_first(struct ctlconsole *c)
{
	struct pollfd p[CTLCONSOLE_FIRST];
	bool waits = false;

	for (unsigned i = 0; i < CTLCONSOLE_FIRST; i++) {
		const struct ctlconsole_client *k = first_of(c, i);
		bool more = k && k->pos < k->ring->total;

		p[i] = (struct pollfd){more ? k->fd : -1, POLLOUT, 0};
		waits |= more;
	}
	return waits && (poll(p, CTLCONSOLE_FIRST, -1) >= 0 || errno == EINTR);
}

/* What the streams hold is bounded: nobody writes to them any more. */
void ctlconsole_drain(struct ctlconsole *c)
{
	bool more = true;

	for (int turn = 0; more; turn++) {
		more = false;
		for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++)
			more |= ctlconsole_take_output(c, i) &&
				(turn < DRAIN_TURNS || first_of(c, i));
		for (unsigned i = 0; i < CTLCONSOLE_ALL; i++)
			give_output(c, i);
		more |= wait_for_first(c);
	}
}
