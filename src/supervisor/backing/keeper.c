/* SPDX-License-Identifier: BSD-2-Clause */
/* A process that puts something of the host back. See keeper.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "keeper.h"

#define KEEPER_FD 3

/* As far as that is possible. */
static void leave_cgroup(void)
{
	int fd = open("/sys/fs/cgroup/cgroup.procs", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, "0", 1);
	close(fd);
}

static _Noreturn void keeper(int wait_fd, int given, int (*end)(const void *arg), const void *arg)
{
	int held = given < 0 ? -1 : fcntl(given, F_DUPFD, KEEPER_HELD + 1);
	sigset_t all;
	char c;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL); /* Ctrl-C is for the others */
	leave_cgroup();
	if (setsid() < 0 || (given >= 0 && held < 0) || dup2(wait_fd, KEEPER_FD) < 0 ||
	    (held >= 0 && dup2(held, KEEPER_HELD) < 0) ||
	    syscall(SYS_close_range, held < 0 ? KEEPER_HELD : KEEPER_HELD + 1, ~0u, 0))
		_exit(2);
	while (read(KEEPER_FD, &c, 1) < 0 && errno == EINTR)
		;
	_exit(end(arg) ? 1 : 0);
}

int keeper_start(struct keeper *k, int (*end)(const void *arg), const void *arg, const char *what,
		 struct err *e)
{
	return keeper_start_with(k, -1, end, arg, what, e);
}

int keeper_start_with(struct keeper *k, int held, int (*end)(const void *arg), const void *arg,
		      const char *what, struct err *e)
{
	int pair[2], rc;

	*k = (struct keeper){.fd = -1};
	if (pipe2(pair, O_CLOEXEC))
		return err_sys(e, -errno, "%s: pipe", what);
	k->pid = fork();
	if (k->pid == 0)
		keeper(pair[0], held, end, arg);
	rc = k->pid < 0 ? -errno : 0;
	close(pair[0]);
	if (rc) {
		k->pid = 0;
		close(pair[1]);
		return err_sys(e, rc, "%s: fork", what);
	}
	k->fd = pair[1];
	return 0;
}

bool keeper_let(struct keeper *k)
{
	siginfo_t s = {0};

	fd_close(&k->fd);
	return !k->pid || waitid(P_PID, (id_t)k->pid, &s, WEXITED | WNOHANG | WNOWAIT) || s.si_pid;
}

void keeper_dismiss(struct keeper *k)
{
	if (!k->pid)
		return;
	kill(k->pid, SIGKILL);
	while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR)
		;
	k->pid = 0;
	fd_close(&k->fd);
}

int keeper_end(struct keeper *k, unsigned ms)
{
	uint64_t until = clock_ns() + ms * UINT64_C(1000000);
	int status = 0;
	pid_t ended = 0;

	if (!k->pid)
		return 0;
	fd_close(&k->fd);
	while (!ended && clock_ns() < until) {
		ended = waitpid(k->pid, &status, WNOHANG);
		if (!ended)
			usleep(2000);
	}
	k->pid = 0;
	if (!ended)
		return -EAGAIN;
	return status ? -EIO : 0;
}
