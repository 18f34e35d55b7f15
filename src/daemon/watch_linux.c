/* SPDX-License-Identifier: BSD-2-Clause */
/* Handles that free themselves. See watch.h. */
#include <stdlib.h>

#include "watch.h"

struct watch {
	uv_poll_t handle;
	watch_fn *fn;
	void *ctx;
	int events;
};

static void watch_on_closed(uv_handle_t *h)
{
	free(h->data);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct watch *w = h->data;

	/* libuv takes an error at the descriptor for its end, and has stopped. But a peer that went
	 * without reading all leaves an error too, and may have sent more than one turn takes. */
	if (status < 0)
		uv_poll_start(h, w->events, on_poll);
	w->fn(w->ctx, status < 0 ? UV_READABLE | UV_DISCONNECT : events);
}

struct watch *watch_new(uv_loop_t *loop, int fd, watch_fn *fn, void *ctx)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->fn = fn;
	w->ctx = ctx;
	if (uv_poll_init(loop, &w->handle, fd)) {
		free(w);
		return NULL;
	}
	w->handle.data = w;
	return w;
}

void watch_set(struct watch *w, int events)
{
	if (w->events == events)
		return;
	w->events = events;
	if (events)
		uv_poll_start(&w->handle, events, on_poll);
	else
		uv_poll_stop(&w->handle);
}

void watch_free(struct watch *w)
{
	if (w)
		uv_close((uv_handle_t *)&w->handle, watch_on_closed);
}
