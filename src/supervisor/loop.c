/* SPDX-License-Identifier: BSD-2-Clause */
/* Watches and timers. See loop.h. */
#include "loop.h"

#include <insula/base.h>

/* ---- watches ---- */

void watch_on(struct loop *l, struct watch *w, int handle, unsigned want,
	      void (*fn)(void *ctx, unsigned events), void *ctx)
{
	if (w->loop || l->nwatches == LOOP_MAX)
		panic("loop: %s", w->loop ? "watched already" : "too many handles");
	*w = (struct watch){
		.loop = l, .handle = handle, .want = want, .fn = fn, .ctx = ctx, .before = l->last};
	if (l->last)
		l->last->next = w;
	else
		l->first = w;
	l->last = w;
	l->nwatches++;
}

void watch_off(struct watch *w)
{
	struct loop *l = w->loop;

	if (!l)
		return;
	if (w->before)
		w->before->next = w->next;
	else
		l->first = w->next;
	if (w->next)
		w->next->before = w->before;
	else
		l->last = w->before;
	if (w->place)
		l->turn[w->place - 1] = NULL;
	l->nwatches--;
	w->loop = NULL;
	w->place = 0;
}

static void loop_call_watches(struct loop *l, const unsigned *events)
{
	for (unsigned i = 0; i < l->nturn; i++) {
		struct watch *w = l->turn[i];

		if (!w)
			continue;
		w->place = 0;
		if (events[i])
			w->fn(w->ctx, events[i]);
	}
	l->nturn = 0;
}

/* ---- timers ---- */

void timer_init(struct loop *l, struct timer *t, void (*fn)(void *ctx), void *ctx)
{
	*t = (struct timer){.loop = l, .fn = fn, .ctx = ctx};
}

static void timer_unlink(struct timer *t)
{
	struct timer **at = &t->loop->timers;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->at_ns = 0;
}

void timer_set(struct timer *t, uint64_t at_ns)
{
	if (!t->loop || t->at_ns == at_ns)
		return;
	if (t->at_ns)
		timer_unlink(t);
	if (!at_ns)
		return;
	t->at_ns = at_ns;
	t->nth = ++t->loop->ntimers;
	t->next = t->loop->timers;
	t->loop->timers = t;
}

/* Of those that were set before the nth. */
static struct timer *loop_first_timer(const struct loop *l, uint64_t nth)
{
	struct timer *first = NULL;

	for (struct timer *t = l->timers; t; t = t->next) {
		if (t->nth <= nth && (!first || t->at_ns < first->at_ns ||
				      (t->at_ns == first->at_ns && t->nth < first->nth)))
			first = t;
	}
	return first;
}

/* Not those that are set meanwhile: one that sets itself again cannot keep us here. */
static void loop_call_timers(struct loop *l)
{
	uint64_t now = clock_ns(), nth = l->ntimers;
	struct timer *t;

	while ((t = loop_first_timer(l, nth)) && t->at_ns <= now) {
		timer_unlink(t);
		t->fn(t->ctx);
	}
}

/* ---- turns ---- */

int loop_step(struct loop *l, uint64_t limit_ns)
{
	const struct timer *first = loop_first_timer(l, l->ntimers);
	unsigned events[LOOP_MAX] = {0};
	int rc;

	if (l->nturn)
		panic("loop: a turn within a turn");
	for (struct watch *w = l->first; w; w = w->next) {
		l->turn[l->nturn++] = w;
		w->place = l->nturn;
	}
	rc = loop_wait(l, first ? loop_sooner(first->at_ns, limit_ns) : limit_ns, events);
	loop_call_watches(l, events);
	if (!rc)
		loop_call_timers(l);
	return rc;
}
