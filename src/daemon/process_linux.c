/* SPDX-License-Identifier: BSD-2-Clause */
/* The process of a supervisor: a pidfd. See daemon.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "machine.h"
#include "process.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* 0, -ESRCH: there is none, or it is dead; other errors: nobody knows. */
static int start_time(int pid, uint64_t *out)
{
	unsigned long long t = 0;
	char path[32], text[1024], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return n ? -errno : -EIO;
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p || p[1] != ' ')
		return -EIO;
	/* State is field 3, the start time is 22. */
	if (p[2] == 'Z' || p[2] == 'X')
		return -ESRCH;
	if (sscanf(p + 2,
		   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
		   "%llu",
		   &t) != 1)
		return -EIO;
	*out = t;
	return 0;
}

uint64_t process_start_time(int pid)
{
	uint64_t t = 0;

	return start_time(pid, &t) ? 0 : t;
}

int process_open(const struct record *r)
{
	int fd = (int)syscall(SYS_pidfd_open, r->pid, 0), rc;
	uint64_t t = 0;

	if (fd < 0)
		return -errno;
	/* Looked at after the descriptor is ours: now the number cannot change its owner. */
	rc = start_time(r->pid, &t);
	if (!rc && t != r->start_time)
		rc = -ESRCH;
	if (rc)
		close(fd);
	return rc ? rc : fd;
}

int process_shoot(int process)
{
	return syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0) ? -errno : 0;
}

void process_undo(const struct machine *m)
{
	kill(m->r.pid, SIGKILL);
	while (waitpid(m->r.pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* -1 also: the supervisor was an earlier daemon's child. */
int64_t process_reap(const struct machine *m)
{
	int status;

	return m->r.pid > 0 && waitpid(m->r.pid, &status, WNOHANG) == m->r.pid ? status : -1;
}

void process_loss(int64_t how, char *reason, char *text, size_t size)
{
	int status = (int)how;

	strcpy(reason, "supervisor-killed");
	if (status >= 0 && WIFSIGNALED(status)) {
		snprintf(text, size, "the supervisor was killed by signal %d", WTERMSIG(status));
	} else if (status >= 0) {
		strcpy(reason, "start-failed");
		snprintf(text, size, "the supervisor exited with status %d; see its log",
			 WEXITSTATUS(status));
	} else {
		snprintf(text, size, "the supervisor was killed");
	}
}

int process_boot_id(char *out, size_t size, struct err *e)
{
	FILE *f = fopen(BOOT_ID, "re");
	bool ok = f && fgets(out, (int)size, f);

	if (f)
		fclose(f);
	out[strcspn(out, "\n")] = 0;
	return ok ? 0 : err_set(e, -EIO, BOOT_ID ": cannot be read");
}
