/* SPDX-License-Identifier: BSD-2-Clause */
/* The process of a supervisor: a pidfd. See daemon.h. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "daemon.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

uint64_t process_start_time(int pid)
{
	unsigned long long t = 0;
	char path[32], text[1024], *p;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	p = strrchr(text, ')');
	/* State is field 3, the start time is 22. */
	if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X' ||
	    sscanf(p + 2,
		   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
		   "%llu",
		   &t) != 1)
		return 0;
	return t;
}

int process_open(const struct record *r)
{
	int fd = (int)syscall(SYS_pidfd_open, r->pid, 0);

	/* Looked at after the descriptor is ours: now the number cannot change its owner. */
	if (fd >= 0 && process_start_time(r->pid) != r->start_time)
		fd_close(&fd);
	return fd < 0 ? -ESRCH : fd;
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
