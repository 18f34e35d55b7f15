/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init's server: the loop. See agent.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

uint64_t agent_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void note(char why[GP_TEXT_LEN], const char *fmt, ...)
{
	size_t n = strlen(why);
	va_list ap;

	if (n)
		n += (size_t)snprintf(why + n, GP_TEXT_LEN - n, "; ");
	if (n >= GP_TEXT_LEN)
		return;
	va_start(ap, fmt);
	vsnprintf(why + n, GP_TEXT_LEN - n, fmt, ap);
	va_end(ap);
}

void agent_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	sigaddset(set, SIGUSR1);
	sigaddset(set, SIGUSR2);
	sigaddset(set, SIGTERM);
}

int agent_init(struct agent *a, int listener, const struct agent_ops *ops)
{
	sigset_t set;

	memset(a, 0, sizeof *a);
	a->listener = listener;
	a->ops = ops;
	a->childless = true;
	a->resume_ms = AGENT_RESUME_MS;
	agent_signals(&set);
	if (!ops->leave) {
		sigemptyset(&set);
		sigaddset(&set, SIGCHLD);
	}
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || fcntl(listener, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	a->sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return a->sigfd < 0 ? -errno : 0;
}

static struct task **free_slot(struct agent *a)
{
	for (unsigned i = 0; i < AGENT_TASKS; i++)
		if (!a->task[i])
			return &a->task[i];
	return NULL;
}

bool agent_serves(const struct vsock_addr *peer)
{
	return peer->family != AF_VSOCK || peer->cid == VSOCK_HOST;
}

static void accept_one(struct agent *a)
{
	struct vsock_addr peer = {0};
	socklen_t len = sizeof peer;
	struct task **slot = free_slot(a);
	int fd = slot ? accept4(a->listener, (struct sockaddr *)&peer, &len,
				SOCK_CLOEXEC | SOCK_NONBLOCK)
		      : -1;

	if (fd < 0)
		return;
	if (agent_serves(&peer))
		*slot = task_new(fd, agent_now() + a->resume_ms);
	if (!*slot)
		close(fd);
}

/* As PID 1 everybody's orphans are ours. */
static void reap(struct agent *a)
{
	struct signalfd_siginfo si;
	int status;
	pid_t pid;

	while (read(a->sigfd, &si, sizeof si) > 0)
		if (si.ssi_signo != SIGCHLD)
			a->leaving = (int)si.ssi_signo;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		/* Nobody can be asked, so there is no use in waiting. */
		if (pid == a->asking && status)
			a->end_at = agent_now();
		for (unsigned i = 0; i < AGENT_TASKS; i++) {
			struct task *t = a->task[i];

			if (t && t->pid == pid && !t->reaped)
				task_reaped(a, t, status);
		}
	}
	a->childless = pid < 0;
}

static int sooner(uint64_t deadline, uint64_t now, int timeout)
{
	int ms = !deadline ? -1 : deadline <= now ? 0 : (int)(deadline - now);

	return ms >= 0 && (timeout < 0 || ms < timeout) ? ms : timeout;
}

static int until_deadline(const struct agent *a, int timeout)
{
	uint64_t now = agent_now();

	timeout = sooner(a->end_at, now, timeout);
	for (unsigned i = 0; i < AGENT_TASKS; i++) {
		const struct task *t = a->task[i];

		if (t)
			timeout = sooner(t->resume_by, now, sooner(t->deadline, now, timeout));
	}
	return timeout;
}

static void end_now(struct agent *a)
{
	a->end_at = 0;
	a->ops->kill_all();
	a->ops->finish();
	a->ops->end(&a->end);
}

void agent_end(struct agent *a, const struct gp_poweroff *how)
{
	bool ask = how->init_ms && a->ops->ask_init && !a->end_at;

	a->end = *how;
	a->asking = ask ? a->ops->ask_init() : -1;
	if (a->asking > 0)
		a->end_at = agent_now() + how->init_ms;
	else
		end_now(a);
}

/* One look at everything that may have come. True: somebody wants to be accepted. */
static bool serve_connections(struct agent *a, int timeout)
{
	struct pollfd p[2 + AGENT_TASKS * TASK_FDS];
	struct task *who[AGENT_TASKS];
	unsigned n = 0;

	for (unsigned i = 0; i < AGENT_TASKS; i++) {
		if (!a->task[i])
			continue;
		task_poll(a->task[i], &p[2 + n * TASK_FDS]);
		who[n++] = a->task[i];
	}
	p[0] = (struct pollfd){.fd = a->sigfd, .events = POLLIN};
	p[1] = (struct pollfd){.fd = n < AGENT_TASKS ? a->listener : -1, .events = POLLIN};
	if (poll(p, 2 + n * TASK_FDS, timeout) < 0)
		return false;
	if (p[0].revents)
		reap(a);
	for (unsigned i = 0; i < n; i++)
		task_serve(a, who[i], &p[2 + i * TASK_FDS]);
	return p[1].revents;
}

/* A command that has asked for the end gets no status any more: how the machine ends is what the
 * host tells. What the commands have written goes out as far as there is room for it. */
static void leave(struct agent *a)
{
	a->ops->kill_all();
	for (unsigned i = 0; i < GP_WINDOW_OUT / GP_DATA_MAX; i++)
		(void)serve_connections(a, 0);
	a->ops->finish();
	a->ops->leave(a->leaving);
}

void agent_step(struct agent *a, int timeout)
{
	bool knocks = serve_connections(a, until_deadline(a, timeout));
	uint64_t now = agent_now();

	if (a->leaving) {
		leave(a);
		return;
	}
	for (unsigned i = 0; i < AGENT_TASKS; i++)
		if (a->task[i] && !task_settle(a, a->task[i], now))
			a->task[i] = NULL;
	if (knocks)
		accept_one(a);
	if (a->end_at && now >= a->end_at)
		end_now(a);
}
