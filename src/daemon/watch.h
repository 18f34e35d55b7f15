/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors and deadlines in the loop. Each is a small object of its own, because libuv gives a
 * handle back later than it is closed. One thread: the loop's.
 */
#ifndef DAEMON_WATCH_H
#define DAEMON_WATCH_H

#include <stdint.h>

#include <uv.h>

struct watch;
/* Windows: of a handle that can be waited for, which is UV_READABLE while it is signalled; the rest
 * is Linux's. UV_READABLE, UV_WRITABLE, UV_PRIORITIZED. UV_READABLE | UV_DISCONNECT: an error at
 * the descriptor; it is told until it was read or written from it, or the watch is freed. */
typedef void watch_fn(void *ctx, int events);
/* NULL: no memory, or a descriptor that cannot be watched. `fd` stays the caller's; it must outlive
 * the watch, and becomes non-blocking. Nothing is watched yet. */
struct watch *watch_new(uv_loop_t *loop, int fd, watch_fn *fn, void *ctx);
void watch_set(struct watch *w, int events); /* 0: nothing */
void watch_free(struct watch *w);            /* NULL is fine; may be called from its function */

struct timer;
typedef void timer_fn(void *ctx);
/* Once, after `ms`. It frees itself before `fn` is called. NULL: no memory. */
struct timer *timer_after(uv_loop_t *loop, uint64_t ms, timer_fn *fn, void *ctx);
void timer_cancel(struct timer *t); /* NULL is fine */

#endif
