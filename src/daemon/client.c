/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients: bytes in, lines out. What one of them does or leaves undone costs the others nothing: a
 * bounded buffer for its line, a bounded queue of what it has not read, a bounded number of
 * requests under way (it is not read from while it has more), a bounded amount of work per wake-up.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>
#include <insula/scm.h>

#include "daemon.h"

#define READ_SIZE 16384
#define LINES 32   /* per wake-up */
#define ACCEPTS 16 /* per wake-up */
#define HTTP_MAX 4096
#define BACKLOG 128

struct chunk {
	struct chunk *next;
	size_t len, at;
	int fd; /* owned; -1: none */
	char text[];
};

static void on_socket(void *ctx, int events);

/* ---- out ---- */

static void on_again(void *ctx);

static bool has_line(const struct client *c)
{
	return c->nin && !c->http && !c->closing && memchr(c->in, '\n', c->nin);
}

/* It has enough under way, or has not read what it has got: the next line waits. */
static bool is_full(const struct client *c)
{
	return c->nrequests >= c->d->conf.max_requests || c->queued > c->d->conf.max_queue / 4 ||
	       c->closing;
}

/* A hang-up is told whatever one asks for; PRIORITIZED asks for nothing else, as no such data
 * exist here. */
static void update(struct client *c)
{
	bool wait = is_full(c);

	if (c->gone || !c->watch)
		return;
	watch_set(c->watch,
		  (wait || c->eof ? UV_PRIORITIZED : UV_READABLE) | (c->out ? UV_WRITABLE : 0));
	if (!wait && !c->again && has_line(c))
		c->again = timer_after(&c->d->loop, 0, on_again, c);
}

void client_settle(struct client *c)
{
	if (c->gone)
		return;
	if (c->eof && !c->nrequests && !c->out && !has_line(c))
		client_close(c);
	else
		update(c);
}

static void free_chunk(struct client *c)
{
	struct chunk *k = c->out;

	c->out = k->next;
	if (!c->out)
		c->out_end = &c->out;
	c->queued -= k->len;
	fd_close(&k->fd);
	free(k);
}

/* True: something was written. */
static bool write_chunk(struct client *c)
{
	struct chunk *k = c->out;
	struct iovec iov = {k->text + k->at, k->len - k->at};
	union scm_buf ctl;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	scm_attach(&m, &ctl, &k->fd, k->fd >= 0);
	n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			client_close(c);
		return false;
	}
	fd_close(&k->fd);
	k->at += (size_t)n;
	if (k->at == k->len)
		free_chunk(c);
	return true;
}

static void flush(struct client *c)
{
	while (c->out && c->fd >= 0 && !c->gone && write_chunk(c))
		;
	if (!c->out && c->closing)
		client_close(c);
}

static void queue(struct client *c, const char *text, size_t len, bool end, int fd)
{
	struct chunk *k = malloc(sizeof(*k) + len + 1);

	if (!k) {
		client_close(c);
		return;
	}
	*k = (struct chunk){.len = len + end, .fd = -1};
	memcpy(k->text, text, len);
	if (end)
		k->text[len] = '\n';
	if (fd >= 0)
		k->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	*c->out_end = k;
	c->out_end = &k->next;
	c->queued += k->len;
	flush(c);
}

void client_send(struct client *c, const char *text, int fd)
{
	if (c->gone)
		return;
	if (c->queued > c->d->conf.max_queue) {
		dlog(LOG_LVL_WARN, NULL, "client of uid %u: does not read its answers; closed",
		     (unsigned)c->uid);
		client_close(c);
		return;
	}
	queue(c, text, strlen(text), true, fd);
	update(c);
}

/* ---- in ---- */

static void drop_fds(struct client *c)
{
	while (c->ngot)
		close(c->got[--c->ngot]);
	c->got_more = false;
}

/* The metrics socket speaks as much HTTP as a scraper needs. */
static void serve_http(struct client *c)
{
	char head[160], *body;

	if (!memmem(c->in, c->nin, "\r\n\r\n", 4) && !memmem(c->in, c->nin, "\n\n", 2)) {
		if (c->nin >= HTTP_MAX)
			client_close(c);
		return;
	}
	body = c->nin >= 4 && !memcmp(c->in, "GET ", 4) ? metrics_text(c->d) : NULL;
	snprintf(head, sizeof(head),
		 "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %zu\r\n"
		 "Connection: close\r\n\r\n",
		 body ? "200 OK" : "405 Method Not Allowed", body ? strlen(body) : 0);
	queue(c, head, strlen(head), false, -1);
	if (body && !c->gone)
		queue(c, body, strlen(body), false, -1);
	free(body);
	c->nin = 0;
	c->closing = true;
	flush(c);
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
	int lines = 0;

	while (!c->gone && !is_full(c) && lines++ < LINES) {
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

static void receive(struct client *c)
{
	union scm_buf ctl;
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	/* Lines that were left because of other limits come first. */
	if (c->nin && memchr(c->in, '\n', c->nin))
		return;
	if (!make_room(c)) {
		client_close(c);
		return;
	}
	iov = (struct iovec){c->in + c->nin, c->in_size - c->nin};
	scm_expect(&m, &ctl, REQUEST_FDS + 1);
	n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		client_close(c);
		return;
	}
	c->eof = n == 0;
	c->got_more |= scm_take(&m, c->got, &c->ngot, REQUEST_FDS);
	c->nin += (size_t)n;
}

static void serve(struct client *c)
{
	if (c->gone || !c->nin)
		return;
	if (c->http)
		serve_http(c);
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
		receive(c);
	serve(c);
	client_settle(c);
}

static void on_again(void *ctx)
{
	struct client *c = ctx;

	c->again = NULL;
	serve(c);
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
	watch_free(c->watch);
	c->watch = NULL;
	fd_close(&c->fd);
	/* Somebody up the stack may still hold it. */
	if (!timer_after(&c->d->loop, 0, on_gone, c))
		dlog(LOG_LVL_ERROR, NULL, "out of memory");
}

struct client *client_make(struct daemon *d, int fd, uid_t uid)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->d = d;
	c->fd = fd;
	c->uid = uid;
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

static bool has_room(const struct daemon *d, uid_t uid)
{
	unsigned same = 0;

	for (const struct client *c = d->clients; c; c = c->next)
		same += !c->gone && c->uid == uid;
	/* The last few are root's, so that somebody can always look. */
	return same < d->conf.max_clients_per_uid &&
	       d->nclients < d->conf.max_clients + (uid == 0 ? 8u : 0u);
}

static void take(struct daemon *d, int fd, bool http)
{
	struct ucred u;
	socklen_t len = sizeof(u), groups;
	struct client *c;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) || !has_room(d, u.uid)) {
		d->n.refused_clients++;
		close(fd);
		return;
	}
	c = client_make(d, fd, u.uid);
	if (!c) {
		close(fd);
		return;
	}
	c->gid = u.gid;
	c->http = http;
	groups = sizeof(c->groups);
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, c->groups, &groups))
		c->ngroups = (unsigned)(groups / sizeof(gid_t));
	c->watch = watch_new(&d->loop, fd, on_socket, c);
	d->n.clients++;
	if (c->watch)
		update(c);
	else
		client_close(c);
}

static void accept_all(struct daemon *d, int listener, bool http)
{
	for (int i = 0; i < ACCEPTS; i++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		take(d, fd, http);
	}
}

static void on_listen(void *ctx, int events)
{
	struct daemon *d = ctx;

	(void)events;
	accept_all(d, d->listen, false);
}

static void on_listen_metrics(void *ctx, int events)
{
	struct daemon *d = ctx;

	(void)events;
	accept_all(d, d->listen_metrics, true);
}

static int own_socket(const struct conf *c, const char *path, struct err *e)
{
	struct group *g = c->socket_group[0] ? getgrnam(c->socket_group) : NULL;

	if (c->socket_group[0] && !g)
		return err_set(e, -EINVAL, "socket_group: '%s': no such group", c->socket_group);
	if (chmod(path, (mode_t)c->socket_mode) || (g && chown(path, (uid_t)-1, g->gr_gid)))
		return err_sys(e, -errno, "%s", path);
	return 0;
}

/* The state directory is locked, so what stands here is left over, or is somebody else's. */
static int make_socket(const struct conf *c, const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char dir[CONF_PATH_MAX];
	struct stat st;
	int fd, rc = 0;
	mode_t mask;

	snprintf(dir, sizeof(dir), "%s", path);
	*strrchr(dir, '/') = 0;
	if (dir[0] && mkdir(dir, 0755) && errno != EEXIST)
		return err_sys(e, -errno, "%s", dir);
	if (!lstat(path, &st) && !S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "%s: exists and is no socket", path);
	unlink(path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)))
		rc = err_sys(e, -errno, "%s", path);
	umask(mask);
	if (!rc)
		rc = own_socket(c, path, e);
	if (!rc && listen(fd, BACKLOG))
		rc = err_sys(e, -errno, "%s", path);
	if (rc)
		fd_close(&fd);
	return rc ? rc : fd;
}

int clients_listen(struct daemon *d, struct err *e)
{
	int given[2] = {-1, -1}, n = notify_sockets(given, 2);

	d->listen = n > 0 ? given[0] : make_socket(&d->conf, d->conf.socket, e);
	if (d->listen < 0)
		return d->listen;
	d->listen_metrics = n > 1 ? given[1]
			    : d->conf.metrics_socket[0]
				    ? make_socket(&d->conf, d->conf.metrics_socket, e)
				    : -1;
	if (d->conf.metrics_socket[0] && d->listen_metrics < 0)
		return d->listen_metrics;
	d->listen_watch = watch_new(&d->loop, d->listen, on_listen, d);
	if (d->listen_metrics >= 0)
		d->listen_metrics_watch =
			watch_new(&d->loop, d->listen_metrics, on_listen_metrics, d);
	if (!d->listen_watch || (d->listen_metrics >= 0 && !d->listen_metrics_watch))
		return err_set(e, -ENOTSOCK, "the sockets cannot be watched");
	watch_set(d->listen_watch, UV_READABLE);
	if (d->listen_metrics_watch)
		watch_set(d->listen_metrics_watch, UV_READABLE);
	return 0;
}

void clients_close(struct daemon *d)
{
	for (struct client *c = d->clients; c; c = c->next)
		client_close(c);
	watch_free(d->listen_watch);
	watch_free(d->listen_metrics_watch);
	d->listen_watch = d->listen_metrics_watch = NULL;
	fd_close(&d->listen);
	fd_close(&d->listen_metrics);
}
