/* SPDX-License-Identifier: BSD-2-Clause */
/* A helper's worker without its threads, in the test's own: so that each of its instructions can be
 * seen (steps.h), and a successor can be born at any of them. */
#ifndef TESTS_BAREWORKER_H
#define TESTS_BAREWORKER_H

#include <check.h>

#include <insula/base.h>

#include <devices/worker.h>

static int events[5]; /* the last one is the test's */

static inline void bare_events(void)
{
	for (unsigned i = 0; i < ARRAY_LEN(events); i++)
		events[i] = event_create();
}

/* With one lane, which has these queues. */
static inline void bare_open(struct worker *w, struct helper *h, void *page, uint32_t tag,
			     const struct guestmem *gm, uint32_t queues)
{
	struct err e = {0};

	ck_assert_msg(port_open(&h->port, page, tag, &e) == 0, "%s", e.text);
	h->irq_fd[0] = events[0];
	h->nirqs = 1;
	h->event_fd = events[1];
	w->h = h;
	w->gm = *gm;
	w->nlanes = 1;
	w->quiet_fd = events[2];
	w->lane[0] = (struct lane){.w = w, .ctl_fd = events[3], .queues = queues};
}

/* For fakecore: what the guest has written to a register. `arg` is the helper. */
static inline void bare_pump(void *arg)
{
	struct helper *h = arg;

	ck_assert_int_ge(port_run(&h->port), 0);
}

/* When its model is described: it knows what an earlier one has left. */
static inline void bare_attach(struct worker *w, const struct dev_ops *regs)
{
	port_attach(&w->h->port, regs, w);
	bare_pump(w->h);
}

#endif
