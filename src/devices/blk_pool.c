/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that execute requests to the disk. See blk_pool.h. */
#include <insula/base.h>

#include "blk_disk.h"
#include "blk_pool.h"

static void append(struct blk_io_list *l, struct blk_io *io)
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
	struct blk_pool *p = arg;
	int own = blk_disk_event();

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct blk_io *io;
		bool first;

		while (!p->todo.first)
			pthread_cond_wait(&p->work, &p->lock);
		io = p->todo.first;
		p->todo.first = io->next;
		pthread_mutex_unlock(&p->lock);
		io->res = blk_disk_execute(p->disk_fd, io, own);
		pthread_mutex_lock(&p->lock);
		first = !p->finished.first;
		append(&p->finished, io);
		p->nfinished++;
		if (first)
			event_signal(p->done_fd);
	}
	return NULL;
}

int blk_pool_open(struct blk_pool *p, int disk_fd, unsigned nthreads, struct err *e)
{
	p->disk_fd = disk_fd;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	p->done_fd = event_create();
	if (p->done_fd < 0)
		return err_sys(e, p->done_fd, "eventfd");
	for (unsigned i = 0; i < nthreads; i++) {
		pthread_t t;
		int rc = helper_thread(&t, pool_main, p);

		if (rc)
			return err_sys(e, rc, "thread");
	}
	return 0;
}

void blk_pool_submit(struct blk_pool *p, struct blk_io *io)
{
	pthread_mutex_lock(&p->lock);
	append(&p->todo, io);
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

struct blk_io *blk_pool_take(struct blk_pool *p)
{
	struct blk_io *io;

	pthread_mutex_lock(&p->lock);
	io = p->finished.first;
	p->finished.first = NULL;
	p->nfinished = 0;
	pthread_mutex_unlock(&p->lock);
	return io;
}

bool blk_pool_ready(const struct blk_pool *p)
{
	return atomic_load_explicit(&p->nfinished, memory_order_relaxed) != 0;
}
