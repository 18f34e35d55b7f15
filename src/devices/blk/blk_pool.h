/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that execute requests to the disk, each of them one at a time (blk_disk.h): all requests
 * of the engine blk_threads, and of the engine blk_uring those that its ring is not allowed to do.
 *
 * The I/O threads submit and take, each through an end of its own. Lock: `lock`, for all lists,
 * never held during a system call on the disk.
 */
#ifndef DEVICES_BLK_POOL_H
#define DEVICES_BLK_POOL_H

#include <pthread.h>
#include <stdatomic.h>

#include "blk_engine.h"

struct blk_io_list {
	struct blk_io *first, *last;
};

struct blk_pool {
	int disk_fd;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct blk_io_list todo;
};

/* One I/O thread's. */
struct blk_pool_end {
	struct blk_pool *pool;
	int done_fd; /* signalled when `finished` is not empty any more */
	struct blk_io_list finished;
	_Atomic unsigned nfinished; /* a look at `finished` without the lock */
};

/* Start the threads. The pool stays where it is until the process ends. */
int blk_pool_open(struct blk_pool *p, int disk_fd, unsigned nthreads, struct err *e);
/* Make the event. */
int blk_pool_join(struct blk_pool_end *end, struct blk_pool *p, struct err *e);
void blk_pool_submit(struct blk_pool_end *end, struct blk_io *io);
/* All that has finished, linked by `next`, each with its `res`. */
struct blk_io *blk_pool_take(struct blk_pool_end *end);
/* Is there something to take? Cheap, no system call. */
bool blk_pool_ready(const struct blk_pool_end *end);

#endif
