/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections over named pipes. See link.h.
 *
 * A read is always under way into `in`, unless that holds something, so that a peer that goes is
 * noticed. What is sent is copied to `out` and written from there; there is one such piece at a
 * time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "link.h"
#include "watch.h"
#include "win.h"

#define PIECE (64u << 10) /* a packet is no longer */
#define LINGER_MS 5000    /* for what was taken, when the link is freed */

struct link {
	uv_loop_t *loop;
	HANDLE pipe;
	bool packets, freed, telling;
	watch_fn *fn;
	void *ctx;
	int events;
	/* in */
	OVERLAPPED in_ov;
	struct watch *in_watch;
	bool reading, too_long, told_end;
	int error; /* of the last read; 0: none */
	size_t nin, in_at;
	/* out */
	OVERLAPPED out_ov;
	struct watch *out_watch;
	bool writing, broken;
	struct timer *linger, *soon;
	char in[PIECE], out[PIECE];
};

static void tell_owner(struct link *l);

/* ---- in ---- */

static bool link_has_news(const struct link *l)
{
	return l->nin || l->error;
}

static void begin_read(struct link *l)
{
	if (l->reading || link_has_news(l) || l->freed)
		return;
	l->reading = true;
	/* Whatever comes of it at once or later, the event is set then; but not if it fails here.
	 */
	if (!ReadFile(l->pipe, l->in, PIECE, NULL, &l->in_ov) &&
	    GetLastError() != ERROR_IO_PENDING && GetLastError() != ERROR_MORE_DATA) {
		l->error = win_errno(GetLastError());
		SetEvent(l->in_ov.hEvent);
	}
	watch_set(l->in_watch, UV_READABLE);
}

static void end_read(struct link *l)
{
	DWORD n = 0, error = ERROR_SUCCESS;

	l->reading = false;
	watch_set(l->in_watch, 0);
	if (l->error)
		return;
	if (!GetOverlappedResult(l->pipe, &l->in_ov, &n, TRUE))
		error = GetLastError();
	l->too_long = l->packets && error == ERROR_MORE_DATA;
	l->in_at = 0;
	l->nin = n;
	if (error != ERROR_SUCCESS && error != ERROR_MORE_DATA)
		l->error = win_errno(error);
	else if (!n)
		l->error = -EPIPE;
}

static void on_read(void *ctx, int events)
{
	struct link *l = ctx;

	(void)events;
	end_read(l);
	tell_owner(l);
}

int link_recv(struct link *l, void *buf, size_t size, struct link_fds *fds)
{
	size_t n;
	bool cut;

	(void)fds; /* nobody can send any */
	/* It may be there before the loop hears of it. */
	if (l->reading && WaitForSingleObject(l->in_ov.hEvent, 0) == WAIT_OBJECT_0)
		end_read(l);
	n = l->nin < size ? l->nin : size;
	cut = l->too_long || (l->packets && n < l->nin);
	if (!l->nin) {
		l->told_end = l->error != 0;
		return !l->error ? -EAGAIN : l->error == -EPIPE ? 0 : l->error;
	}
	memcpy(buf, l->in + l->in_at, n);
	l->in_at += n;
	l->nin -= l->packets ? l->nin : n;
	l->too_long = false;
	begin_read(l);
	return cut ? -EMSGSIZE : (int)n;
}

/* ---- out ---- */

static void destroy(struct link *l);
static void link_finish(struct link *l);

static void end_write(struct link *l)
{
	DWORD n = 0;

	l->writing = false;
	watch_set(l->out_watch, 0);
	l->broken |= !GetOverlappedResult(l->pipe, &l->out_ov, &n, TRUE);
}

static void on_written(void *ctx, int events)
{
	struct link *l = ctx;

	(void)events;
	end_write(l);
	if (l->freed)
		destroy(l);
	else
		tell_owner(l);
}

int link_send(struct link *l, const void *buf, size_t len, const int *fds, unsigned nfds)
{
	size_t n = len < PIECE ? len : PIECE;

	(void)fds;
	if (nfds)
		return -EOPNOTSUPP;
	/* Most writes are done at once, long before the loop hears of it. */
	if (l->writing && WaitForSingleObject(l->out_ov.hEvent, 0) == WAIT_OBJECT_0)
		end_write(l);
	if (l->broken)
		return -EPIPE;
	if (l->packets && len > PIECE)
		return -EMSGSIZE;
	if (l->writing)
		return -EAGAIN;
	memcpy(l->out, buf, n);
	l->writing = true;
	if (!WriteFile(l->pipe, l->out, (DWORD)n, NULL, &l->out_ov) &&
	    GetLastError() != ERROR_IO_PENDING) {
		l->writing = false;
		l->broken = true;
		return -EPIPE;
	}
	watch_set(l->out_watch, UV_READABLE);
	return (int)n;
}

/* ---- both ---- */

/* As a socket in a poll: what is there is told until it is taken. */
static void on_soon(void *ctx)
{
	struct link *l = ctx;

	l->soon = NULL;
	tell_owner(l);
}

static void look_again(struct link *l)
{
	if (!l->soon && !l->freed)
		l->soon = timer_after(l->loop, 0, on_soon, l);
}

static int what_is(const struct link *l)
{
	int is = 0;

	if (link_has_news(l) && l->events & UV_READABLE)
		is |= UV_READABLE;
	if (!l->writing && l->events & UV_WRITABLE)
		is |= UV_WRITABLE;
	/* Who asks for nothing hears of the end all the same. Pipes have no half of an end: who has
	 * seen it and goes on is told that there is nobody. */
	if (l->error && !l->nin)
		is |= l->told_end ? UV_PRIORITIZED : UV_READABLE | UV_DISCONNECT;
	return is;
}

static void tell_owner(struct link *l)
{
	int is = what_is(l);

	if (!is || !l->fn || l->freed)
		return;
	l->telling = true;
	l->fn(l->ctx, is);
	l->telling = false;
	if (l->freed)
		link_finish(l);
	else if (what_is(l))
		look_again(l);
}

int link_watch(struct link *l, watch_fn *fn, void *ctx)
{
	l->fn = fn;
	l->ctx = ctx;
	return 0;
}

void link_set(struct link *l, int events)
{
	l->events = events;
	if (what_is(l))
		look_again(l);
}

HANDLE link_pipe(const struct link *l)
{
	return l->pipe;
}

/* ---- begin and end ---- */

struct link *link_new(uv_loop_t *loop, int fd, bool packets)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l) {
		fd_close(&fd);
		return NULL;
	}
	l->loop = loop;
	l->pipe = fd_handle(fd);
	l->packets = packets;
	l->in_ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	l->out_ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	if (l->in_ov.hEvent && l->out_ov.hEvent) {
		l->in_watch = watch_new(loop, handle_fd(l->in_ov.hEvent), on_read, l);
		l->out_watch = watch_new(loop, handle_fd(l->out_ov.hEvent), on_written, l);
	}
	if (!l->in_watch || !l->out_watch) {
		destroy(l);
		return NULL;
	}
	begin_read(l);
	return l;
}

static void link_cancel(struct link *l, OVERLAPPED *ov)
{
	DWORD n;

	CancelIoEx(l->pipe, ov);
	GetOverlappedResult(l->pipe, ov, &n, TRUE);
}

static void destroy(struct link *l)
{
	timer_cancel(l->linger);
	if (l->writing)
		link_cancel(l, &l->out_ov);
	watch_free(l->in_watch);
	watch_free(l->out_watch);
	if (l->in_ov.hEvent)
		CloseHandle(l->in_ov.hEvent);
	if (l->out_ov.hEvent)
		CloseHandle(l->out_ov.hEvent);
	CloseHandle(l->pipe);
	free(l);
}

static void on_linger(void *ctx)
{
	struct link *l = ctx;

	l->linger = NULL;
	destroy(l);
}

/* What it has taken goes out first, if that takes no longer than may be. */
static void link_finish(struct link *l)
{
	if (l->writing)
		l->linger = timer_after(l->loop, LINGER_MS, on_linger, l);
	if (!l->linger)
		destroy(l);
}

void link_free(struct link *l)
{
	if (!l)
		return;
	l->freed = true;
	timer_cancel(l->soon);
	l->soon = NULL;
	if (l->reading && !l->error)
		link_cancel(l, &l->in_ov);
	l->reading = false;
	watch_set(l->in_watch, 0);
	if (!l->telling)
		link_finish(l);
}

int link_detach(struct link *l)
{
	link_free(l);
	return -1;
}
