/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes. See proc.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "proc.h"

#define TURN_MS 100
#define BLIND_MS 20 /* without a pidfd */

/* 0; -ESRCH: there is none, or it is a zombie; else it is not known. */
static int start_of(pid_t pid, uint64_t *start)
{
	unsigned long long t = 0;
	char path[32], text[1024], *p;
	ssize_t n;
	int fd, rc;

	*start = 0;
	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, text, sizeof(text) - 1);
	rc = n < 0 ? -errno : 0;
	close(fd);
	if (rc)
		return rc;
	text[n] = 0;
	p = strrchr(text, ')');
	/* The state is field 3, the start time 22. */
	if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X' ||
	    sscanf(p + 2,
		   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
		   "%llu",
		   &t) != 1)
		return -ESRCH;
	*start = t;
	return 0;
}

int proc_of(pid_t pid, struct proc *p)
{
	p->pid = pid;
	return start_of(pid, &p->start);
}

int proc_child(pid_t pid, const char *what, struct proc *p, struct err *e)
{
	int rc = pid < 0 ? -errno : proc_of(pid, p);

	if (!rc)
		return 0;
	if (pid > 0) {
		kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	*p = (struct proc){0};
	return err_sys(e, rc, "%s", what);
}

bool proc_alive(const struct proc *p)
{
	uint64_t start;
	int rc = p->pid > 0 && p->start ? start_of(p->pid, &start) : -ESRCH;

	if (!rc)
		return start == p->start;
	/* Without a descriptor for /proc: by the number alone, for nobody may be taken for gone. */
	return rc != -ESRCH && (!kill(p->pid, 0) || errno == EPERM);
}

int proc_open(const struct proc *p)
{
	int fd = p->pid > 0 ? (int)syscall(SYS_pidfd_open, p->pid, 0) : -1;
	int rc = fd < 0 && p->pid > 0 ? -errno : -ESRCH;

	if (fd >= 0 && proc_alive(p))
		return fd;
	fd_close(&fd);
	return rc;
}

int proc_kill(const struct proc *p, int signo)
{
	int fd = proc_open(p), rc = 0;

	if (fd < 0)
		return fd;
	if (syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0))
		rc = -errno;
	close(fd);
	return rc;
}

int proc_wait(const struct proc *p, int ms)
{
	uint64_t limit = clock_ns() + (uint64_t)ms * 1000000;
	int fd = proc_open(p), n = 0, turn = fd < 0 ? BLIND_MS : TURN_MS;
	struct pollfd w = {fd, POLLIN, 0};
	bool there = fd != -ESRCH;

	while (there && n == 0 && clock_ns() < limit) {
		n = poll(&w, 1, ms < turn ? ms : turn);
		n = n < 0 && errno == EINTR ? 0 : n;
		there = fd >= 0 || proc_alive(p);
	}
	fd_close(&fd);
	return n > 0 || !there ? 0 : -ETIMEDOUT;
}

int ms_until(uint64_t limit_ns)
{
	uint64_t now = clock_ns(), ms = limit_ns > now ? (limit_ns - now) / 1000000 + 1 : 0;

	return ms < INT_MAX ? (int)ms : INT_MAX;
}
