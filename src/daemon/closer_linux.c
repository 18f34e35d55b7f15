/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that close. See closer.h.
 *
 * A thread begins when there is work that no other may do, and ends when there is none. Two things
 * make close() wait. SO_LINGER does so interruptibly: each thread has a timer that interrupts it,
 * and the kernel sends what is left without us. The server of a FUSE file system is asked to flush,
 * and nothing interrupts that: such a thread stays, as one of the few that its user has. The
 * connections of that user, in whose queue there are sockets at worst, have threads apart.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "closer.h"
#include "dlog.h"
#include "watch.h"

#define PER_USER 4 /* threads, of each of the two kinds */
#define THREADS 512
#define STACK (256u << 10)
#define INTERRUPT_NS 1000000
#define AGAIN_MS 100
#define WAKE SIGUSR1

struct job {
	struct job *next;
	uint32_t uid;
	int fd;
	bool connection;
};

struct closer {
	uv_async_t told; /* its data is the closer */
	uv_loop_t *loop;
	closed_fn *fn;
	void *ctx;
	struct timer *again;  /* no thread could be made */
	pthread_mutex_t lock; /* of what follows */
	struct job *waiting, **waiting_end;
	struct job *busy; /* each belongs to a thread */
	struct job *closed;
	unsigned threads;
	bool over;
};

static void on_wake(int number)
{
	(void)number;
}

/* ---- under the lock ---- */

static bool may_begin(const struct closer *c, const struct job *j)
{
	unsigned n = 0;

	for (const struct job *b = c->busy; b; b = b->next)
		n += b->uid == j->uid && b->connection == j->connection;
	return n < PER_USER;
}

static struct job *closer_take(struct closer *c)
{
	struct job **at = &c->waiting, *j;

	while (*at && !may_begin(c, *at))
		at = &(*at)->next;
	j = *at;
	if (!j)
		return NULL;
	*at = j->next;
	if (!*at)
		c->waiting_end = at;
	j->next = c->busy;
	c->busy = j;
	return j;
}

static void closer_finish(struct closer *c, struct job *j)
{
	struct job **at = &c->busy;

	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	j->next = c->closed;
	c->closed = j;
	if (!c->over)
		uv_async_send(&c->told);
}

/* ---- the threads ---- */

/* A signal that comes again until it is taken: one that comes before close() does no harm. */
static bool arm(timer_t *t)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = WAKE};
	const struct itimerspec often = {{0, INTERRUPT_NS}, {0, INTERRUPT_NS}};

	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	return !timer_create(CLOCK_MONOTONIC, &ev, t) && !timer_settime(*t, 0, &often, NULL);
}

static void *closer_run(void *arg)
{
	struct closer *c = arg;
	struct job *j;
	sigset_t wake;
	timer_t t;
	bool armed;

	sigemptyset(&wake);
	sigaddset(&wake, WAKE);
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
	armed = arm(&t);
	pthread_mutex_lock(&c->lock);
	while ((j = closer_take(c))) {
		pthread_mutex_unlock(&c->lock);
		close(j->fd);
		pthread_mutex_lock(&c->lock);
		closer_finish(c, j);
	}
	c->threads--;
	pthread_mutex_unlock(&c->lock);
	if (armed)
		timer_delete(t);
	return NULL;
}

static int closer_begin(struct closer *c)
{
	pthread_attr_t attr;
	pthread_t t;
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&t, &attr, closer_run, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}

/* ---- the loop ---- */

static void closer_start(struct closer *c);

static void closer_on_again(void *ctx)
{
	struct closer *c = ctx;

	c->again = NULL;
	closer_start(c);
}

/* A thread for the first that may begin. */
static void closer_start(struct closer *c)
{
	const struct job *j;
	bool wanted;

	pthread_mutex_lock(&c->lock);
	for (j = c->waiting; j && !may_begin(c, j); j = j->next)
		;
	wanted = j && c->threads < THREADS;
	c->threads += wanted;
	pthread_mutex_unlock(&c->lock);
	if (!wanted || !closer_begin(c))
		return;
	pthread_mutex_lock(&c->lock);
	c->threads--;
	pthread_mutex_unlock(&c->lock);
	if (!c->again)
		c->again = timer_after(c->loop, AGAIN_MS, closer_on_again, c);
}

static void on_told(uv_async_t *a)
{
	struct closer *c = a->data;
	struct job *list, *next;

	pthread_mutex_lock(&c->lock);
	list = c->closed;
	c->closed = NULL;
	pthread_mutex_unlock(&c->lock);
	for (; list; list = next) {
		next = list->next;
		c->fn(c->ctx, list->uid);
		free(list);
	}
}

struct closer *closer_new(uv_loop_t *loop, closed_fn *fn, void *ctx)
{
	struct closer *c = calloc(1, sizeof(*c));
	struct sigaction wake = {.sa_handler = on_wake}; /* no SA_RESTART */

	if (!c)
		return NULL;
	sigaction(WAKE, &wake, NULL);
	pthread_mutex_init(&c->lock, NULL);
	c->loop = loop;
	c->fn = fn;
	c->ctx = ctx;
	c->waiting_end = &c->waiting;
	c->told.data = c;
	if (uv_async_init(loop, &c->told, on_told)) {
		free(c);
		return NULL;
	}
	/* It keeps no loop alive. */
	uv_unref((uv_handle_t *)&c->told);
	return c;
}

void closer_give(struct closer *c, uint32_t uid, int fd, bool connection)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j) {
		/* Then the descriptor stays: better than that everybody waits. */
		dlog(LOG_LVL_ERROR, NULL, "out of memory: descriptor %d stays open", fd);
		return;
	}
	*j = (struct job){.uid = uid, .fd = fd, .connection = connection};
	pthread_mutex_lock(&c->lock);
	*c->waiting_end = j;
	c->waiting_end = &j->next;
	pthread_mutex_unlock(&c->lock);
	closer_start(c);
}

/* A thread may still hold it, and may never come back: it stays until the process ends. */
void closer_free(struct closer *c)
{
	if (!c)
		return;
	timer_cancel(c->again);
	c->again = NULL;
	pthread_mutex_lock(&c->lock);
	c->over = true;
	pthread_mutex_unlock(&c->lock);
	uv_close((uv_handle_t *)&c->told, NULL);
}
