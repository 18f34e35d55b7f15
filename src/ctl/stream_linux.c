/* SPDX-License-Identifier: BSD-2-Clause */
/* A console on the standard streams: a socket. See ctl.h. */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "stream_linux.h"

#define ESCAPE 0x1d /* Ctrl-] */
#define LOOK_MS 50

bool stream_raw(struct termios *saved)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, saved))
		return false;
	raw = *saved;
	cfmakeraw(&raw);
	return !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

void stream_cooked(const struct termios *saved)
{
	tcsetattr(STDIN_FILENO, TCSADRAIN, saved);
}

int stream_signals(const int *signo, size_t n, sigset_t *old)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < n; i++)
		sigaddset(&set, signo[i]);
	sigprocmask(SIG_BLOCK, &set, old);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* 1: the stream has ended; STREAM_LOST. */
static int stream_copy_out(int fd, int to)
{
	char buf[16384];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0)
		return errno != EINTR && errno != EAGAIN;
	if (n == 0)
		return 1;
	return write_full(to, buf, (size_t)n) ? STREAM_LOST : 0;
}

/* What was typed and is not sent: a VM that takes nothing must not keep signals waiting. */
struct typed {
	char buf[4096];
	size_t at, n;
};

/* 1: the escape; -1: the end of the input. */
static int stream_copy_in(struct typed *t, bool escape)
{
	ssize_t n = read(STDIN_FILENO, t->buf, sizeof(t->buf));
	const char *at;

	if (n <= 0)
		return n < 0 && errno == EINTR ? 0 : -1;
	at = escape ? memchr(t->buf, ESCAPE, (size_t)n) : NULL;
	t->at = 0;
	t->n = at ? (size_t)(at - t->buf) : (size_t)n;
	return at ? 1 : 0;
}

/* As much as goes. False: it takes no more, ever. */
static bool send_typed(struct typed *t, int fd)
{
	ssize_t n = 0;

	while (t->at < t->n && n >= 0) {
		n = send(fd, t->buf + t->at, t->n - t->at, MSG_DONTWAIT | MSG_NOSIGNAL);
		t->at += n > 0 ? (size_t)n : 0;
	}
	if (n >= 0 || errno == EAGAIN || errno == EINTR)
		return true;
	t->at = t->n;
	return false;
}

/* Has the other end taken all that we have sent? */
static bool is_delivered(int fd)
{
	int waiting;

	return ioctl(fd, SIOCOUTQ, &waiting) || !waiting;
}

/* When the input has ended, and all of it is delivered: since when. */
struct leave {
	bool wanted, eof;
	uint64_t since_ns;
};

static bool is_over(struct leave *l, int fd)
{
	if (!l->wanted || !l->eof)
		return false;
	if (!l->since_ns && is_delivered(fd))
		l->since_ns = clock_ns();
	return l->since_ns && clock_ns() >= l->since_ns + STREAM_LEAVE_MS * 1000000ull;
}

/* The input, to the stream: 1: the escape. */
static int take_typed(struct typed *t, struct leave *l, int fd, bool escape)
{
	int rc = stream_copy_in(t, escape);
	bool taken = send_typed(t, fd);

	if (rc > 0)
		return 1;
	l->eof = rc < 0 || !taken;
	if (l->eof)
		shutdown(fd, SHUT_WR);
	return 0;
}

enum { AT_MAIN, AT_ERRORS, AT_INPUT, AT_SIGNAL, PLACES };

/* What the two outputs have: 1: both have ended; STREAM_LOST. */
static int take_outputs(struct pollfd p[PLACES])
{
	static const int to[] = {STDOUT_FILENO, STDERR_FILENO};
	int rc;

	for (int i = AT_MAIN; i <= AT_ERRORS; i++) {
		if (p[i].fd < 0 || !(p[i].revents & ~POLLOUT))
			continue;
		rc = stream_copy_out(p[i].fd, to[i]);
		if (rc == STREAM_LOST)
			return rc;
		if (rc)
			p[i].fd = -1;
	}
	return p[AT_MAIN].fd < 0 && p[AT_ERRORS].fd < 0;
}

static int stream_copy_bytes(const struct stream *s, int signals, bool escape, bool leave)
{
	struct pollfd p[PLACES] = {{s->fd, POLLIN, 0},
				   {s->errors, POLLIN, 0},
				   {STDIN_FILENO, POLLIN, 0},
				   {signals, POLLIN, 0}};
	struct leave l = {.wanted = leave};
	struct signalfd_siginfo si;
	struct typed t = {.n = 0};

	for (;;) {
		bool waits = t.at < t.n;
		int rc;

		if (is_over(&l, s->fd))
			return 1;
		p[AT_MAIN].events = (short)(POLLIN | (waits ? POLLOUT : 0));
		p[AT_INPUT].fd = l.eof || waits || p[AT_MAIN].fd < 0 ? -1 : STDIN_FILENO;
		if (poll(p, PLACES, l.wanted && l.eof ? LOOK_MS : -1) < 0 && errno != EINTR)
			return 0;
		if (p[AT_SIGNAL].revents && read(signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
			return -(int)si.ssi_signo;
		rc = take_outputs(p);
		if (rc)
			return rc == STREAM_LOST ? rc : 0;
		if (p[AT_MAIN].fd >= 0 && p[AT_MAIN].revents && waits)
			l.eof |= !send_typed(&t, s->fd);
		if (p[AT_INPUT].fd >= 0 && p[AT_INPUT].revents && take_typed(&t, &l, s->fd, escape))
			return 1;
	}
}

int stream_console(struct conn *c, const struct stream *s, bool leave)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct termios saved;
	sigset_t old;
	bool raw;
	int signals, rc;

	(void)c;
	signals = stream_signals(wanted, ARRAY_LEN(wanted), &old);
	signal(SIGPIPE, SIG_IGN); /* the terminal must not stay raw */
	raw = stream_raw(&saved);
	rc = stream_copy_bytes(s, signals, raw, leave && !raw);
	if (raw)
		stream_cooked(&saved);
	fd_close(&signals);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return rc;
}

void stream_close(struct stream *s)
{
	fd_close(&s->fd);
	fd_close(&s->errors);
}

int stream_offer(struct conn *c, json_object *params, struct stream *s, int peer[2], struct err *e)
{
	int pair[2];

	(void)c;
	(void)params;
	s->fd = s->errors = peer[0] = peer[1] = -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "socketpair");
	s->fd = pair[0];
	peer[0] = pair[1];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		err_sys(e, -errno, "socketpair");
		stream_close(s);
		fd_close(&peer[0]);
		return e->code;
	}
	s->errors = pair[0];
	peer[1] = pair[1];
	return 2;
}

int stream_attach(struct conn *c, json_object *params, struct err *e)
{
	json_object *r = conn_call(c, "vm.console", params, e);
	int fd = c->got;

	if (!r)
		return e->code;
	json_object_put(r);
	c->got = -1;
	return fd < 0 ? err_set(e, -EPROTO, "insulad has sent no descriptor") : fd;
}
