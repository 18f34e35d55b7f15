/* SPDX-License-Identifier: BSD-2-Clause */
/* Children on Linux. See child.h and child_linux.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "supervisor/child.h"

#define KILL_WAIT_MS 5000
#define MAX_READS 16 /* per wake-up: a child that floods must not keep us from the others */

static const struct jail_child no_process = {.pid = -1, .pidfd = -1, .channel = -1, .log = -1};

/* ---- set up ---- */

void child_none(struct child *c)
{
	*c = (struct child){.os = {.exec_fd = -1, .came = -1, .jail = no_process}};
}

int child_program(const char *libexec, const char *program, struct err *e)
{
	char path[4352];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", libexec, program);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, -errno, "%s", path) : fd;
}

static void child_set_up(struct child *c, const char *program, const char *device, unsigned threads,
			 unsigned nofile)
{
	child_name(c, program, device);
	c->os.exec_fd = c->os.came = -1;
	c->os.jail = no_process;
	c->os.threads = threads;
	c->os.nofile = nofile;
}

int child_init(struct child *c, const char *libexec, const char *program, const char *device,
	       unsigned threads, unsigned nofile, struct err *e)
{
	child_set_up(c, program, device, threads, nofile);
	c->os.exec_fd = child_program(libexec, program, e);
	return c->os.exec_fd < 0 ? c->os.exec_fd : 0;
}

int child_init_open(struct child *c, int exec_fd, const char *program, const char *device,
		    unsigned threads, unsigned nofile, struct err *e)
{
	child_set_up(c, program, device, threads, nofile);
	c->os.exec_fd = fd_copy(exec_fd);
	return c->os.exec_fd < 0 ? err_sys(e, -errno, "%s", program) : 0;
}

/* ---- what the loop finds ---- */

/* At the end of its log, which may come before its own, there is nothing to watch. */
static void child_read_log(struct child *c)
{
	char buf[1024];
	ssize_t n = 1;

	for (int i = 0; i < MAX_READS && n > 0 && c->os.jail.log >= 0; i++) {
		n = read(c->os.jail.log, buf, sizeof(buf));
		if (n > 0)
			child_log_add(c, buf, (size_t)n);
	}
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		watch_off(&c->os.log);
		fd_close(&c->os.jail.log);
	}
}

static void on_log(void *ctx, unsigned events)
{
	(void)events;
	child_read_log(ctx);
}

static void on_channel(void *ctx, unsigned events)
{
	(void)events;
	child_hear(ctx);
}

static void on_end(void *ctx, unsigned events)
{
	(void)events;
	child_died(ctx);
}

static void child_watch(struct child *c)
{
	if (!c->loop)
		return;
	if (c->os.jail.channel >= 0)
		watch_on(c->loop, &c->os.channel, c->os.jail.channel, WATCH_IN, on_channel, c);
	watch_on(c->loop, &c->os.log, c->os.jail.log, WATCH_IN, on_log, c);
	watch_on(c->loop, &c->os.end, c->os.jail.pidfd, WATCH_IN, on_end, c);
}

/* ---- begin ---- */

int child_spawn(struct child *c, const int *fds, unsigned nfds, struct err *e)
{
	struct jail_plan p = {.program = c->program,
			      .exec_fd = c->os.exec_fd,
			      .nofile = c->os.nofile,
			      .nproc = c->os.threads,
			      .as = c->os.as,
			      .fsize = c->os.fsize,
			      .memlock = c->os.memlock};
	int rc;

	(void)fds;
	(void)nfds;
	jail_ids(&p);
	rc = jail_spawn(&p, &c->os.jail, e);
	if (rc) {
		c->os.jail = no_process;
		return rc;
	}
	/* A child that does not read, or says half a thing, must not stop the supervisor. */
	fcntl(c->os.jail.channel, F_SETFL, O_NONBLOCK);
	c->state = CHILD_STARTING;
	c->deaf = false;
	c->log.nline = 0;
	child_watch(c);
	return 0;
}

int child_adopt(struct child *c, const char *program, pid_t pid, int log, struct err *e)
{
	struct child_end end;
	int rc;

	child_set_up(c, program, "", 0, 0);
	c->deaf = true;
	c->state = CHILD_READY;
	c->os.jail.pid = pid;
	c->os.jail.log = log;
	c->os.jail.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (c->os.jail.pidfd >= 0) {
		child_watch(c);
		return 0;
	}
	rc = err_sys(e, -errno, "%s: pidfd", program);
	kill(pid, SIGKILL);
	child_os_reap(c, &end);
	return rc;
}

/* ---- messages ---- */

int child_send(struct child *c, enum msg_type type, const void *body, size_t len, const int *fds,
	       unsigned nfds)
{
	return msg_send(c->os.jail.channel, type, body, len, fds, nfds);
}

int child_send_new(struct child *c, enum msg_type type, const int *fds, unsigned nfds)
{
	return child_send(c, type, NULL, 0, fds, nfds);
}

/* It has no descriptors to give, but for the kind that may give one. What nobody took of the last
 * message is closed here, or with the process. */
int child_os_receive(struct child *c, enum msg_type *type, void *body, size_t size, size_t *len)
{
	int fds[MSG_MAX_FDS];
	unsigned nfds;
	int rc = msg_recv(c->os.jail.channel, type, body, size, len, fds, &nfds);

	fd_close(&c->os.came);
	if (!rc && nfds == 1 && c->os.gives) {
		c->os.came = fds[0];
		return 0;
	}
	for (unsigned i = 0; i < nfds && !rc; i++)
		close(fds[i]);
	return rc ? rc : nfds ? -EPROTO : 0;
}

int child_os_came(struct child *c)
{
	int fd = c->os.came;

	c->os.came = -1;
	return fd;
}

int child_os_verify(const struct child *c, struct err *e)
{
	return jail_verify(c->os.jail.pid, e);
}

void child_os_deaf(struct child *c)
{
	watch_off(&c->os.channel);
}

/* ---- end ---- */

void child_os_close(struct child *c)
{
	watch_off(&c->os.channel);
	watch_off(&c->os.log);
	watch_off(&c->os.end);
	fd_close(&c->os.came);
	fd_close(&c->os.jail.pidfd);
	fd_close(&c->os.jail.channel);
	fd_close(&c->os.jail.log);
	c->os.jail.pid = -1;
	c->state = CHILD_NONE;
}

static void child_describe(int status, struct child_end *end)
{
	if (WIFEXITED(status)) {
		end->status = WEXITSTATUS(status);
		snprintf(end->how, sizeof(end->how), "exited with status %d", end->status);
	} else if (WTERMSIG(status) == SIGSYS) {
		snprintf(end->how, sizeof(end->how),
			 "was killed: a system call that its jail forbids");
	} else {
		snprintf(end->how, sizeof(end->how), "was killed by signal %d", WTERMSIG(status));
	}
}

void child_os_reap(struct child *c, struct child_end *end)
{
	int status = 0;

	while (waitpid(c->os.jail.pid, &status, 0) < 0 && errno == EINTR)
		;
	child_read_log(c);
	child_log_finish(c);
	child_os_close(c);
	child_describe(status, end);
}

bool child_os_wait(struct child *c)
{
	struct pollfd p = {c->os.jail.pidfd, POLLIN, 0};

	return poll(&p, 1, KILL_WAIT_MS) > 0;
}

bool child_ended(const struct child *c)
{
	struct pollfd p = {c->os.jail.pidfd, POLLIN, 0};

	return c->os.jail.pid <= 0 || poll(&p, 1, 0) > 0;
}

void child_shoot(const struct child *c)
{
	if (c->os.jail.pid > 0)
		kill(c->os.jail.pid, SIGKILL);
}

void child_os_free(struct child *c)
{
	fd_close(&c->os.exec_fd);
}
