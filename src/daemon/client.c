/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients: bytes in, lines out. What one of them does or leaves undone costs the others nothing: a
 * bounded buffer for its line, a bounded queue of what it has not read, a bounded number of
 * requests under way (it is not read from while it has more), a bounded amount of work per wake-up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "daemon.h"
#include "dlog.h"
#include "foreign.h"
#include "host.h"
#include "link.h"
#include "listen.h"
#include "machine.h"
#include "request.h"
#include "watch.h"

#define READ_SIZE 16384
#define REQUESTS 32   /* per wake-up; a batch is served whole */
#define CLIENT_FDS 16 /* that wait for one connection to be read */

struct chunk {
	struct chunk *next;
	size_t len, at;
	int fd; /* owned; -1: none */
	char text[];
};

static void on_socket(void *ctx, int events);

/* ---- out ---- */

static void client_on_again(void *ctx);

static bool has_line(const struct client *c)
{
	return c->nin && !c->serve && !c->closing && memchr(c->in, '\n', c->nin);
}

/* It has enough under way, or has not read what it has got: the next line waits. */
static bool is_full(const struct client *c)
{
	return c->nrequests >= c->d->conf.max_requests || c->queued > c->d->conf.max_queue / 4 ||
	       c->closing || foreign_full(c->d, c->who.uid);
}

bool client_has_room(struct client *c)
{
	return c->nfds < CLIENT_FDS && !foreign_full(c->d, c->who.uid);
}

static void client_settle_down(struct client *c);

/* Nothing has come from them: they are as silent as before. */
void clients_go_on(struct daemon *d)
{
	for (struct client *c = d->clients, *next; c; c = next) {
		next = c->next;
		client_settle_down(c);
	}
}

/* A hang-up is told whatever one asks for; PRIORITIZED asks for nothing else, as no such data
 * exist here. */
static void update(struct client *c)
{
	bool wait = is_full(c);

	if (c->gone || !c->link)
		return;
	link_set(c->link,
		 (wait || c->eof ? UV_PRIORITIZED : UV_READABLE) | (c->out ? UV_WRITABLE : 0));
	if (!wait && !c->again && has_line(c))
		c->again = timer_after(&c->d->loop, 0, client_on_again, c);
}

/* Nothing is under way, and nothing will come. */
static bool is_idle(const struct client *c)
{
	return !c->nrequests && !c->subscribed;
}

static void on_idle(void *ctx)
{
	struct client *c = ctx;
	uint64_t limit = c->d->conf.idle_timeout * 1000ull;
	uint64_t quiet = (clock_ns() - c->active_ns) / 1000000;

	c->idle = NULL;
	if (!is_idle(c))
		quiet = 0;
	if (limit && quiet >= limit) {
		dlog(LOG_LVL_DEBUG, NULL, "client of uid %u: silent for %u s; closed",
		     (unsigned)c->who.uid, c->d->conf.idle_timeout);
		client_close(c);
	} else if (limit) {
		c->idle = timer_after(&c->d->loop, limit - quiet, on_idle, c);
	}
}

void client_settle(struct client *c)
{
	c->active_ns = clock_ns();
	client_settle_down(c);
}

static void client_settle_down(struct client *c)
{
	if (c->gone)
		return;
	if (c->eof && !c->nrequests && !c->out && !has_line(c))
		client_close(c);
	else
		update(c);
}

static void drop_chunk_fd(struct client *c, struct chunk *k)
{
	c->nfds -= k->fd >= 0;
	foreign_close(c->d, c->who.uid, &k->fd);
}

static void free_chunk(struct client *c)
{
	struct chunk *k = c->out;

	c->out = k->next;
	if (!c->out)
		c->out_end = &c->out;
	c->queued -= k->len;
	drop_chunk_fd(c, k);
	free(k);
}

/* True: something was written. */
static bool write_chunk(struct client *c)
{
	struct chunk *k = c->out;
	int n = link_send(c->link, k->text + k->at, k->len - k->at, &k->fd, k->fd >= 0);

	if (n < 0) {
		if (n != -EAGAIN)
			client_close(c);
		return false;
	}
	drop_chunk_fd(c, k);
	k->at += (size_t)n;
	if (k->at == k->len)
		free_chunk(c);
	return true;
}

static void flush(struct client *c)
{
	while (c->out && c->link && !c->gone && write_chunk(c))
		;
	if (!c->out && c->closing)
		client_close(c);
}

static void queue(struct client *c, const char *text, size_t len, bool end, int fd)
{
	struct chunk *k = malloc(sizeof(*k) + len + 1);

	if (!k) {
		foreign_close(c->d, c->who.uid, &fd);
		client_close(c);
		return;
	}
	*k = (struct chunk){.len = len + end, .fd = fd};
	memcpy(k->text, text, len);
	if (end)
		k->text[len] = '\n';
	c->nfds += fd >= 0;
	*c->out_end = k;
	c->out_end = &k->next;
	c->queued += k->len;
	flush(c);
}

void client_write(struct client *c, const char *text, size_t len)
{
	if (!c->gone)
		queue(c, text, len, false, -1);
}

void client_send(struct client *c, const char *text, int fd)
{
	if (!c->gone && c->queued > c->d->conf.max_queue) {
		dlog(LOG_LVL_WARN, NULL, "client of uid %u: does not read its answers; closed",
		     (unsigned)c->who.uid);
		client_close(c);
	}
	if (c->gone) {
		foreign_close(c->d, c->who.uid, &fd);
		return;
	}
	queue(c, text, strlen(text), true, fd);
	update(c);
}

/* ---- in ---- */

static void drop_fds(struct client *c)
{
	while (c->ngot)
		foreign_close(c->d, c->who.uid, &c->got[--c->ngot]);
	c->got_more = false;
}

static void too_long(struct client *c)
{
	char expected[48];
	const struct refusal why = {RPC_INVALID, "too-long", NULL,
				    NULL,        expected,   "a line is longer than it may be"};

	snprintf(expected, sizeof(expected), "at most %u bytes", c->d->conf.max_line);
	c->d->n.bad_lines++;
	c->closing = true;
	rpc_refuse_line(c, &why);
}

static void serve_lines(struct client *c)
{
	size_t at = 0;
	uint64_t first = c->d->n.requests;
	int lines = 0;

	while (!c->gone && !is_full(c) && lines++ < REQUESTS &&
	       c->d->n.requests - first < REQUESTS) {
		char *end = memchr(c->in + at, '\n', c->nin - at);

		if (!end)
			break;
		rpc_line(c->d, c, c->in + at, (size_t)(end - c->in) - at);
		drop_fds(c); /* what the line did not take */
		at = (size_t)(end - c->in) + 1;
	}
	c->nin -= at;
	memmove(c->in, c->in + at, c->nin);
	if (!c->gone && !c->closing && c->nin >= c->d->conf.max_line &&
	    !memchr(c->in, '\n', c->nin))
		too_long(c);
	/* An idle client keeps no large buffer. */
	if (!c->nin && c->in_size > READ_SIZE) {
		free(c->in);
		c->in = NULL;
		c->in_size = 0;
	}
}

static bool make_room(struct client *c)
{
	size_t size = c->in_size ? c->in_size * 2 : READ_SIZE / 4;
	char *p;

	if (c->in_size - c->nin >= READ_SIZE / 8)
		return true;
	p = realloc(c->in, size);
	if (!p)
		return false;
	c->in = p;
	c->in_size = size;
	return true;
}

static void client_receive(struct client *c)
{
	struct link_fds fds = {.fd = c->got, .n = &c->ngot, .max = REQUEST_FDS};
	unsigned had = c->ngot;
	int n;

	/* Lines that were left because of other limits come first. */
	if (has_line(c) || foreign_full(c->d, c->who.uid))
		return;
	if (!make_room(c)) {
		client_close(c);
		return;
	}
	n = link_recv(c->link, c->in + c->nin, c->in_size - c->nin, &fds);
	foreign_took(c->d, c->who.uid, c->ngot - had + fds.nrest);
	while (fds.nrest)
		foreign_close(c->d, c->who.uid, &fds.rest[--fds.nrest]);
	if (n == -EAGAIN)
		return;
	if (n < 0) {
		client_close(c);
		return;
	}
	c->eof = n == 0;
	/* Its end ends its last line; make_room() has left room for that. */
	if (c->eof && c->nin && c->in[c->nin - 1] != '\n')
		c->in[c->nin++] = '\n';
	c->got_more |= fds.more;
	c->nin += (size_t)n;
}

static void serve_client(struct client *c)
{
	if (c->gone || !c->nin)
		return;
	if (c->serve)
		c->serve(c);
	else
		serve_lines(c);
}

static void release(struct client *c)
{
	struct client **at = &c->d->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c->in);
	free(c);
}

static void on_socket(void *ctx, int events)
{
	struct client *c = ctx;

	/* It is gone, and did not read all: what is not yet begun stays so. */
	if (events & UV_PRIORITIZED || (events & UV_DISCONNECT && is_full(c))) {
		client_close(c);
		return;
	}
	if (events & UV_WRITABLE)
		flush(c);
	if (!c->gone && (events & UV_READABLE))
		client_receive(c);
	serve_client(c);
	client_settle(c);
}

static void client_on_again(void *ctx)
{
	struct client *c = ctx;

	c->again = NULL;
	serve_client(c);
	client_settle(c);
}

/* ---- begin and end ---- */

static void on_gone(void *ctx)
{
	release(ctx);
}

void client_close(struct client *c)
{
	if (c->gone)
		return;
	c->gone = true;
	c->subscribed = false;
	c->d->nclients--;
	drop_fds(c);
	while (c->requests) {
		struct request *r = c->requests;

		c->requests = r->next;
		r->client = NULL;
		if (r->machine) {
			machine_release(r);
			request_free(r);
		}
	}
	while (c->out)
		free_chunk(c);
	timer_cancel(c->again);
	c->again = NULL;
	timer_cancel(c->idle);
	c->idle = NULL;
	foreign_hang_up(c->d, c->who.uid, c->link);
	c->link = NULL;
	foreign_go_on(c->d);
	/* Somebody up the stack may still hold it. */
	if (!timer_after(&c->d->loop, 0, on_gone, c))
		dlog(LOG_LVL_ERROR, NULL, "out of memory");
}

struct client *client_make(struct daemon *d, const struct owner *who)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->d = d;
	c->who = *who;
	c->out_end = &c->out;
	c->next = d->clients;
	d->clients = c;
	d->nclients++;
	return c;
}

const char *client_first_line(const struct client *c)
{
	if (c->out)
		c->out->text[c->out->len - 1] = 0;
	return c->out ? c->out->text : NULL;
}

void client_free_line(struct client *c)
{
	free_chunk(c);
}

/* A daemon that may not change to another user would run that user's VMs with its own rights.
 * Windows: only the daemon's own account and administrators can open the pipe (listen_win.c). */
static bool is_stranger(uint32_t uid)
{
	return host_uid() && uid && uid != host_uid();
}

/* The limit that leaves no room for one more client of this user; NULL: there is room. */
static const char *limit_reached(const struct daemon *d, uint32_t uid)
{
	unsigned same = 0;

	if (clients_full(d) || foreign_table_full(d, uid))
		return "descriptors";
	for (const struct client *c = d->clients; c; c = c->next)
		same += !c->gone && c->who.uid == uid;
	if (uid && same >= d->conf.max_clients_per_uid)
		return "max_clients_per_uid";
	/* The last few are root's, so that somebody can always look. */
	return d->nclients < d->conf.max_clients + (uid ? 0 : 8u) ? NULL : "max_clients";
}

/* In a fresh connection there is room for a line. */
static void turn_away(struct client *c, const struct refusal *why)
{
	c->d->n.refused_clients++;
	c->closing = true;
	if (!c->serve)
		rpc_refuse_line(c, why);
	client_close(c);
}

/* False: it is turned away. */
static bool let_in(struct client *c, const char *limit)
{
	static const struct refusal stranger = {
		RPC_DENIED,
		"other-user",
		"uid",
		NULL,
		NULL,
		"this insulad does not run as root, and serves its own user and root alone"};
	const struct refusal full = {RPC_LIMIT, "limit", limit, NULL, "fewer connections", NULL};

	if (is_stranger(c->who.uid))
		turn_away(c, &stranger);
	else if (limit)
		turn_away(c, &full);
	return !c->gone;
}

void client_take(struct daemon *d, struct link *l, const struct owner *who,
		 void (*serve)(struct client *c))
{
	const char *limit = limit_reached(d, who->uid);
	struct client *c = client_make(d, who);

	if (!c) {
		d->n.refused_clients++;
		foreign_hang_up(d, who->uid, l);
		return;
	}
	c->serve = serve;
	c->link = l;
	if (!let_in(c, limit))
		return;
	c->active_ns = clock_ns();
	on_idle(c);
	d->n.clients++;
	if (link_watch(l, on_socket, c))
		client_close(c);
	else
		update(c);
}

void clients_close(struct daemon *d)
{
	for (struct client *c = d->clients; c; c = c->next)
		client_close(c);
	clients_unlisten(d);
}
