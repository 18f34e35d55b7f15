/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The handles of insula-exec on Windows. See exec.h.
 *
 * The stream is one end of a pipe of messages, whose other end insula-vsock has. At most one read,
 * into our own buffer, and one write are under way; they end in completion routines, which run on
 * the main thread while it waits in events_wait(), and only mark the request. What is written
 * counts as sent as soon as it is ours: the protocol keeps it until the guest has acknowledged it.
 * An empty message is the end of the guest's direction (vsock_host_win.c), and is never written.
 *
 * The user's handles are pipes or files, never a console window, which would be a way out.
 */
#include "os/win/win.h"

#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "exec.h"

#define STREAM_BYTES (64u << 10)
#define USER_BYTES (32u << 10) /* of one write: credit is given back as it goes */
#define CANCEL_MS 5000         /* the system ends a request that was cancelled in this time */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

struct request {
	OVERLAPPED ov; /* first */
	bool busy;     /* the system has it */
	bool fresh;    /* it has ended, and nobody has looked yet */
	DWORD error, n;
};

struct exec_host {
	struct request in, out;
	uint32_t at, have; /* of `data`: not read yet */
	bool ended;        /* nothing more will be read */
	uint8_t data[STREAM_BYTES], copy[STREAM_BYTES];
};

int exec_spec_read(int spec, void *buf, size_t len)
{
	struct err e;
	void *at;
	int rc = shm_map(spec, len, 0, len, false, &at, &e);

	if (rc)
		return rc;
	memcpy(buf, at, len);
	shm_unmap(at, len);
	return 0;
}

/* ---- the user's ---- */

int exec_user_check(const struct exec *x, struct err *e)
{
	const int fd[] = {x->out[0].fd, x->out[1].fd, x->in_fd};
	DWORD mode;

	for (unsigned i = 0; i < ARRAY_LEN(fd); i++) {
		if (fd[i] >= 0 && GetConsoleMode(fd_handle(fd[i]), &mode))
			return err_set(e, -EPERM, "a console window");
	}
	return 0;
}

/* Whoever made a pipe may have made it for overlapped I/O, so each request names an event; a file
 * has a position that others share. */
static bool wait_for(HANDLE h, OVERLAPPED *ov, BOOL now, DWORD *n)
{
	if (now)
		return true;
	return GetLastError() == ERROR_IO_PENDING && GetOverlappedResult(h, ov, n, TRUE);
}

static OVERLAPPED *for_pipe(HANDLE h, OVERLAPPED *ov)
{
	if (GetFileType(h) != FILE_TYPE_PIPE)
		return NULL;
	*ov = (OVERLAPPED){.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	return ov->hEvent ? ov : NULL;
}

static ssize_t user_error(DWORD error, bool reading)
{
	int code = win_errno(error);

	if (reading && (code == -EPIPE || code == -ENODATA))
		return 0;
	return code;
}

ssize_t exec_user_write(int fd, const void *buf, size_t n)
{
	HANDLE h = fd_handle(fd);
	OVERLAPPED own, *ov = for_pipe(h, &own);
	DWORD done = 0, error;
	bool good = wait_for(
		h, ov, WriteFile(h, buf, (DWORD)MIN(n, USER_BYTES), ov ? NULL : &done, ov), &done);

	if (good && ov)
		good = GetOverlappedResult(h, ov, &done, TRUE);
	error = GetLastError();
	if (ov)
		CloseHandle(own.hEvent);
	if (!good)
		return user_error(error, false);
	if (done == 0)
		Sleep(1); /* a pipe that does not wait, and is full */
	return done ? (ssize_t)done : -EAGAIN;
}

/* More of a message than there is room for comes with the next read. */
ssize_t exec_user_read(int fd, void *buf, size_t n)
{
	HANDLE h = fd_handle(fd);
	OVERLAPPED own, *ov = for_pipe(h, &own);
	DWORD done = 0, error;
	bool good = wait_for(h, ov, ReadFile(h, buf, (DWORD)n, ov ? NULL : &done, ov), &done);

	if (ov && (good || GetLastError() == ERROR_MORE_DATA))
		good = GetOverlappedResult(h, ov, &done, TRUE) || GetLastError() == ERROR_MORE_DATA;
	error = GetLastError();
	if (ov)
		CloseHandle(own.hEvent);
	return good ? (ssize_t)done : user_error(error, true);
}

/* ---- the stream ---- */

/* Let completion routines run that are due. */
static void exec_look(void)
{
	SleepEx(0, TRUE);
}

static VOID CALLBACK on_ended(DWORD error, DWORD n, OVERLAPPED *ov)
{
	struct request *r = (struct request *)ov;

	r->busy = false;
	r->fresh = true;
	r->error = error;
	r->n = n;
}

static void exec_begin(struct request *r)
{
	*r = (struct request){.busy = true};
}

static void exec_finish_read(struct exec_host *h)
{
	struct request *r = &h->in;
	bool good = r->error == 0 || r->error == ERROR_MORE_DATA;

	if (!r->fresh)
		return;
	r->fresh = false;
	h->at = 0;
	h->have = good ? r->n : 0;
	h->ended = h->have == 0;
}

/* Into an empty buffer. */
static void start_read(struct exec *x)
{
	struct exec_host *h = x->host;

	if (h->in.busy || h->ended || h->at != h->have)
		return;
	exec_begin(&h->in);
	if (!ReadFileEx(fd_handle(x->stream), h->data, STREAM_BYTES, &h->in.ov, on_ended) &&
	    GetLastError() != ERROR_MORE_DATA)
		on_ended(GetLastError(), 0, &h->in.ov);
	exec_look();
	exec_finish_read(h);
}

int exec_stream_open(struct exec *x, int fd)
{
	if (!x->host)
		x->host = reserve_memory(sizeof(*x->host), true);
	if (!x->host)
		return -ENOMEM;
	x->host->at = x->host->have = 0;
	x->host->ended = false;
	x->host->in = x->host->out = (struct request){0};
	x->stream = fd;
	return 0;
}

/* A request that is under way is the system's: it ends first. */
void exec_stream_close(struct exec *x)
{
	struct exec_host *h = x->host;
	uint64_t limit = clock_ns() + CANCEL_MS * 1000000ull;

	CancelIoEx(fd_handle(x->stream), NULL);
	while (h->in.busy || h->out.busy) {
		SleepEx(CANCEL_MS, TRUE);
		if (clock_ns() > limit)
			panic("a pipe does not give up what it was cancelled");
	}
	fd_close(&x->stream);
}

ssize_t exec_stream_read(struct exec *x, void *buf, size_t n)
{
	struct exec_host *h = x->host;

	exec_finish_read(h);
	start_read(x);
	if (h->at == h->have)
		return h->ended ? 0 : -EAGAIN;
	n = MIN(n, h->have - h->at);
	memcpy(buf, h->data + h->at, n);
	h->at += (uint32_t)n;
	return (ssize_t)n;
}

ssize_t exec_stream_write(struct exec *x, const void *buf, size_t n)
{
	struct request *r = &x->host->out;

	if (r->busy)
		return -EAGAIN;
	if (r->error)
		return -EPIPE;
	n = MIN(n, STREAM_BYTES);
	memcpy(x->host->copy, buf, n);
	exec_begin(r);
	if (!WriteFileEx(fd_handle(x->stream), x->host->copy, (DWORD)n, &r->ov, on_ended))
		on_ended(GetLastError(), 0, &r->ov);
	exec_look();
	return (ssize_t)n;
}

/* Is there something to read, or the end, or room for what waits? */
static bool exec_has_news(struct exec *x, bool room)
{
	struct exec_host *h = x->host;

	if (x->stream < 0)
		return false;
	exec_finish_read(h);
	start_read(x);
	return h->at != h->have || h->ended || (room && !h->out.busy);
}

unsigned exec_wait(struct exec *x, bool room)
{
	uint64_t got = events_wait(&x->event, 1, x->channel, exec_has_news(x, room) ? 0 : -1);

	return (got & EVENTS_CHANNEL ? EXEC_ON_CHANNEL : 0) |
	       (exec_has_news(x, false) ? EXEC_ON_STREAM : 0);
}
