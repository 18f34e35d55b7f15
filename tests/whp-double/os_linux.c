/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * src/hv/whp/whp_os.h on Linux, for the tests: an event is an eventfd, a watch a thread of its own.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <insula/base.h>

#include "hv/whp/whp_os.h"

_Static_assert(sizeof(pthread_rwlock_t) <= sizeof(struct whp_lock), "room for the lock");

static pthread_rwlock_t *rw(struct whp_lock *l)
{
	return (pthread_rwlock_t *)(void *)l->room;
}

void whp_lock_init(struct whp_lock *l)
{
	pthread_rwlock_init(rw(l), NULL);
}

void whp_lock_destroy(struct whp_lock *l)
{
	pthread_rwlock_destroy(rw(l));
}

void whp_lock_take(struct whp_lock *l)
{
	pthread_rwlock_wrlock(rw(l));
}

void whp_lock_drop(struct whp_lock *l)
{
	pthread_rwlock_unlock(rw(l));
}

void whp_lock_take_shared(struct whp_lock *l)
{
	pthread_rwlock_rdlock(rw(l));
}

void whp_lock_drop_shared(struct whp_lock *l)
{
	pthread_rwlock_unlock(rw(l));
}

struct watch {
	void (*fn)(void *ctx);
	void *ctx;
	int event, stop;
	pthread_t thread;
};

static void *watch_thread(void *arg)
{
	struct watch *w = arg;

	for (;;) {
		struct pollfd p[] = {{w->event, POLLIN, 0}, {w->stop, POLLIN, 0}};

		if (poll(p, 2, -1) < 0 || p[1].revents)
			return NULL;
		if (p[0].revents && event_drain(w->event))
			w->fn(w->ctx);
	}
}

int whp_watch(hv_event event, void (*fn)(void *ctx), void *ctx, void **handle)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->fn = fn;
	w->ctx = ctx;
	w->event = (int)event;
	w->stop = event_create();
	if (w->stop < 0 || pthread_create(&w->thread, NULL, watch_thread, w) != 0) {
		fd_close(&w->stop);
		free(w);
		return -EAGAIN;
	}
	*handle = w;
	return 0;
}

void whp_unwatch(void *handle)
{
	struct watch *w = handle;

	event_signal(w->stop);
	pthread_join(w->thread, NULL);
	fd_close(&w->stop);
	free(w);
}
