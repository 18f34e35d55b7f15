/* SPDX-License-Identifier: BSD-2-Clause */
/* A console with clients that come and go. See ctlconsole_win.h. */
#include "ctlconsole_win.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#define CONNECT_NS 10000000000ull
#define DRAIN_NS 1000000000ull
#define DRAIN_STEP_MS 10
#define CANCEL_MS 5000  /* the system ends a request that was cancelled in this time */
#define TURNS 8         /* per wake-up */
#define DRAIN_TURNS 256 /* more than the pipes hold */
/* Read and write, but no instances of one's own. */
#define CLIENT_RIGHTS "0x12019b"

/* ---- requests ---- */

static void ctlconsole_close_handle(HANDLE *h)
{
	if (*h)
		CloseHandle(*h);
	*h = NULL;
}

static void CALLBACK on_done(DWORD error, DWORD n, OVERLAPPED *ov)
{
	struct overlapped *o = (struct overlapped *)ov;

	o->done = true;
	o->error = error;
	o->n = n;
	timer_set(o->wake, LOOP_NOW);
}

static void ctlconsole_begin_io(struct ctlconsole *c, HANDLE h, struct overlapped *o, bool write,
				char *buf, DWORD n)
{
	BOOL ok;

	*o = (struct overlapped){.busy = true, .wake = &c->wake};
	ok = write ? WriteFileEx(h, buf, n, &o->ov, on_done)
		   : ReadFileEx(h, buf, n, &o->ov, on_done);
	if (!ok)
		on_done(GetLastError(), 0, &o->ov);
}

static bool is_done(const struct overlapped *o)
{
	return o->busy && o->done;
}

/* The number of bytes; negative: it has failed. */
static int ctlconsole_finish(struct overlapped *o)
{
	o->busy = false;
	return o->error ? -EPIPE : (int)o->n;
}

static void ctlconsole_cancel(HANDLE h, struct overlapped *o)
{
	if (o->busy && !o->done)
		CancelIoEx(h, &o->ov);
	while (o->busy && !o->done)
		SleepEx(CANCEL_MS, TRUE);
	o->busy = false;
}

/* ---- begin and end ---- */

static int open_output(struct ctlconsole *c, struct ctlconsole_from *f, struct err *e)
{
	int rc = pipe_stream(false, &f->pipe, &f->helper, e);

	if (!rc)
		ctlconsole_begin_io(c, f->pipe, &f->read, false, f->got, sizeof(f->got));
	return rc;
}

int ctlconsole_open(struct ctlconsole *c, struct vmlog *log, struct err *e)
{
	int rc;

	memset(c, 0, sizeof(*c));
	c->log = log;
	c->connected = CreateEventW(NULL, TRUE, FALSE, NULL);
	if (!c->connected || scrollback_init(&c->out))
		return err_set(e, -ENOMEM, "out of memory");
	rc = pipe_stream(true, &c->to, &c->helper_in, e);
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS && !rc; i++) {
		c->from[i].stream = i == CTLCONSOLE_ERRORS ? VMLOG_STDERR : VMLOG_CONSOLE;
		rc = open_output(c, &c->from[i], e);
	}
	return rc;
}

void ctlconsole_has_command(struct ctlconsole *c)
{
	c->from[CTLCONSOLE_MAIN].stream = VMLOG_STDOUT;
}

static void ctlconsole_drop(struct ctlconsole_client *k)
{
	DWORD n;

	if (k->connect_ns && CancelIoEx(k->pipe, &k->connect))
		GetOverlappedResult(k->pipe, &k->connect, &n, TRUE);
	ctlconsole_cancel(k->pipe, &k->in);
	ctlconsole_cancel(k->pipe, &k->out);
	ctlconsole_close_handle(&k->pipe); /* what it has not read yet stays there for it */
	memset(k, 0, sizeof(*k));
}

void ctlconsole_close(struct ctlconsole *c)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].pipe)
			ctlconsole_drop(&c->client[i]);
	}
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++) {
		ctlconsole_cancel(c->from[i].pipe, &c->from[i].read);
		ctlconsole_close_handle(&c->from[i].pipe);
		ctlconsole_close_handle(&c->from[i].helper);
	}
	watch_off(&c->connected_watch);
	ctlconsole_cancel(c->to, &c->write);
	timer_set(&c->wake, 0);
	ctlconsole_close_handle(&c->to);
	ctlconsole_close_handle(&c->helper_in);
	ctlconsole_close_handle(&c->connected);
	scrollback_free(&c->out);
}

/* ---- clients ---- */

static struct ctlconsole_client *ctlconsole_room(struct ctlconsole *c, struct err *e)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (!c->client[i].pipe)
			return &c->client[i];
	}
	err_set(e, -EBUSY, "%d clients are attached; expected at most as many", CTLCONSOLE_CLIENTS);
	return NULL;
}

static void begin_typed(struct ctlconsole *c, struct ctlconsole_client *k)
{
	ctlconsole_begin_io(c, k->pipe, &k->in, false, k->typed, sizeof(k->typed));
}

/* A connection that comes at once, or is there already, sets no event. */
static void listen(struct ctlconsole *c, struct ctlconsole_client *k)
{
	k->connect = (OVERLAPPED){.hEvent = c->connected};
	k->connect_ns = clock_ns() + CONNECT_NS;
	if (ConnectNamedPipe(k->pipe, &k->connect) || GetLastError() == ERROR_IO_PENDING)
		return;
	/* Somebody is there, or has been: the first read will tell. */
	k->connect_ns = 0;
	begin_typed(c, k);
}

int ctlconsole_attach(struct ctlconsole *c, uint64_t scrollback, const char *sid, char *name,
		      struct err *e)
{
	struct ctlconsole_client *k = ctlconsole_room(c, e);
	char ace[WIN_SID_LEN + 32];
	PSECURITY_DESCRIPTOR sd;
	int fd;

	if (!k)
		return e->code;
	snprintf(ace, sizeof(ace), "(A;;" CLIENT_RIGHTS ";;;%s)", sid);
	sd = own_descriptor(false, ace, e);
	fd = sd ? pipe_offer(PIPE_ACCESS_DUPLEX, sd, name, e) : e->code;
	LocalFree(sd);
	if (fd < 0)
		return fd;
	k->pipe = fd_handle(fd);
	k->pos = scrollback_from(&c->out, scrollback);
	listen(c, k);
	timer_set(&c->wake, LOOP_NOW);
	return 0;
}

int ctlconsole_adopt(struct ctlconsole *c, int fd, struct err *e)
{
	struct ctlconsole_client *k = ctlconsole_room(c, e);

	if (!k) {
		fd_close(&fd);
		return e->code;
	}
	k->pipe = fd_handle(fd);
	begin_typed(c, k);
	timer_set(&c->wake, LOOP_NOW);
	return 0;
}

unsigned ctlconsole_clients(const struct ctlconsole *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++)
		n += c->client[i].pipe && !c->client[i].connect_ns;
	return n;
}

/* ---- copying ---- */

/* By then a client must have come; 0: none is waited for. */
static uint64_t ctlconsole_deadline(const struct ctlconsole *c)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		uint64_t limit = c->client[i].connect_ns;

		if (limit && (!first || limit < first))
			first = limit;
	}
	return first;
}

static void ctlconsole_take_output(struct ctlconsole *c, unsigned which)
{
	struct ctlconsole_from *f = &c->from[which];

	for (int i = 0; i < TURNS && is_done(&f->read); i++) {
		int n = ctlconsole_finish(&f->read);

		if (n > 0 && which != CTLCONSOLE_SERIAL)
			scrollback_add(&c->out, f->got, (size_t)n);
		if (n > 0)
			vmlog_add(c->log, f->stream, f->got, (size_t)n);
		if (n >= 0) /* both ends are ours: it does not end before us */
			ctlconsole_begin_io(c, f->pipe, &f->read, false, f->got, sizeof(f->got));
	}
}

/* One that does not read loses output, never the guest's time. */
static bool give_output(struct ctlconsole *c, struct ctlconsole_client *k)
{
	if (is_done(&k->out) && ctlconsole_finish(&k->out) < 0)
		return false;
	for (int i = 0; i < TURNS && !k->out.busy; i++) {
		const uint8_t *at;
		size_t n = scrollback_at(&c->out, &k->pos, &at, &c->lost);

		if (!n)
			return true;
		if (n > sizeof(k->shown))
			n = sizeof(k->shown);
		memcpy(k->shown, at, n);
		k->pos += n;
		ctlconsole_begin_io(c, k->pipe, &k->out, true, k->shown, (DWORD)n);
		if (is_done(&k->out) && ctlconsole_finish(&k->out) < 0)
			return false;
	}
	return true;
}

/* Of each client one piece; the next is read when that has gone to the helper. */
static bool ctlconsole_take_input(struct ctlconsole *c, struct ctlconsole_client *k)
{
	if (is_done(&k->in)) {
		int n = ctlconsole_finish(&k->in);

		if (n <= 0)
			return false;
		k->nin = (DWORD)n;
	}
	if (!k->nin || c->write.busy)
		return true;
	memcpy(c->in, k->typed, k->nin);
	ctlconsole_begin_io(c, c->to, &c->write, true, c->in, k->nin);
	k->nin = 0;
	begin_typed(c, k);
	return true;
}

/* False: nobody has come, or it cannot be told who. */
static bool connect_client(struct ctlconsole *c, struct ctlconsole_client *k)
{
	DWORD n;

	if (!HasOverlappedIoCompleted(&k->connect))
		return clock_ns() < k->connect_ns;
	k->connect_ns = 0;
	if (!GetOverlappedResult(k->pipe, &k->connect, &n, FALSE))
		return false;
	begin_typed(c, k);
	return true;
}

static bool serve_client(struct ctlconsole *c, struct ctlconsole_client *k)
{
	if (k->connect_ns && !connect_client(c, k))
		return false;
	return k->connect_ns || (ctlconsole_take_input(c, k) && give_output(c, k));
}

/* All clients are looked at, so the event need not say which has come. */
static void ctlconsole_serve(struct ctlconsole *c)
{
	ResetEvent(c->connected);
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++)
		ctlconsole_take_output(c, i);
	if (is_done(&c->write))
		(void)ctlconsole_finish(&c->write);
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].pipe && !serve_client(c, &c->client[i]))
			ctlconsole_drop(&c->client[i]);
	}
	if (c->wake.at_ns != LOOP_NOW) /* something failed at once */
		timer_set(&c->wake, ctlconsole_deadline(c));
}

static void on_connected(void *ctx, unsigned events)
{
	(void)events;
	ctlconsole_serve(ctx);
}

static void on_wake(void *ctx)
{
	ctlconsole_serve(ctx);
}

void ctlconsole_begin(struct ctlconsole *c, struct loop *l)
{
	watch_on(l, &c->connected_watch, handle_fd(c->connected), WATCH_IN, on_connected, c);
	timer_init(l, &c->wake, on_wake, c);
	timer_set(&c->wake, LOOP_NOW);
}

static bool any_output(const struct ctlconsole *c)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		const struct ctlconsole_client *k = &c->client[i];

		if (k->pipe && !k->connect_ns && (k->out.busy || k->pos < c->out.total))
			return true;
	}
	return false;
}

/* Of what the helpers have written. */
static bool has_more(const struct ctlconsole *c)
{
	bool more = false;

	SleepEx(0, TRUE);
	for (unsigned i = 0; i < CTLCONSOLE_OUTPUTS; i++)
		more |= is_done(&c->from[i].read);
	return more;
}

void ctlconsole_drain(struct ctlconsole *c)
{
	uint64_t limit = clock_ns() + DRAIN_NS;

	for (int i = 0; i < DRAIN_TURNS && has_more(c); i++)
		ctlconsole_serve(c);
	while (any_output(c) && clock_ns() < limit) {
		SleepEx(DRAIN_STEP_MS, TRUE);
		ctlconsole_serve(c);
	}
}
