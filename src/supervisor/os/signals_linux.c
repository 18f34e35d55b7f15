/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals on Linux: signalfd(2). See signals.h. */
#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <insula/base.h>

#include "supervisor/signals.h"

_Static_assert(SIGNALS_RESIZED == SIGWINCH, "Linux's number");

static void signals_on_signal(void *ctx, unsigned events)
{
	const struct signals *s = ctx;
	struct signalfd_siginfo si;

	(void)events;
	if (read(s->handle, &si, sizeof(si)) == (ssize_t)sizeof(si))
		s->fn(s->ctx, (int)si.ssi_signo);
}

int signals_catch(struct signals *s, struct loop *l, bool command, void (*fn)(void *ctx, int signo),
		  void *ctx)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	const unsigned n = command ? ARRAY_LEN(wanted) : 4; /* the others are a command's */
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < n; i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	s->handle = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->handle < 0)
		return -errno;
	s->fn = fn;
	s->ctx = ctx;
	watch_on(l, &s->watch, s->handle, WATCH_IN, signals_on_signal, s);
	return 0;
}

void signals_close(struct signals *s)
{
	watch_off(&s->watch);
	fd_close(&s->handle);
}
