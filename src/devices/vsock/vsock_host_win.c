/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's ends on Windows: named pipes, which the supervisor has made or connected. See vsock.h.
 *
 * A pipe is asked to do something and says later that it has: one read into the end's own buffer is
 * always under way, and at most one write. Requests end in completion routines, which run on the
 * I/O thread while it waits in events_wait() and only mark the end and put it into a list; the list
 * is looked at after the wait. The table of connections sees reads and writes that do not block:
 *
 *   read    gives what the buffer has
 *   write   hands the pipe a copy of what is offered, and counts it as taken when the pipe has
 *           taken it. Until then the same bytes are offered again: they are in the connection's
 *           ring. So a ring that is empty has been delivered, and the end can be closed.
 *
 * Pipes have no half close. In a pipe of messages an empty message stands for the end of one
 * direction, in both directions; the borders of other messages mean nothing. A pipe of bytes (a
 * server's own choice) can only be closed as a whole.
 */
#include "os/win/win.h"

#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "devices/iov.h"
#include "vsock.h"

#define END_BYTES (16u << 10)
#define CANCEL_MS 5000 /* the system ends a request that was cancelled in this time */

struct end;

struct request {
	OVERLAPPED ov; /* first */
	struct end *end;
	bool busy; /* the system has it */
	DWORD error, n;
};

struct end { /* of the connection in the slot of the same number */
	struct vsock_host *host;
	HANDLE pipe; /* the connection's descriptor */
	uint32_t id; /* vconn_id() */
	struct request in, out, fin;
	uint32_t at, have;      /* of `data`: not read yet */
	uint32_t took;          /* bytes that the pipe has taken and write() has not reported */
	bool read, wrote;       /* news: a request of that kind has ended */
	bool eof, gone, broken; /* nothing more to read; closed by the other side; takes no more */
	bool deaf;              /* nobody wants to read any more */
	bool listed;
	struct end *next; /* of those with news */
	uint8_t data[END_BYTES], copy[END_BYTES];
};

struct vsock_host {
	struct end *news, **last;
	int event[2 + VSOCK_QUEUES]; /* commands, mail, kicks */
	struct end *end;             /* one for each connection */
};

static struct end *vsock_host_end_of(const struct vsockdev *d, const struct vconn *c)
{
	return &d->host->end[c - d->conns.conn];
}

/* ---- requests ---- */

static void list(struct end *e)
{
	if (e->listed)
		return;
	e->listed = true;
	e->next = NULL;
	*e->host->last = e;
	e->host->last = &e->next;
}

static void unlist(struct end *e)
{
	struct end **p = &e->host->news;

	if (!e->listed)
		return;
	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	if (!e->next)
		e->host->last = p;
	e->listed = false;
}

static void ended(struct request *r, DWORD error, DWORD n)
{
	struct end *e = r->end;

	r->busy = false;
	r->error = error;
	r->n = n;
	e->read |= r == &e->in;
	e->wrote |= r == &e->out;
	list(e);
}

static VOID CALLBACK on_ended(DWORD error, DWORD n, OVERLAPPED *ov)
{
	ended((struct request *)ov, error, n);
}

/* Let completion routines run that are due; none of them does more than ended(). */
static void vsock_host_look(void)
{
	SleepEx(0, TRUE);
}

static void vsock_host_begin(struct end *e, struct request *r)
{
	memset(&r->ov, 0, sizeof(r->ov));
	r->end = e;
	r->busy = true;
}

/* More of a message than there is room for is no error: the rest comes with the next read. */
static void start_read(struct end *e)
{
	if (e->in.busy || e->read || e->gone)
		return;
	vsock_host_begin(e, &e->in);
	if (!ReadFileEx(e->pipe, e->data, END_BYTES, &e->in.ov, on_ended) &&
	    GetLastError() != ERROR_MORE_DATA)
		ended(&e->in, GetLastError(), 0);
}

static void start_write(struct end *e, struct request *r, DWORD n)
{
	vsock_host_begin(e, r);
	if (!WriteFileEx(e->pipe, e->copy, n, &r->ov, on_ended))
		ended(r, GetLastError(), 0);
	vsock_host_look();
}

/* After the end of its direction a client has nothing to say, but it can still go. */
static void vsock_host_finish_read(struct end *e)
{
	const struct request *r = &e->in;
	bool good = r->error == 0 || r->error == ERROR_MORE_DATA;

	if (!e->read)
		return;
	e->read = false;
	e->gone = !good;
	e->at = 0;
	e->have = good && !e->deaf && !e->eof ? r->n : 0;
	e->eof |= !good || (r->error == 0 && r->n == 0);
	if (e->deaf || e->eof)
		start_read(e);
}

static void finish_write(struct end *e)
{
	if (!e->wrote)
		return;
	e->wrote = false;
	e->broken |= e->out.error != 0;
	e->took = e->out.error ? 0 : e->out.n;
}

/* ---- the host's ends ---- */

static int host_open(void *ctx, struct vconn *c)
{
	struct vsockdev *d = ctx;
	struct end *e = vsock_host_end_of(d, c);

	memset(e, 0, offsetof(struct end, data));
	e->host = d->host;
	e->pipe = fd_handle(c->fd);
	e->id = vconn_id(&d->conns, c);
	start_read(e);
	return 0;
}

static ssize_t host_read(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov)
{
	struct end *e = vsock_host_end_of(ctx, c);
	size_t n;

	vsock_host_finish_read(e);
	if (e->at == e->have) {
		start_read(e);
		return e->eof ? 0 : -EAGAIN;
	}
	n = iov_put(iov, niov, 0, e->data + e->at, e->have - e->at);
	e->at += (uint32_t)n;
	if (e->at == e->have)
		start_read(e);
	return (ssize_t)n;
}

static ssize_t report(struct end *e)
{
	ssize_t n;

	finish_write(e);
	n = (ssize_t)e->took;
	e->took = 0;
	return e->broken ? -EPIPE : n ? n : -EAGAIN;
}

static ssize_t host_write(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov)
{
	struct end *e = vsock_host_end_of(ctx, c);
	ssize_t n;

	if (e->out.busy)
		return -EAGAIN;
	n = report(e);
	if (n != -EAGAIN)
		return n;
	start_write(e, &e->out, (DWORD)iov_get(iov, niov, 0, e->copy, END_BYTES));
	return e->out.busy ? -EAGAIN : report(e);
}

/* A client that writes what nobody will read must not wait for ever: it is taken and dropped. */
static void host_shut(void *ctx, struct vconn *c, enum vconn_shut how)
{
	struct end *e = vsock_host_end_of(ctx, c);

	if (how == VCONN_SHUT_WRITE) {
		start_write(e, &e->fin, 0);
		return;
	}
	e->deaf = true;
	e->at = e->have = 0;
	vsock_host_finish_read(e);
	start_read(e);
}

/* A request that is under way is the system's: it ends first. */
static void host_close(void *ctx, struct vconn *c)
{
	struct end *e = vsock_host_end_of(ctx, c);
	uint64_t limit = clock_ns() + CANCEL_MS * 1000000ull;

	CancelIoEx(e->pipe, NULL);
	while (e->in.busy || e->out.busy || e->fin.busy) {
		SleepEx(CANCEL_MS, TRUE);
		if (clock_ns() > limit)
			panic("a pipe does not give up what it was cancelled");
	}
	unlist(e);
	CloseHandle(e->pipe);
}

/* The end of a write is news in any case. */
static void host_watch(void *ctx, struct vconn *c, bool on)
{
	struct end *e = vsock_host_end_of(ctx, c);

	if (on && !e->out.busy)
		list(e);
}

static void host_ask(void *ctx, uint32_t id, uint32_t port)
{
	vsock_ask(ctx, id, port);
}

static void host_forget(void *ctx, void *ring, size_t size)
{
	(void)ctx;
	VirtualAlloc(ring, size, MEM_RESET, PAGE_READWRITE);
}

const struct vconn_ops vsock_host_ops = {
	.open = host_open,
	.read = host_read,
	.write = host_write,
	.shut = host_shut,
	.close = host_close,
	.watch = host_watch,
	.ask = host_ask,
	.forget = host_forget,
};

void vsock_accept(struct vsockdev *d)
{
	d->clients = false; /* the supervisor does */
}

/* ---- wait ---- */

/* Each of them may be the end of the connection, and of the end with it. */
static void vsock_host_tell(struct vsockdev *d, struct end *e)
{
	struct vconns *t = &d->conns;
	uint32_t id = e->id;
	struct vconn *c;

	vsock_host_finish_read(e);
	finish_write(e);
	c = vconn_find_id(t, id);
	if (c && !e->out.busy)
		vconn_writable(t, c);
	c = vconn_find_id(t, id);
	if (c && c->watched && !e->out.busy)
		list(e); /* the ring has more than one write takes */
	if (c && (e->have > e->at || e->eof))
		vconn_readable(t, c);
	c = vconn_find_id(t, id);
	if (c && e->gone)
		vconn_hangup(t, c);
}

void vsock_wait(struct vsockdev *d, int timeout)
{
	struct vsock_host *h = d->host;
	uint64_t got;
	struct end *e;

	vsock_host_look();
	got = events_wait(h->event, 2 + VSOCK_QUEUES, -1, h->news ? 0 : timeout);
	d->conns.now = clock_ns();
	d->w.lane->stat[STAT_VSOCK_KICKS] += (unsigned)__builtin_popcountll(got >> 2);
	/* What comes up meanwhile is for the next turn. */
	vsock_host_look();
	e = h->news;
	h->news = NULL;
	h->last = &h->news;
	while (e) {
		struct end *next = e->next;

		e->listed = false;
		vsock_host_tell(d, e);
		e = next;
	}
}

/* ---- start ---- */

int vsock_vhost_open(struct vsockdev *d, int fd, const char **step, struct err *e)
{
	(void)d;
	(void)fd;
	*step = "vhost-vsock";
	return err_set(e, -ENOTSUP, "Windows has none");
}

int vsock_host_open(struct vsockdev *d, struct err *e)
{
	struct vsock_host *h = reserve_memory(sizeof(*h), true);

	if (d->listen_fd >= 0)
		return err_set(e, -EINVAL, "pipes cannot be listened on");
	if (h)
		h->end = reserve_memory(d->conns.max * sizeof(*h->end), true);
	if (!h || !h->end)
		return err_set(e, -ENOMEM, "memory for pipes");
	h->last = &h->news;
	h->event[0] = d->w.lane->ctl_fd;
	h->event[1] = d->mail_fd;
	memcpy(&h->event[2], d->w.kick_fd, VSOCK_QUEUES * sizeof(*h->event));
	d->host = h;
	return 0;
}
