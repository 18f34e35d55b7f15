/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine without io_uring: a pool of threads, each of which executes one request at a time.
 *
 * Some container runtimes forbid io_uring; this engine needs nothing but preadv, pwritev, fdatasync
 * and fallocate. The I/O thread waits in poll() for kicks, commands and finished requests.
 *
 * Lock: `lock`, for both lists, never held during a system call on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "blk_engine.h"

#define POOL_THREADS 16

struct io_list {
	struct blk_io *first, *last;
};

struct blk_eng {
	struct blk_engine_conf conf;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct io_list todo, finished;
	_Atomic unsigned nfinished;                /* a look at `finished` without the lock */
	int done_fd;                               /* `finished` is not empty any more */
	struct pollfd poll[2 + VIRTIO_MAX_QUEUES]; /* done, command, kicks */
	unsigned npoll;
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

static ssize_t execute(const struct blk_eng *g, const struct blk_io *io)
{
	int fd = g->conf.disk_fd;
	off_t off = (off_t)io->off;

	switch (io->op) {
	case BLK_OP_READ:
		return preadv(fd, io->iov, (int)io->niov, off);
	case BLK_OP_WRITE:
		return pwritev(fd, io->iov, (int)io->niov, off);
	case BLK_OP_SYNC:
		return fdatasync(fd);
	case BLK_OP_FALLOCATE:
		return fallocate(fd, io->mode, off, (off_t)io->len);
	}
	errno = EINVAL;
	return -1;
}

static void *pool_main(void *arg)
{
	struct blk_eng *g = arg;

	pthread_mutex_lock(&g->lock);
	for (;;) {
		struct blk_io *io;
		ssize_t r;
		bool first;

		while (!g->todo.first)
			pthread_cond_wait(&g->work, &g->lock);
		io = g->todo.first;
		g->todo.first = io->next;
		pthread_mutex_unlock(&g->lock);
		r = execute(g, io);
		io->res = r < 0 ? -errno : (int)r;
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
	g->poll[g->npoll++] = (struct pollfd){.fd = g->done_fd, .events = POLLIN};
	g->poll[g->npoll++] = (struct pollfd){.fd = c->ctl_fd, .events = POLLIN};
	for (unsigned i = 0; i < c->nkicks; i++)
		g->poll[g->npoll++] = (struct pollfd){.fd = c->kick_fd[i], .events = POLLIN};
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

	if (poll(g->poll, g->npoll, block ? -1 : 0) > 0) {
		for (unsigned i = 0; i < g->npoll; i++) {
			if (g->poll[i].revents && event_drain(g->poll[i].fd) && i >= 2)
				(*g->conf.kicks)++;
		}
	}
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
	const struct blk_engine_conf *c = &g->conf;

	for (unsigned i = 0; i < g->npoll; i++)
		rule_fd(l, SYS_read, g->poll[i].fd,
			"I/O thread: kicks, commands, finished requests");
	rule_fd(l, SYS_write, g->done_fd, "a pool thread tells the I/O thread");
	rule_fd(l, SYS_preadv, c->disk_fd, "read the disk");
	rule_fd(l, SYS_fdatasync, c->disk_fd, "flush");
	if (c->readonly)
		return;
	rule_fd(l, SYS_pwritev, c->disk_fd, "write the disk");
	rule_fd(l, SYS_fallocate, c->disk_fd, "discard and write zeroes");
}

const struct blk_engine_ops blk_threads = {
	.open = threads_open,
	.enter = threads_enter,
	.submit = threads_submit,
	.wait = threads_wait,
	.ready = threads_ready,
	.rules = threads_rules,
};
