/* SPDX-License-Identifier: BSD-2-Clause */
/* Terminals. See tty.h. */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/scm.h>

#include "field.h"
#include "spec/json.h"
#include "raw.h"
#include "tty.h"

int tty_check(json_object *process, const char *socket, bool detached, struct err *e)
{
	bool terminal = false;
	int rc = field_bool(process, "process", "terminal", &terminal, e);

	if (rc < 0)
		return rc;
	if (terminal && !socket && detached)
		return err_set(e, -EINVAL,
			       "process.terminal: true; expected --console-socket with it");
	if (!terminal && socket)
		return err_set(e, -EINVAL,
			       "--console-socket: %.100s; expected process.terminal with it",
			       socket);
	return 0;
}

/* ---- the master's way ---- */

static int send_master(const char *path, int master, struct err *e)
{
	static const char name[] = "/dev/ptmx";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct iovec iov = {(void *)(uintptr_t)name, sizeof(name) - 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;
	int fd, rc = 0;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, -ENAMETOOLONG, "--console-socket: %.110s: too long", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	scm_attach(&m, &ctl, &master, 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) ||
	    sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
		rc = err_sys(e, -errno, "--console-socket: %.100s", path);
	fd_close(&fd);
	return rc;
}

static struct winsize wanted_size(json_object *process)
{
	json_object *size = j_get(process, "consoleSize");
	int64_t rows = j_get_int(size, "height", 0), cols = j_get_int(size, "width", 0);
	bool ok = rows > 0 && rows <= UINT16_MAX && cols > 0 && cols <= UINT16_MAX;

	return (struct winsize){.ws_row = ok ? (unsigned short)rows : 0,
				.ws_col = ok ? (unsigned short)cols : 0};
}

static int open_pty(struct stdio *s, json_object *process, const char *socket, struct err *e)
{
	struct winsize size = wanted_size(process);
	struct termios raw = {.c_cflag = CS8 | CREAD | B38400};
	int master, slave, rc;

	raw.c_cc[VMIN] = 1;
	if (openpty(&master, &slave, NULL, &raw, size.ws_row ? &size : NULL))
		return err_sys(e, -errno, "a terminal");
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fcntl(slave, F_SETFD, FD_CLOEXEC);
	rc = send_master(socket, master, e);
	close(master);
	s->fd[0] = slave;
	s->fd[1] = rc ? -1 : fd_copy(slave);
	s->fd[2] = rc ? -1 : fd_copy(slave);
	s->tty = s->session = true;
	if (!rc && (s->fd[1] < 0 || s->fd[2] < 0))
		rc = err_sys(e, -errno, "a terminal");
	if (rc)
		tty_close(s);
	return rc;
}

int tty_open(struct stdio *s, json_object *process, const char *socket, struct err *e)
{
	*s = (struct stdio){.fd = {-1, -1, -1}};
	if (socket)
		return open_pty(s, process, socket, e);
	s->tty = j_get_bool(process, "terminal", false);
	for (int i = 0; i < 3; i++) {
		s->fd[i] = fd_copy(i);
		if (s->fd[i] < 0) {
			tty_close(s);
			return err_sys(e, -errno, "standard streams");
		}
	}
	return 0;
}

void tty_close(struct stdio *s)
{
	for (int i = 0; i < 3; i++)
		fd_close(&s->fd[i]);
}

bool tty_size(int fd, uint16_t *rows, uint16_t *cols)
{
	struct winsize w;

	if (ioctl(fd, TIOCGWINSZ, &w) || !w.ws_row || !w.ws_col)
		return false;
	*rows = w.ws_row;
	*cols = w.ws_col;
	return true;
}

/* ---- our own ---- */

bool raw_enter(struct termios *before)
{
	struct termios raw;

	if (tcgetattr(0, before))
		return false;
	raw = *before;
	cfmakeraw(&raw);
	return !tcsetattr(0, TCSADRAIN, &raw);
}

void raw_leave(const struct termios *before)
{
	(void)tcsetattr(0, TCSADRAIN, before);
}
