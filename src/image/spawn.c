/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a program to its end. See spawn.h. fork() and not posix_spawn(), which has no way to say
 * "die with the parent" and "in a mount namespace of its own". Everything that allocates is done
 * before the fork; the child makes system calls only.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "spawn.h"

#define PROGRAM_MAX 4096
#define TICK_MS 250
#define STATUS_SETUP 127 /* the child could not get as far as the program */

/* mke2fs must make the same image whatever /etc/mke2fs.conf says. */
static char *const clean_env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
				  "MKE2FS_CONFIG=/dev/null", NULL};

static int find_program(const struct spawn *s, char out[PROGRAM_MAX], struct err *e)
{
	const char *name = s->argv[0], *path = getenv("PATH");
	char dirs[PROGRAM_MAX];

	if (strchr(name, '/')) {
		snprintf(out, PROGRAM_MAX, "%s", name);
		return 0;
	}
	snprintf(dirs, sizeof(dirs), "%s%s/usr/sbin:/usr/bin:/sbin:/bin", path ? path : "",
		 path ? ":" : "");
	for (char *save = NULL, *d = strtok_r(dirs, ":", &save); d;
	     d = strtok_r(NULL, ":", &save)) {
		snprintf(out, PROGRAM_MAX, "%.3000s/%.200s", d, name);
		if (access(out, X_OK) == 0)
			return 0;
	}
	return err_set(e, -ENOENT, "needs the program %s (Debian: apt-get install %s)", name,
		       s->package);
}

/* A bind mount without MS_REC shows the directory without its mounts. */
static int hide_mounts(const char *dir)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	return mount(dir, dir, NULL, MS_BIND, NULL);
}

/* Move a descriptor to its place; dup2() onto itself would leave close-on-exec set. */
static int place_descriptor(int from, int to)
{
	if (from == to)
		return fcntl(from, F_SETFD, 0);
	return dup2(from, to) < 0 ? -1 : 0;
}

static _Noreturn void become_program(const struct spawn *s, const char *program, int null,
				     int errors, pid_t parent)
{
	static const char text[] = "cannot set up its process";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(STATUS_SETUP);
	if (s->bare && hide_mounts(s->bare)) {
		static const char why[] = "cannot leave out what is mounted below it";

		(void)!write(errors, why, sizeof(why) - 1);
		_exit(STATUS_SETUP);
	}
	if (place_descriptor(s->in < 0 ? null : s->in, 0) ||
	    place_descriptor(s->out < 0 ? null : s->out, 1) || place_descriptor(errors, 2) ||
	    (s->extra >= 0 && place_descriptor(s->extra, SPAWN_FD))) {
		(void)!write(errors, text, sizeof(text) - 1);
		_exit(STATUS_SETUP);
	}
	if (s->fsize && setrlimit(RLIMIT_FSIZE, &(struct rlimit){s->fsize, s->fsize})) {
		(void)!write(2, text, sizeof(text) - 1);
		_exit(STATUS_SETUP);
	}
	execve(program, (char *const *)s->argv, s->own_env ? environ : clean_env);
	(void)!write(2, text, sizeof(text) - 1);
	_exit(STATUS_SETUP);
}

/* Without a pidfd poll() only sleeps. */
static int wait_end(const struct spawn *s, pid_t pid, int *status, struct err *e)
{
	int pidfd = s->tick ? (int)syscall(SYS_pidfd_open, pid, 0) : -1, rc = 0;
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	pid_t ended = 0;

	while (ended != pid) {
		ended = waitpid(pid, status, s->tick && !rc ? WNOHANG : 0);
		if (ended < 0 && errno != EINTR) {
			rc = err_sys(e, -errno, "wait for %s", s->argv[0]);
			break;
		}
		if (ended || poll(&p, 1, TICK_MS) > 0)
			continue;
		/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
		rc = s->tick(s->ctx, e);
		if (rc)
			kill(pid, SIGKILL);
	}
	fd_close(&pidfd);
	return rc;
}

/* What the program complained about last, without its own name in front: warnings come before the
 * reason. */
static int report_failure(const struct spawned *p, int status, struct err *e)
{
	const char *base = p->name;
	const int errors = p->errors;
	char text[4096], *line, *end;
	off_t size = lseek(errors, 0, SEEK_END), len = (off_t)sizeof(text) - 1;
	ssize_t n = pread(errors, text, (size_t)len, size > len ? size - len : 0);

	for (end = text + (n > 0 ? n : 0); end > text && isspace((unsigned char)end[-1]);)
		end--;
	*end = '\0';
	line = strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text;
	if (strncmp(line, base, strlen(base)) == 0 && line[strlen(base)] == ':')
		line += strlen(base) + 1;
	line += strspn(line, " ");
	if (WIFSIGNALED(status))
		return err_set(e, -EIO, "%s was killed by signal %d", base, WTERMSIG(status));
	if (!line[0])
		return err_set(e, -EIO, "%s failed with status %d", base, WEXITSTATUS(status));
	return err_set(e, -EIO, "%s: %s", base, line);
}

/* The descriptors must be above those that the child moves them to. */
static int high_fd(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SPAWN_FD + 1);

	fd_close(&fd);
	return high;
}

int spawn_begin(const struct spawn *s, struct spawned *p, struct err *e)
{
	const char *base = strrchr(s->argv[0], '/');
	char program[PROGRAM_MAX];
	struct spawn t = *s;
	pid_t self = getpid();
	int null = -1, r = find_program(s, program, e);

	*p = (struct spawned){.errors = -1};
	snprintf(p->name, sizeof(p->name), "%s", base ? base + 1 : s->argv[0]);
	if (r)
		return r;
	null = high_fd(open("/dev/null", O_RDWR | O_CLOEXEC));
	p->errors = high_fd(memfd_create("stderr", MFD_CLOEXEC));
	t.in = s->in < 0 ? -1 : fcntl(s->in, F_DUPFD_CLOEXEC, SPAWN_FD + 1);
	t.out = s->out < 0 ? -1 : fcntl(s->out, F_DUPFD_CLOEXEC, SPAWN_FD + 1);
	t.extra = s->extra < 0 ? -1 : fcntl(s->extra, F_DUPFD_CLOEXEC, SPAWN_FD + 1);
	if (null < 0 || p->errors < 0 || (t.in < 0) != (s->in < 0) || (t.out < 0) != (s->out < 0) ||
	    (t.extra < 0) != (s->extra < 0)) {
		r = err_sys(e, -errno, "descriptors for %s", s->argv[0]);
	} else {
		p->pid = fork();
		if (p->pid == 0)
			become_program(&t, program, null, p->errors, self);
		if (p->pid < 0)
			r = err_sys(e, -errno, "fork for %s", s->argv[0]);
	}
	fd_close(&t.extra);
	fd_close(&t.out);
	fd_close(&t.in);
	fd_close(&null);
	if (r) {
		p->pid = 0;
		fd_close(&p->errors);
	}
	return r;
}

int spawn_look(struct spawned *p, struct err *e)
{
	int status = 0, rc = 0;
	pid_t ended = waitpid(p->pid, &status, WNOHANG);

	if (!ended || (ended < 0 && errno == EINTR))
		return -EAGAIN;
	if (ended < 0)
		rc = err_sys(e, -errno, "wait for %s", p->name);
	else if (status)
		rc = report_failure(p, status, e);
	p->pid = 0;
	fd_close(&p->errors);
	return rc;
}

void spawn_kill(struct spawned *p)
{
	if (!p->pid)
		return;
	kill(p->pid, SIGKILL);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		;
	p->pid = 0;
	fd_close(&p->errors);
}

int spawn_run(const struct spawn *s, struct err *e)
{
	struct spawned p;
	int status = 0, r = spawn_begin(s, &p, e);

	if (r)
		return r;
	r = wait_end(s, p.pid, &status, e);
	if (!r && status)
		r = report_failure(&p, status, e);
	fd_close(&p.errors);
	return r;
}
