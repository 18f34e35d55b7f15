/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: the console as a terminal, and a command or a shell on it.
 *
 * insula-init itself is the session leader, and the command leads the foreground process group.
 * Were the command the session leader, its end would hang up the terminal, and the kernel then
 * drops output that the console has not sent yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#ifndef TIOCM_OUT1
#define TIOCM_OUT1 0x2000 /* asm/termios.h, which glibc cannot have beside its own */
#endif
#define KILL_WAIT_MS 2000
#define TTY_VIRTIO "/dev/hvc0"
#define TTY_SERIAL "/dev/ttyS0"

/* The board has one of them. There is no hvc0 before a device of that kind was found. */
static const char *tty_name(void)
{
	return access(TTY_VIRTIO, F_OK) == 0 ? TTY_VIRTIO : TTY_SERIAL;
}

static void use_as_standard(int fd)
{
	if (dup2(fd, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		die_errno("%s", tty_name());
	if (fd > 2)
		close(fd);
}

void tty_late(void)
{
	int fd = fcntl(STDERR_FILENO, F_GETFD) < 0 ? open("/dev/console", O_RDWR | O_NOCTTY) : -1;

	if (fd >= 0)
		use_as_standard(fd);
}

void tty_setup(bool cooked_output)
{
	struct termios t = {
		.c_iflag = ICRNL | IUTF8,
		.c_oflag = cooked_output ? OPOST | ONLCR : 0,
		/* CRTSCTS: the board's UART holds input back while nobody has room for it. */
		.c_cflag = CS8 | CREAD | CLOCAL | HUPCL | CRTSCTS | B115200,
		.c_lflag = ICANON | ISIG | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
		.c_cc = {[VMIN] = 1,
			 [VEOF] = 4,
			 [VINTR] = 3,
			 [VQUIT] = 28,
			 [VERASE] = 127,
			 [VKILL] = 21,
			 [VSUSP] = 26,
			 [VSTART] = 17,
			 [VSTOP] = 19,
			 [VREPRINT] = 18,
			 [VWERASE] = 23,
			 [VLNEXT] = 22},
	};
	const char *tty = tty_name();
	int fd;

	/* This process is in the background and still drains the terminal. */
	signal(SIGTTOU, SIG_IGN);
	setsid();
	fd = open(tty, O_RDWR);
	if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0)
		die_errno("%s", tty);
	/* No waiting for what the kernel has printed: that is in the same queue. */
	if (tcsetattr(fd, TCSANOW, &t) < 0)
		die_errno("%s", tty);
	/* The line that tells the board's UART that input is welcome now; before this it would have
	 * been echoed. hvc0 has no such line. */
	if (ioctl(fd, TIOCMBIS, &(int){TIOCM_OUT1}) < 0 && strcmp(tty, TTY_SERIAL) == 0)
		die_errno("%s", tty);
	use_as_standard(fd);
}

static _Noreturn void become_task(char *const argv[], const struct config *c)
{
	int code;

	setpgid(0, 0);
	tcsetpgrp(0, getpid());
	spawn_defaults();
	if (chdir(c->cwd) < 0) {
		dprintf(STDERR_FILENO, NAME ": %s: %s\n", c->cwd, strerror(errno));
		_exit(STATUS_NOT_EXECUTABLE);
	}
	environ = c->env;
	execvp(argv[0], argv);
	code = errno;
	dprintf(STDERR_FILENO, NAME ": %s: %s\n", argv[0],
		code == ENOENT ? "command not found" : strerror(code));
	_exit(code == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE);
}

/* Nothing of the command may still write to a disk when that is unmounted. A process in an
 * uninterruptible sleep is not waited for longer than this. */
static void kill_rest(void)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	if (kill(-1, SIGKILL) < 0)
		return; /* ESRCH: nobody */
	for (unsigned i = 0; i < KILL_WAIT_MS; i++) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0)
			return; /* ECHILD */
		if (pid == 0)
			nanosleep(&ms, NULL);
	}
}

/* Until `pid` ends: 0; or until somebody asks for the machine's end: that signal. Signals that PID
 * 1 neither blocks nor handles do not reach it. */
static int wait_for(pid_t pid, const sigset_t *set, int *ws)
{
	for (;;) {
		pid_t got;
		int signo;

		while ((got = waitpid(-1, ws, WNOHANG)) > 0)
			if (got == pid)
				return 0;
		if (got < 0 && errno != EINTR)
			die_errno("wait");
		signo = sigwaitinfo(set, NULL);
		if (signo > 0 && signo != SIGCHLD)
			return signo;
	}
}

int task_run(char *const argv[], const struct config *c)
{
	int ws = 0, asked;
	sigset_t set;
	pid_t pid;

	agent_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pid = fork();
	if (pid < 0)
		die_errno("fork");
	if (pid == 0)
		become_task(argv, c);
	setpgid(pid, pid);
	asked = wait_for(pid, &set, &ws);
	kill_rest();
	if (asked)
		return -asked;
	return WIFSIGNALED(ws) ? STATUS_SIGNAL + WTERMSIG(ws) : WEXITSTATUS(ws);
}
