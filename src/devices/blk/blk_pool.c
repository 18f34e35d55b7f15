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
		struct blk_pool_end *end;
		bool first;

		while (!p->todo.first)
			pthread_cond_wait(&p->work, &p->lock);
		io = p->todo.first;
		p->todo.first = io->next;
		pthread_mutex_unlock(&p->lock);
		io->res = blk_disk_execute(p->disk_fd, io, own);
		pthread_mutex_lock(&p->lock);
		end = io->end;
		first = !end->finished.first;
		append(&end->finished, io);
		end->nfinished++;
		if (first)
			event_signal(end->done_fd);
	}
	return NULL;
}

int blk_pool_open(struct blk_pool *p, int disk_fd, unsigned nthreads, struct err *e)
{
	p->disk_fd = disk_fd;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	for (unsigned i = 0; i < nthreads; i++) {
		pthread_t t;
		int rc = helper_thread(&t, pool_main, p);

		if (rc)
			return err_sys(e, rc, "thread");
	}
	return 0;
}

int blk_pool_join(struct blk_pool_end *end, struct blk_pool *p, struct err *e)
{
	end->pool = p;
	end->done_fd = event_create();
	return end->done_fd < 0 ? err_sys(e, end->done_fd, "eventfd") : 0;
}

void blk_pool_submit(struct blk_pool_end *end, struct blk_io *io)
{
	struct blk_pool *p = end->pool;

	io->end = end;
	pthread_mutex_lock(&p->lock);
	append(&p->todo, io);
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

struct blk_io *blk_pool_take(struct blk_pool_end *end)
{
	struct blk_io *io;

	/* A look without the lock is enough where there is nothing: whoever puts something there
	 * signals done_fd afterwards. */
	if (!blk_pool_ready(end))
		return NULL;
	pthread_mutex_lock(&end->pool->lock);
	io = end->finished.first;
	end->finished.first = NULL;
	end->nfinished = 0;
	pthread_mutex_unlock(&end->pool->lock);
	return io;
}

bool blk_pool_ready(const struct blk_pool_end *end)
{
	return atomic_load_explicit(&end->nfinished, memory_order_relaxed) != 0;
}
