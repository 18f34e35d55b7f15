/* SPDX-License-Identifier: BSD-2-Clause */
/* The terminal and signals of insulactl exec. The streams are our own descriptors, and no byte of
 * them comes by here. See exec.h. */
#include "exec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <insula/base.h>

struct exec_os {
	int signals; /* owned */
	struct termios saved;
};

bool exec_os_size(unsigned *rows, unsigned *cols)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		struct winsize w;

		if (ioctl(fd, TIOCGWINSZ, &w) || !w.ws_row || !w.ws_col)
			continue;
		*rows = w.ws_row;
		*cols = w.ws_col;
		return true;
	}
	return false;
}

const char *exec_os_term(void)
{
	return getenv("TERM");
}

void exec_os_raw(struct session *s)
{
	struct termios raw;

	if (!s->tty || !s->input || tcgetattr(STDIN_FILENO, &s->os->saved))
		return;
	raw = s->os->saved;
	cfmakeraw(&raw);
	s->raw = !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static int catch_signals(struct exec_os *os, struct err *e)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	os->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return os->signals < 0 ? err_sys(e, -errno, "signalfd") : 0;
}

int exec_os_open(struct session *s, int fd[3], struct err *e)
{
	int n = 0, rc;

	s->os = calloc(1, sizeof(*s->os));
	if (!s->os)
		return err_set(e, -ENOMEM, "out of memory");
	s->os->signals = -1;
	rc = catch_signals(s->os, e);
	if (rc)
		return rc;
	if (s->input)
		fd[n++] = STDIN_FILENO;
	fd[n++] = STDOUT_FILENO;
	fd[n++] = STDERR_FILENO;
	return n;
}

static void on_signal(struct session *s)
{
	struct signalfd_siginfo si;

	if (read(s->os->signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
		session_signal(s, (int)si.ssi_signo);
}

int exec_os_serve(struct session *s, struct err *e)
{
	int rc = 0;

	while (!rc && s->status < 0) {
		struct pollfd p[] = {{s->ctl->conn.fd, POLLIN, 0}, {s->os->signals, POLLIN, 0}};

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			on_signal(s);
		if (p[0].revents && s->status < 0)
			rc = session_receive(s, e);
	}
	return rc;
}

void exec_os_sleep(unsigned ms)
{
	poll(NULL, 0, (int)ms);
}

void exec_os_end(struct session *s)
{
	if (s->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &s->os->saved);
	if (s->os)
		fd_close(&s->os->signals);
	free(s->os);
	s->os = NULL;
}
