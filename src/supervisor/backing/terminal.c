/* SPDX-License-Identifier: BSD-2-Clause */
/* The console's ends. See terminal.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "terminal.h"

static int dup_cloexec(int fd, struct err *e)
{
	int n = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return n < 0 ? err_sys(e, -errno, "standard stream %d", fd) : n;
}

bool terminal_may_read(void)
{
	if (fcntl(STDIN_FILENO, F_GETFD) < 0)
		return false;
	return !isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static int open_stdio(struct terminal *t, struct err *e)
{
	t->out = dup_cloexec(STDOUT_FILENO, e);
	if (t->out < 0)
		return t->out;
	if (!terminal_may_read())
		return 0;
	t->in = dup_cloexec(STDIN_FILENO, e);
	t->escape = isatty(STDIN_FILENO);
	return t->in < 0 ? t->in : 0;
}

static int open_pty(struct terminal *t, struct err *e)
{
	struct termios raw;

	t->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->out < 0 || grantpt(t->out) || unlockpt(t->out) ||
	    ptsname_r(t->out, t->slave_name, sizeof(t->slave_name)))
		return err_sys(e, -errno, "--console: pty");
	t->slave = open(t->slave_name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->slave < 0 || tcgetattr(t->slave, &raw))
		return err_sys(e, -errno, "--console: %s", t->slave_name);
	cfmakeraw(&raw);
	tcsetattr(t->slave, TCSANOW, &raw);
	t->in = dup_cloexec(t->out, e);
	return t->in < 0 ? t->in : 0;
}

/* A FIFO that nobody reads, or a line without a carrier, must not hang us. */
static int open_write(struct terminal *t, const char *path, int flags, struct err *e)
{
	t->out = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags, 0666);
	if (t->out < 0 && errno == ENXIO)
		return err_set(e, -ENXIO,
			       "--console: %s: nobody reads it; expected a file, or "
			       "something that is read",
			       path);
	if (t->out < 0 || fcntl(t->out, F_SETFL, flags & O_APPEND))
		return err_sys(e, -errno, "--console: %s", path);
	return 0;
}

/* A file that the user's shell has opened is the user's own affair; what is none has no length. */
static uint64_t any_file(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) ? UINT64_MAX : 0;
}

int terminal_open(struct terminal *t, const struct vm_config *c, struct err *e)
{
	int rc = 0;

	*t = (struct terminal){.in = -1, .out = -1, .slave = -1};
	switch (config_console(c)) {
	case CONSOLE_STDIO:
		rc = open_stdio(t, e);
		break;
	case CONSOLE_PTY:
		rc = open_pty(t, e);
		break;
	case CONSOLE_NONE:
		rc = open_write(t, "/dev/null", 0, e);
		break;
	case CONSOLE_STDERR:
		rc = t->out = dup_cloexec(STDERR_FILENO, e);
		rc = rc < 0 ? rc : 0;
		break;
	case CONSOLE_STREAM:
		t->out = dup_cloexec(c->console_out, e);
		rc = t->out < 0 ? t->out : 0;
		if (!rc && c->console_in >= 0)
			rc = t->in = dup_cloexec(c->console_in, e);
		rc = rc < 0 ? rc : 0;
		break;
	case CONSOLE_FILE:
		rc = open_write(t, c->console_file, O_CREAT | O_APPEND, e);
		break;
	}
	if (!rc)
		t->limit = config_console(c) == CONSOLE_FILE ? c->console_limit : any_file(t->out);
	if (rc)
		terminal_close(t);
	return rc;
}

void terminal_modes(struct terminal *t, bool stream, bool raw)
{
	t->stream = stream && t->in >= 0 && !t->escape;
	t->raw_wanted = t->escape || raw;
}

void terminal_tell(const struct terminal *t)
{
	if (t->slave >= 0)
		log_line("console: %s", t->slave_name);
}

void terminal_raw(struct terminal *t)
{
	struct termios raw;

	if (!t->raw_wanted || tcgetattr(STDIN_FILENO, &t->saved))
		return;
	raw = t->saved;
	cfmakeraw(&raw);
	/* Our own messages on the same terminal still want their carriage returns. */
	raw.c_oflag |= OPOST;
	/* Not TCSADRAIN, here and below: output that was stopped (Ctrl-S) is not waited for. */
	t->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

void terminal_close(struct terminal *t)
{
	if (t->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->saved);
	t->raw = false;
	fd_close(&t->in);
	fd_close(&t->out);
	fd_close(&t->slave);
}
