/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: hooks of the kind startContainer (runtime-spec, config.md): in the container,
 * with its root's rights, before its process. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

/* What it writes is the container's error output. */
static _Noreturn void become_hook(const struct hook *h, int input)
{
	char *arg[] = {(char *)(uintptr_t)h->path, NULL}, *env[] = {NULL};
	sigset_t none;

	setsid(); /* all of it can be killed */
	if (dup2(input, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(EXIT_FAILED);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(h->path, h->arg.n ? h->arg.v : arg, h->env.n ? h->env.v : env);
	_exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

#define TURN_MS 60000 /* poll(2) takes no more than an int */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Give it its input and wait until `pidfd` ends. -ETIMEDOUT. */
static int feed_and_wait(const struct hook *h, int pidfd, int input)
{
	int64_t end = h->timeout ? now_ms() + (int64_t)h->timeout * 1000 : INT64_MAX;
	const char *at = h->input ? h->input : "";
	size_t left = strlen(at);

	for (;;) {
		struct pollfd p[2] = {{.fd = pidfd, .events = POLLIN},
				      {.fd = left ? input : -1, .events = POLLOUT}};
		int64_t rest = end - now_ms();

		if (!left && input >= 0) {
			close(input);
			input = -1;
		}
		if (rest <= 0 || poll(p, 2, rest < TURN_MS ? (int)rest : TURN_MS) < 0 ||
		    p[0].revents & POLLIN)
			break;
		if (p[1].revents) {
			ssize_t n = write(input, at, left);

			at += n > 0 ? n : 0;
			left -= n > 0 ? (size_t)n : left; /* who does not read it needs none */
		}
	}
	if (input >= 0)
		close(input);
	return poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, 0) == 1 ? 0 : -ETIMEDOUT;
}

static int judge(const struct hook *h, int status, struct err *e)
{
	if (WIFSIGNALED(status))
		return err_set(e, -EINTR, "hook %s: killed by signal %d", h->path,
			       WTERMSIG(status));
	if (WEXITSTATUS(status))
		return err_set(e, -EINVAL, "hook %s: exit status %d", h->path, WEXITSTATUS(status));
	return 0;
}

static int run_hook(const struct hook *h, struct err *e)
{
	int p[2], pidfd, status = 0, r;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "hook %s", h->path);
	pid = fork();
	if (pid == 0)
		become_hook(h, p[0]);
	close(p[0]);
	pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0u);
	if (pidfd < 0) {
		r = err_sys(e, -errno, "hook %s", h->path);
		close(p[1]);
		if (pid > 0) { /* nobody would hear of its end */
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
		}
		return r;
	}
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	r = feed_and_wait(h, pidfd, p[1]);
	if (r) {
		kill(-pid, SIGKILL);
		kill(pid, SIGKILL);
	}
	waitpid(pid, &status, 0);
	close(pidfd);
	return r ? err_set(e, r, "hook %s: not done after %u s", h->path, h->timeout)
		 : judge(h, status, e);
}

int hooks_run(const struct container *c, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < c->hooks && !r; i++)
		r = run_hook(&c->hook[i], e);
	return r;
}
