/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine without io_uring: a pool of threads, each of which executes one request at a time
 * (blk_disk.h). The I/O thread waits for kicks, commands and finished requests.
 *
 * Some container runtimes forbid io_uring, and Windows has none.
 *
 * Lock: `lock`, for both lists, never held during a system call on the disk.
 */
#include <errno.h>
#include <stdlib.h>

#include <insula/base.h>

#include "blk_disk.h"

#define POOL_THREADS 16

struct io_list {
	struct blk_io *first, *last;
};

struct blk_eng {
	struct blk_engine_conf conf;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct io_list todo, finished;
	_Atomic unsigned nfinished;       /* a look at `finished` without the lock */
	int done_fd;                      /* `finished` is not empty any more */
	int event[2 + VIRTIO_MAX_QUEUES]; /* done, command, kicks */
	unsigned nevents;
};

static void append(struct io_list *l, struct blk_io *io)
{
	io->next = NULL;
	if (l->first)
		l->last->next = io;
	else
		l->first = io;
	l->last = io;
}

static void *pool_main(void *arg)
{
	struct blk_eng *g = arg;
	int own = blk_disk_event();

	pthread_mutex_lock(&g->lock);
	for (;;) {
		struct blk_io *io;
		bool first;

		while (!g->todo.first)
			pthread_cond_wait(&g->work, &g->lock);
		io = g->todo.first;
		g->todo.first = io->next;
		pthread_mutex_unlock(&g->lock);
		io->res = blk_disk_execute(g->conf.disk_fd, io, own);
		pthread_mutex_lock(&g->lock);
		first = !g->finished.first;
		append(&g->finished, io);
		g->nfinished++;
		if (first)
			event_signal(g->done_fd);
	}
	return NULL;
}

static int threads_open(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e)
{
	struct blk_eng *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(e, -ENOMEM, "out of memory");
	g->conf = *c;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->work, NULL);
	g->done_fd = event_create();
	if (g->done_fd < 0)
		return err_sys(e, g->done_fd, "eventfd");
	g->event[g->nevents++] = g->done_fd;
	g->event[g->nevents++] = c->ctl_fd;
	for (unsigned i = 0; i < c->nkicks; i++)
		g->event[g->nevents++] = c->kick_fd[i];
	for (unsigned i = 0; i < POOL_THREADS; i++) {
		pthread_t t;
		int rc = helper_thread(&t, pool_main, g);

		if (rc)
			return err_sys(e, rc, "thread");
	}
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
	pthread_mutex_lock(&g->lock);
	append(&g->todo, io);
	pthread_cond_signal(&g->work);
	pthread_mutex_unlock(&g->lock);
}

static void threads_wait(struct blk_eng *g, bool block)
{
	struct blk_io *io, *next;
	uint64_t got = events_wait(g->event, g->nevents, -1, block ? -1 : 0);

	*g->conf.kicks += (unsigned)__builtin_popcountll(got >> 2);
	pthread_mutex_lock(&g->lock);
	io = g->finished.first;
	g->finished.first = NULL;
	g->nfinished = 0;
	pthread_mutex_unlock(&g->lock);
	for (; io; io = next) {
		next = io->next;
		g->conf.done(g->conf.ctx, io, io->res);
	}
}

static bool threads_ready(struct blk_eng *g)
{
	return atomic_load_explicit(&g->nfinished, memory_order_relaxed) != 0;
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
