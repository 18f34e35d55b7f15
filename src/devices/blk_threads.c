/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine without io_uring: a pool of threads (blk_pool.h). The I/O thread waits for kicks,
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
	struct blk_pool pool;
	int event[2 + VIRTIO_MAX_QUEUES]; /* done, command, kicks */
	unsigned nevents;
};

static int threads_open(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e)
{
	struct blk_eng *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return err_set(e, -ENOMEM, "out of memory");
	g->conf = *c;
	rc = blk_pool_open(&g->pool, c->disk_fd, POOL_THREADS, e);
	if (rc)
		return rc;
	g->event[g->nevents++] = g->pool.done_fd;
	g->event[g->nevents++] = c->ctl_fd;
	for (unsigned i = 0; i < c->nkicks; i++)
		g->event[g->nevents++] = c->kick_fd[i];
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
	blk_pool_submit(&g->pool, io);
}

static void threads_wait(struct blk_eng *g, bool block)
{
	struct blk_io *io, *next;
	uint64_t got = events_wait(g->event, g->nevents, -1, block ? -1 : 0);

	*g->conf.kicks += (unsigned)__builtin_popcountll(got >> 2);
	for (io = blk_pool_take(&g->pool); io; io = next) {
		next = io->next;
		g->conf.done(g->conf.ctx, io, io->res);
	}
}

static bool threads_ready(struct blk_eng *g)
{
	return blk_pool_ready(&g->pool);
}

static void threads_rules(const struct blk_eng *g, struct rule_list *l)
{
	blk_disk_rules(&g->conf, g->event, g->nevents, l);
}

const struct blk_engine_ops blk_threads = {
	.open = threads_open,
	.enter = threads_enter,
	.submit = threads_submit,
	.wait = threads_wait,
	.ready = threads_ready,
	.rules = threads_rules,
};
