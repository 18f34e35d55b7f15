/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads, signals and system calls of a helper's control thread. See helper.h. */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include <insula/base.h>

#include "helper.h"

#ifdef INSULA_SANITIZE
#define STACK_SIZE (1024u << 10)
#else
#define STACK_SIZE (64u << 10)
#endif

void rule_ioctl(struct rule_list *l, int fd, unsigned long request, const char *why)
{
	rule_arg(l, SYS_ioctl,
		 (struct jail_arg){.index = 0, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)fd},
		 (struct jail_arg){.index = 1, .cmp = JAIL_EQ, .value = request}, why);
}

void helper_rules(const struct helper *h, struct rule_list *l)
{
	rule_any(l, SYS_poll, "wait for the core, the supervisor and our own threads");
	rule_fd(l, SYS_read, h->call_fd, "the core's wake-up");
	rule_fd(l, SYS_read, h->event_fd, "wake-up by our own threads");
	rule_fd(l, SYS_write, h->event_fd, "wake-up by our own threads");
	for (unsigned i = 0; i < h->nirqs; i++)
		rule_fd(l, SYS_write, h->irq_fd[i], "interrupt the guest");
}

void helper_signals(void)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* RLIMIT_FSIZE: EFBIG is enough */
}

struct helper_begin {
	void *(*fn)(void *);
	void *arg;
	pthread_barrier_t up;
};

static void *helper_begin(void *p)
{
	struct helper_begin *b = p;
	void *(*fn)(void *) = b->fn;
	void *arg = b->arg;

	pthread_barrier_wait(&b->up);
	return fn(arg);
}

int helper_thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
	return helper_thread_with(t, STACK_SIZE, fn, arg);
}

int helper_thread_with(pthread_t *t, size_t stack, void *(*fn)(void *), void *arg)
{
	struct helper_begin b = {.fn = fn, .arg = arg};
	sigset_t all, old;
	pthread_attr_t a;
	int rc;

	pthread_barrier_init(&b.up, NULL, 2);
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, stack > STACK_SIZE ? stack : STACK_SIZE);
	/* Signals, if there are any, belong to the control thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(t, &a, helper_begin, &b);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&a);
	/* A thread that has not begun when the jail closes would make its first system calls under
	 * the filter. */
	if (!rc)
		pthread_barrier_wait(&b.up);
	pthread_barrier_destroy(&b.up);
	return -rc;
}
