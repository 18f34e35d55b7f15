/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the supervisor waits for: handles and times, on every system.
 *
 * A watch is a handle with a function, a timer is a time with a function. loop_step() waits once,
 * until a handle is ready or a time has come. Then it calls each watch that is ready, once, in the
 * order in which they were added, and after them each timer that is due, the earliest first. A
 * function does a bounded amount of work and returns; what it leaves makes its handle ready again.
 * So whoever floods one handle delays the others by one turn at most.
 *
 * Watches and timers are memory of the caller's; all zeros is off. A function may turn on or off
 * any of them, its own included. A watch that was turned off is not called, even if its handle was
 * ready in the same turn; one that was turned on, and a timer that was set, wait for the next turn.
 *
 * Below it are poll(2), and WaitForMultipleObjectsEx() with its limit of 64 handles. The latter
 * waits alertably: the completion routines of ReadFileEx() run in it, and may set a timer to
 * LOOP_NOW, which is then due in the same turn. One thread.
 */
#ifndef SUPERVISOR_LOOP_H
#define SUPERVISOR_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#ifdef _WIN32
#define LOOP_MAX 64u /* MAXIMUM_WAIT_OBJECTS */
#else
#define LOOP_MAX 576u
#endif

enum watch_event {
	WATCH_IN = 1, /* can be read; Windows: the handle is signalled, and there is nothing else */
	WATCH_OUT = 2, /* can be written */
	WATCH_END = 4, /* the other end is gone: always wanted */
};

struct loop;

struct watch {
	struct loop *loop; /* NULL: off */
	int handle;        /* borrowed; see base.h */
	unsigned want;     /* WATCH_IN | WATCH_OUT */
	void (*fn)(void *ctx, unsigned events);
	void *ctx;
	struct watch *next, *before; /* the loop's */
	unsigned place;              /* in the turn that is under way, from 1; 0: not in it */
};

#define LOOP_NOW 1u /* a time that has come */

struct timer {
	struct loop *loop;
	uint64_t at_ns; /* clock_ns(); 0: off */
	void (*fn)(void *ctx);
	void *ctx;
	struct timer *next; /* the loop's */
	uint64_t nth; /* among those of the same time the one that was set first comes first */
};

struct loop {
	struct watch *first, *last;
	unsigned nwatches;
	struct timer *timers; /* that are on */
	uint64_t ntimers;     /* times that one was set */
	struct watch *turn[LOOP_MAX];
	unsigned nturn;
};

/* Begin to watch. Panics if the loop has LOOP_MAX already, or the watch is on. */
void watch_on(struct loop *l, struct watch *w, int handle, unsigned want,
	      void (*fn)(void *ctx, unsigned events), void *ctx);
/* No-op if it is off. */
void watch_off(struct watch *w);
/* Before timer_set(), and while it is off. */
void timer_init(struct loop *l, struct timer *t, void (*fn)(void *ctx), void *ctx);
/* 0: off. It is off when its function is called. A time that is the same changes nothing. No-op
 * without timer_init(). */
void timer_set(struct timer *t, uint64_t at_ns);

/* One turn; waits until `limit_ns` at most (0: as long as no timer is due). A negative errno: the
 * system does not let us wait. */
int loop_step(struct loop *l, uint64_t limit_ns);

/* The earlier of two times; 0: none. */
static inline uint64_t loop_sooner(uint64_t a, uint64_t b)
{
	return a && (!b || a < b) ? a : b;
}

/* ---- loop_linux.c, loop_win.c ---- */

/* Wait for l->turn[0 .. nturn) until `limit_ns` (0: for ever); events[i]: what is ready of the
 * i-th. */
int loop_wait(struct loop *l, uint64_t limit_ns, unsigned events[LOOP_MAX]);

#endif
