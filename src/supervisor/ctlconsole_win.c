/* SPDX-License-Identifier: BSD-2-Clause */
/* A console with clients that come and go. See ctlconsole_win.h. */
#include "ctlconsole_win.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#define CONNECT_NS 10000000000ull
#define DRAIN_NS 1000000000ull
#define TURNS 8 /* per wake-up */
/* Read and write, but no instances of one's own. */
#define CLIENT_RIGHTS "0x12019b"

/* ---- requests ---- */

static void close_handle(HANDLE *h)
{
	if (*h)
		CloseHandle(*h);
	*h = NULL;
}

static int make(struct overlapped *o)
{
	o->ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	return o->ov.hEvent ? 0 : -ENOMEM;
}

/* The event is set when it has ended, also here and now. */
static void begin(HANDLE h, struct overlapped *o, bool write, char *buf, DWORD n)
{
	HANDLE event = o->ov.hEvent;
	BOOL ok;

	o->ov = (OVERLAPPED){.hEvent = event};
	o->busy = true;
	o->failed = false;
	ok = write ? WriteFile(h, buf, n, NULL, &o->ov) : ReadFile(h, buf, n, NULL, &o->ov);
	if (!ok && GetLastError() != ERROR_IO_PENDING) {
		o->failed = true;
		SetEvent(event);
	}
}

static bool is_done(const struct overlapped *o)
{
	return o->busy && WaitForSingleObject(o->ov.hEvent, 0) == WAIT_OBJECT_0;
}

/* The number of bytes; negative: it has failed. */
static int finish(HANDLE h, struct overlapped *o)
{
	DWORD n = 0;
	bool ok = !o->failed && GetOverlappedResult(h, &o->ov, &n, TRUE);

	o->busy = false;
	return ok ? (int)n : -EPIPE;
}

static void cancel(HANDLE h, struct overlapped *o)
{
	DWORD n;

	if (o->busy && !o->failed) {
		CancelIoEx(h, &o->ov);
		GetOverlappedResult(h, &o->ov, &n, TRUE);
	}
	o->busy = false;
}

static void discard(HANDLE h, struct overlapped *o)
{
	cancel(h, o);
	close_handle(&o->ov.hEvent);
}

/* ---- begin and end ---- */

int ctlconsole_open(struct ctlconsole *c, struct err *e)
{
	int rc;

	memset(c, 0, sizeof(*c));
	if (scrollback_init(&c->out) || make(&c->read) || make(&c->write))
		return err_set(e, -ENOMEM, "out of memory");
	rc = pipe_stream(false, &c->from, &c->helper_out, e);
	if (!rc)
		rc = pipe_stream(true, &c->to, &c->helper_in, e);
	if (!rc)
		begin(c->from, &c->read, false, c->got, sizeof(c->got));
	return rc;
}

static void drop(struct ctlconsole_client *k)
{
	discard(k->pipe, &k->in);
	discard(k->pipe, &k->out);
	close_handle(&k->pipe); /* what it has not read yet stays there for it */
	memset(k, 0, sizeof(*k));
}

void ctlconsole_close(struct ctlconsole *c)
{
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].pipe)
			drop(&c->client[i]);
	}
	discard(c->from, &c->read);
	discard(c->to, &c->write);
	close_handle(&c->from);
	close_handle(&c->to);
	close_handle(&c->helper_out);
	close_handle(&c->helper_in);
	scrollback_free(&c->out);
}

/* ---- clients ---- */

static struct ctlconsole_client *room(struct ctlconsole *c, struct err *e)
{
	struct ctlconsole_client *k = NULL;

	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS && !k; i++) {
		if (!c->client[i].pipe)
			k = &c->client[i];
	}
	if (!k)
		err_set(e, -EBUSY, "%d clients are attached; expected at most as many",
			CTLCONSOLE_CLIENTS);
	else if (make(&k->in) || make(&k->out)) {
		drop(k);
		k = NULL;
		err_set(e, -ENOMEM, "out of memory");
	}
	return k;
}

static void listen(struct ctlconsole_client *k)
{
	k->in.busy = true;
	if (!ConnectNamedPipe(k->pipe, &k->in.ov) && GetLastError() != ERROR_IO_PENDING) {
		/* Somebody is there, or has been: the first read will tell. */
		k->in.failed = true;
		SetEvent(k->in.ov.hEvent);
	}
}

int ctlconsole_attach(struct ctlconsole *c, uint64_t scrollback, const char *sid, char *name,
		      struct err *e)
{
	struct ctlconsole_client *k = room(c, e);
	char ace[WIN_SID_LEN + 32];
	PSECURITY_DESCRIPTOR sd;
	int fd;

	if (!k)
		return e->code;
	snprintf(ace, sizeof(ace), "(A;;" CLIENT_RIGHTS ";;;%s)", sid);
	sd = own_descriptor(false, ace, e);
	fd = sd ? pipe_offer(PIPE_ACCESS_DUPLEX, sd, name, e) : e->code;
	LocalFree(sd);
	if (fd < 0) {
		drop(k);
		return fd;
	}
	k->pipe = fd_handle(fd);
	k->pos = scrollback_from(&c->out, scrollback);
	k->connect_ns = clock_ns() + CONNECT_NS;
	listen(k);
	return 0;
}

int ctlconsole_adopt(struct ctlconsole *c, int fd, struct err *e)
{
	struct ctlconsole_client *k = room(c, e);

	if (!k) {
		fd_close(&fd);
		return e->code;
	}
	k->pipe = fd_handle(fd);
	begin(k->pipe, &k->in, false, k->typed, sizeof(k->typed));
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

DWORD ctlconsole_slots(const struct ctlconsole *c, HANDLE *h)
{
	DWORD n = 0;

	if (c->read.busy)
		h[n++] = c->read.ov.hEvent;
	if (c->write.busy)
		h[n++] = c->write.ov.hEvent;
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		const struct ctlconsole_client *k = &c->client[i];

		if (k->in.busy)
			h[n++] = k->in.ov.hEvent;
		if (k->out.busy)
			h[n++] = k->out.ov.hEvent;
	}
	return n;
}

uint64_t ctlconsole_deadline(const struct ctlconsole *c)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		uint64_t limit = c->client[i].connect_ns;

		if (limit && (!first || limit < first))
			first = limit;
	}
	return first;
}

static void take_output(struct ctlconsole *c)
{
	for (int i = 0; i < TURNS && is_done(&c->read); i++) {
		int n = finish(c->from, &c->read);

		if (n > 0)
			scrollback_add(&c->out, c->got, (size_t)n);
		if (n >= 0) /* both ends are ours: it does not end before us */
			begin(c->from, &c->read, false, c->got, sizeof(c->got));
	}
}

/* One that does not read loses output, never the guest's time. */
static bool give_output(struct ctlconsole *c, struct ctlconsole_client *k)
{
	if (is_done(&k->out) && finish(k->pipe, &k->out) < 0)
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
		begin(k->pipe, &k->out, true, k->shown, (DWORD)n);
		if (is_done(&k->out) && finish(k->pipe, &k->out) < 0)
			return false;
	}
	return true;
}

/* Of each client one piece; the next is read when that has gone to the helper. */
static bool take_input(struct ctlconsole *c, struct ctlconsole_client *k)
{
	if (is_done(&k->in)) {
		int n = finish(k->pipe, &k->in);

		if (n <= 0)
			return false;
		k->nin = (DWORD)n;
	}
	if (!k->nin || c->write.busy)
		return true;
	memcpy(c->in, k->typed, k->nin);
	begin(c->to, &c->write, true, c->in, k->nin);
	k->nin = 0;
	begin(k->pipe, &k->in, false, k->typed, sizeof(k->typed));
	return true;
}

/* False: nobody has come, or it cannot be told who. */
static bool connect_client(struct ctlconsole_client *k)
{
	if (!is_done(&k->in))
		return clock_ns() < k->connect_ns;
	if (!k->in.failed && finish(k->pipe, &k->in) < 0)
		return false;
	k->connect_ns = 0;
	begin(k->pipe, &k->in, false, k->typed, sizeof(k->typed));
	return true;
}

static bool serve_client(struct ctlconsole *c, struct ctlconsole_client *k)
{
	if (k->connect_ns && !connect_client(k))
		return false;
	return k->connect_ns || (take_input(c, k) && give_output(c, k));
}

void ctlconsole_serve(struct ctlconsole *c)
{
	take_output(c);
	if (is_done(&c->write))
		(void)finish(c->to, &c->write);
	for (unsigned i = 0; i < CTLCONSOLE_CLIENTS; i++) {
		if (c->client[i].pipe && !serve_client(c, &c->client[i]))
			drop(&c->client[i]);
	}
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

void ctlconsole_drain(struct ctlconsole *c)
{
	uint64_t limit = clock_ns() + DRAIN_NS;
	HANDLE h[CTLCONSOLE_SLOTS];

	ctlconsole_serve(c);
	while (any_output(c) && clock_ns() < limit) {
		WaitForMultipleObjects(ctlconsole_slots(c, h), h, FALSE, 10);
		ctlconsole_serve(c);
	}
}
