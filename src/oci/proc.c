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
#include <unistd.h>

#include <insula/base.h>

#include "proc.h"

/* 0: there is none, or it is a zombie. */
static uint64_t start_of(pid_t pid)
{
	unsigned long long t = 0;
	char path[32], text[1024], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	p = strrchr(text, ')');
	/* The state is field 3, the start time 22. */
	if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X' ||
	    sscanf(p + 2,
		   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
		   "%llu",
		   &t) != 1)
		return 0;
	return t;
}

struct proc proc_of(pid_t pid)
{
	return (struct proc){pid, start_of(pid)};
}

bool proc_alive(const struct proc *p)
{
	return p->pid > 0 && p->start && start_of(p->pid) == p->start;
}

int proc_open(const struct proc *p)
{
	int fd = p->pid > 0 ? (int)syscall(SYS_pidfd_open, p->pid, 0) : -1;

	if (fd >= 0 && proc_alive(p))
		return fd;
	fd_close(&fd);
	return -ESRCH;
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
	int fd = proc_open(p), n = 0;
	struct pollfd w = {fd, POLLIN, 0};

	if (fd < 0)
		return 0;
	while (n == 0 && clock_ns() < limit) {
		n = poll(&w, 1, ms < 100 ? ms : 100);
		n = n < 0 && errno == EINTR ? 0 : n;
	}
	close(fd);
	return n > 0 ? 0 : -ETIMEDOUT;
}

int ms_until(uint64_t limit_ns)
{
	uint64_t now = clock_ns(), ms = limit_ns > now ? (limit_ns - now) / 1000000 + 1 : 0;

	return ms < INT_MAX ? (int)ms : INT_MAX;
}
