/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handles that can be waited for, in libuv's loop, which knows nothing of them: a thread of the
 * system's pool waits, and wakes the loop. See watch.h.
 */
#include <stdbool.h>
#include <stdlib.h>

#include <insula/err.h>

#include "os/win/win.h"
#include "watch.h"

struct watch {
	uv_async_t async;
	HANDLE handle; /* borrowed */
	HANDLE wait;   /* NULL: nobody waits */
	watch_fn *fn;
	void *ctx;
	int events;
	bool freed;
};

/* In the pool's thread. */
static void CALLBACK on_signalled(void *ctx, BOOLEAN timed_out)
{
	struct watch *w = ctx;

	(void)timed_out;
	uv_async_send(&w->async);
}

/* Returns when on_signalled() is not running, and will not. */
static void watch_stop(struct watch *w)
{
	if (w->wait)
		UnregisterWaitEx(w->wait, INVALID_HANDLE_VALUE);
	w->wait = NULL;
}

/* A daemon that cannot wait for what it has to wait for is of no use; its VMs run on. */
static void watch_begin(struct watch *w)
{
	if (!w->wait && !RegisterWaitForSingleObject(&w->wait, w->handle, on_signalled, w, INFINITE,
						     WT_EXECUTEONLYONCE))
		panic("RegisterWaitForSingleObject: error %lu", GetLastError());
}

static void on_async(uv_async_t *a)
{
	struct watch *w = a->data;

	if (w->freed || !w->events)
		return;
	watch_stop(w);
	if (WaitForSingleObject(w->handle, 0) == WAIT_OBJECT_0)
		w->fn(w->ctx, UV_READABLE);
	/* It may be freed now, but the memory is there until on_closed(). */
	if (!w->freed && w->events)
		watch_begin(w);
}

static void watch_on_closed(uv_handle_t *h)
{
	free(h->data);
}

struct watch *watch_new(uv_loop_t *loop, int fd, watch_fn *fn, void *ctx)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	*w = (struct watch){.handle = fd_handle(fd), .fn = fn, .ctx = ctx};
	if (uv_async_init(loop, &w->async, on_async)) {
		free(w);
		return NULL;
	}
	w->async.data = w;
	return w;
}

void watch_set(struct watch *w, int events)
{
	if (w->events == events)
		return;
	w->events = events;
	if (events)
		watch_begin(w);
	else
		watch_stop(w);
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	w->freed = true;
	watch_stop(w);
	uv_close((uv_handle_t *)&w->async, watch_on_closed);
}
