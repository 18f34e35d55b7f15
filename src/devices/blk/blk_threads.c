/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine without io_uring: a pool of threads (blk_pool.h). An I/O thread waits for kicks,
 * commands and finished requests.
 *
 * Some container runtimes forbid io_uring, and Windows has none.
 */
#include <errno.h>
#include <stdlib.h>

#include <insula/base.h>

#include "blk_disk.h"
#include "blk_pool.h"

#define POOL_THREADS 16

struct blk_eng {
	struct blk_engine_conf conf;
	struct blk_pool_end end;
	int event[3]; /* done, command, kicks */
};

static int threads_open(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e)
{
	struct blk_eng *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return err_set(e, -ENOMEM, "out of memory");
	g->conf = *c;
	rc = blk_pool_join(&g->end, c->pool, e);
	if (rc)
		return rc;
	g->event[0] = g->end.done_fd;
	g->event[1] = c->ctl_fd;
	g->event[2] = c->kick_fd;
	*out = g;
	return 0;
}

static int threads_enter(struct blk_eng *g, struct err *e)
{
	(void)g;
	(void)e;
	return 0;
}

static void threads_submit(struct blk_eng *g, struct blk_io *io)
{
	blk_pool_submit(&g->end, io);
}

static void threads_wait(struct blk_eng *g, int ms)
{
	struct blk_io *io, *next;
	uint64_t got = events_wait(g->event, ARRAY_LEN(g->event), -1, ms);

	if (got >> 2 & 1)
		(*g->conf.kicks)++;
	for (io = blk_pool_take(&g->end); io; io = next) {
		next = io->next;
		g->conf.done(g->conf.ctx, io, io->res);
	}
}

static bool threads_ready(struct blk_eng *g)
{
	return blk_pool_ready(&g->end);
}

static void threads_rules(const struct blk_eng *g, struct rule_list *l)
{
	blk_event_rules(g->event, ARRAY_LEN(g->event), l);
}

const struct blk_engine_ops blk_threads = {
	.pool_threads = POOL_THREADS,
	.open = threads_open,
	.enter = threads_enter,
	.submit = threads_submit,
	.wait = threads_wait,
	.ready = threads_ready,
	.rules = threads_rules,
	.disk_rules = blk_disk_rules,
};
