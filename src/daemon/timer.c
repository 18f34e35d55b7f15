/* SPDX-License-Identifier: BSD-2-Clause */
/* Deadlines that free themselves. See watch.h. */
#include <stdlib.h>

#include "watch.h"

struct timer {
	uv_timer_t handle;
	timer_fn *fn;
	void *ctx;
};

static void timer_on_closed(uv_handle_t *h)
{
	free(h->data);
}

static void on_timer(uv_timer_t *h)
{
	struct timer *t = h->data;
	timer_fn *fn = t->fn;
	void *ctx = t->ctx;

	timer_cancel(t);
	fn(ctx);
}

struct timer *timer_after(uv_loop_t *loop, uint64_t ms, timer_fn *fn, void *ctx)
{
	struct timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fn = fn;
	t->ctx = ctx;
	uv_timer_init(loop, &t->handle);
	t->handle.data = t;
	uv_timer_start(&t->handle, on_timer, ms, 0);
	return t;
}

void timer_cancel(struct timer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->handle, timer_on_closed);
}
