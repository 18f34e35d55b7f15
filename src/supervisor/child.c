/* SPDX-License-Identifier: BSD-2-Clause */
/* Children. See child.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "child.h"

#define CHILD_LINES 10 /* log lines a second that one child may print */
#define KILL_WAIT_MS 5000
#define SECOND_NS 1000000000ull
#define MAX_READS 16 /* per wake-up: a child that floods must not keep us from the others */

static const struct jail_child no_process = {.pid = -1, .pidfd = -1, .channel = -1, .log = -1};

void child_none(struct child *c)
{
	*c = (struct child){.exec_fd = -1, .jail = no_process};
}

int child_program(const char *libexec, const char *program, struct err *e)
{
	char path[4352];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", libexec, program);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, -errno, "%s", path) : fd;
}

static void set_up(struct child *c, const char *program, const char *device, unsigned threads,
		   unsigned nofile)
{
	*c = (struct child){
		.program = program, .jail = no_process, .threads = threads, .nofile = nofile};
	snprintf(c->name, sizeof(c->name), "%s%s%s", program, *device ? " " : "", device);
}

int child_init(struct child *c, const char *libexec, const char *program, const char *device,
	       unsigned threads, unsigned nofile, struct err *e)
{
	set_up(c, program, device, threads, nofile);
	c->exec_fd = child_program(libexec, program, e);
	return c->exec_fd < 0 ? c->exec_fd : 0;
}

int child_init_open(struct child *c, int exec_fd, const char *program, unsigned threads,
		    unsigned nofile, struct err *e)
{
	set_up(c, program, "", threads, nofile);
	c->exec_fd = fd_copy(exec_fd);
	return c->exec_fd < 0 ? err_sys(e, -errno, "%s", program) : 0;
}

int child_spawn(struct child *c, struct err *e)
{
	struct jail_plan p = {.program = c->program,
			      .exec_fd = c->exec_fd,
			      .nofile = c->nofile,
			      .nproc = c->threads,
			      .fsize = c->fsize};
	int rc;

	jail_ids(&p);
	rc = jail_spawn(&p, &c->jail, e);
	if (rc) {
		c->jail = no_process;
		return rc;
	}
	/* A child that does not read, or says half a thing, must not stop the supervisor. */
	fcntl(c->jail.channel, F_SETFL, O_NONBLOCK);
	c->state = CHILD_STARTING;
	c->nline = 0;
	return 0;
}

/* A jailed process may be an enemy: no control characters on our terminal, no flood. */
static void print_line(struct child *c)
{
	uint64_t now = clock_ns();

	for (size_t i = 0; i < c->nline; i++) {
		unsigned char ch = (unsigned char)c->line[i];
		if ((ch < 0x20 && ch != '\t') || ch >= 0x7f)
			c->line[i] = '?';
	}
	if (c->talkative) {
		snprintf(c->last, sizeof(c->last), "%.*s", (int)c->nline, c->line);
		if (log_most() < LOG_LVL_INFO) {
			c->nline = 0;
			return;
		}
	}
	if (now - c->window_ns > SECOND_NS) {
		if (c->dropped)
			log_warn("%s: %u log lines dropped", c->name, c->dropped);
		c->window_ns = now;
		c->lines = c->dropped = 0;
	}
	if (++c->lines > CHILD_LINES)
		c->dropped++;
	else
		log_line("%s: %.*s", c->name, (int)c->nline, c->line);
	c->nline = 0;
}

void child_log(struct child *c)
{
	char buf[1024];

	for (int i = 0; i < MAX_READS && c->jail.log >= 0; i++) {
		ssize_t n = read(c->jail.log, buf, sizeof(buf));
		if (n <= 0)
			break;
		for (ssize_t k = 0; k < n; k++) {
			if (buf[k] == '\n' || c->nline == sizeof(c->line))
				print_line(c);
			if (buf[k] != '\n')
				c->line[c->nline++] = buf[k];
		}
	}
}

static void close_all(struct child *c)
{
	fd_close(&c->jail.pidfd);
	fd_close(&c->jail.channel);
	fd_close(&c->jail.log);
	c->jail.pid = -1;
	c->state = CHILD_NONE;
}

int child_reap(struct child *c)
{
	int status = 0;

	while (waitpid(c->jail.pid, &status, 0) < 0 && errno == EINTR)
		;
	child_log(c);
	if (c->nline)
		print_line(c);
	close_all(c);
	return status;
}

bool child_ended(const struct child *c)
{
	struct pollfd p = {c->jail.pidfd, POLLIN, 0};

	return c->jail.pid <= 0 || poll(&p, 1, 0) > 0;
}

void child_shoot(const struct child *c)
{
	if (c->jail.pid > 0)
		kill(c->jail.pid, SIGKILL);
}

void child_kill(struct child *c)
{
	struct pollfd p = {c->jail.pidfd, POLLIN, 0};

	if (c->jail.pid <= 0)
		return;
	child_shoot(c);
	/* A process that waits for a dead disk in the kernel does not die. It holds nothing of ours
	 * but its own descriptors. */
	if (poll(&p, 1, KILL_WAIT_MS) > 0) {
		child_reap(c);
	} else {
		log_warn("%s: does not end, it is left behind", c->name);
		close_all(c);
	}
}

void child_free(struct child *c)
{
	child_kill(c);
	fd_close(&c->exec_fd);
}

void child_describe(int status, char *out, size_t size)
{
	if (WIFEXITED(status))
		snprintf(out, size, "exited with status %d", WEXITSTATUS(status));
	else if (WTERMSIG(status) == SIGSYS)
		snprintf(out, size, "was killed: a system call that its jail forbids");
	else
		snprintf(out, size, "was killed by signal %d", WTERMSIG(status));
}
