/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The terminal and signals of insulactl exec. See exec.h.
 *
 * The streams are our own descriptors, and no byte of them comes by here. Unless the VM is another
 * user's, whose processes could keep what they are given, a terminal of root's above all: then they
 * get pipes, and the bytes are copied.
 */
#include "exec.h"
#include "stream_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <insula/base.h>

#include "spec/json.h"

#define STREAMS 3
#define PIECE 4096 /* a pipe that is writable takes as much */

/* One stream that is copied; from < 0: it has ended, or is not. */
struct copy {
	int from, to;
	bool out; /* to us: `from` is our end of the pipe; else `to` is */
	size_t n, at;
	char buf[PIECE];
};

struct exec_os {
	int signals; /* owned */
	struct termios saved;
	int given[STREAMS]; /* the VM's ends of the pipes; owned */
	struct copy copy[STREAMS];
	char id[64]; /* of a VM of another user's: what it is called may change its owner */
};

void exec_os_raw(struct session *s)
{
	if (s->tty && s->input)
		s->raw = stream_raw(&s->os->saved);
}

static int catch_signals(struct exec_os *os, struct err *e)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t old;

	os->signals = stream_signals(wanted, ARRAY_LEN(wanted), &old);
	return os->signals < 0 ? err_sys(e, os->signals, "signalfd") : 0;
}

/* 1: the VM is another user's. Only root sees such. */
static int is_foreign(struct session *s, struct err *e)
{
	json_object *o = json_object_new_object(), *r;
	bool foreign;

	if (geteuid() != 0) {
		json_object_put(o);
		return 0;
	}
	j_str(o, "id", s->vm);
	r = conn_call(&s->ctl->conn, "vm.info", o, e);
	if (!r)
		return e->code;
	foreign = j_get_int(r, "uid", -1) != (int64_t)geteuid();
	snprintf(s->os->id, sizeof(s->os->id), "%s", j_get_str(r, "id", ""));
	json_object_put(r);
	if (foreign) {
		s->vm = s->os->id;
		j_str(s->params, "id", s->vm);
	}
	return foreign;
}

/* Stream i goes through a pipe; the VM's end. */
static int open_copy(struct exec_os *os, int i, struct err *e)
{
	struct copy *c = &os->copy[i];
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return err_sys(e, -errno, "pipe");
	*c = (struct copy){.out = i != STDIN_FILENO};
	c->from = c->out ? p[0] : STDIN_FILENO;
	c->to = c->out ? i : p[1];
	os->given[i] = p[c->out];
	/* Ours alone: whoever has the other end must not make us wait. */
	(void)fcntl(p[!c->out], F_SETFL, O_NONBLOCK);
	return os->given[i];
}

static int open_copies(struct session *s, int fd[3], struct err *e)
{
	int n = 0;

	signal(SIGPIPE, SIG_IGN); /* the terminal must not stay raw */
	for (int i = s->input ? 0 : 1; i < STREAMS; i++) {
		fd[n] = open_copy(s->os, i, e);
		if (fd[n++] < 0)
			return e->code;
	}
	return n;
}

static void end_copy(struct copy *c)
{
	if (c->from >= 0)
		fd_close(c->out ? &c->from : &c->to);
	c->from = -1;
}

static void exec_fill(struct copy *c)
{
	ssize_t n = read(c->from, c->buf, sizeof(c->buf));

	c->at = 0;
	c->n = n > 0 ? (size_t)n : 0;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		end_copy(c);
}

static void drain(struct copy *c)
{
	ssize_t n = write(c->to, c->buf + c->at, c->n - c->at);

	if (n > 0)
		c->at += (size_t)n;
	else if (errno != EAGAIN && errno != EINTR)
		end_copy(c);
}

static void copy_poll(const struct copy *c, struct pollfd *p)
{
	bool full = c->at < c->n;

	*p = (struct pollfd){c->from < 0 ? -1 : full ? c->to : c->from, full ? POLLOUT : POLLIN, 0};
}

static void copy_serve(struct copy *c, const struct pollfd *p)
{
	if (!p->revents || c->from < 0)
		return;
	if (c->at < c->n)
		drain(c);
	else
		exec_fill(c);
}

/* The command has ended, and all that it wrote is in the pipe: that much and no more, for others
 * may still hold its end. False: a signal came. */
static bool copy_rest(struct session *s, struct copy *c)
{
	struct signalfd_siginfo si;
	int left = 0;

	if (c->from < 0 || !c->out || ioctl(c->from, FIONREAD, &left))
		return true;
	while (c->from >= 0 && (left > 0 || c->at < c->n)) {
		struct pollfd p[] = {{-1, 0, 0}, {s->os->signals, POLLIN, 0}};
		bool full = c->at < c->n;

		copy_poll(c, &p[0]);
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents && read(p[1].fd, &si, sizeof(si)) == (ssize_t)sizeof(si) &&
		    si.ssi_signo != SIGWINCH) {
			s->status = 128 + (int)si.ssi_signo;
			return false;
		}
		copy_serve(c, &p[0]);
		if (!full)
			left -= (int)c->n;
	}
	return true;
}

int exec_os_open(struct session *s, int fd[3], struct err *e)
{
	int n = 0, rc, foreign;

	s->os = calloc(1, sizeof(*s->os));
	if (!s->os)
		return err_set(e, -ENOMEM, "out of memory");
	s->os->signals = -1;
	for (int i = 0; i < STREAMS; i++)
		s->os->given[i] = s->os->copy[i].from = s->os->copy[i].to = -1;
	foreign = is_foreign(s, e);
	if (foreign < 0)
		return foreign;
	rc = catch_signals(s->os, e);
	if (rc)
		return rc;
	if (foreign)
		return open_copies(s, fd, e);
	if (s->input)
		fd[n++] = STDIN_FILENO;
	fd[n++] = STDOUT_FILENO;
	fd[n++] = STDERR_FILENO;
	return n;
}

static void exec_on_signal(struct session *s)
{
	struct signalfd_siginfo si;

	if (read(s->os->signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
		session_signal(s, (int)si.ssi_signo);
}

int exec_os_serve(struct session *s, struct err *e)
{
	int rc = 0;

	while (!rc && s->status < 0) {
		struct pollfd p[2 + STREAMS] = {{s->ctl->conn.fd, POLLIN, 0},
						{s->os->signals, POLLIN, 0}};

		for (int i = 0; i < STREAMS; i++)
			copy_poll(&s->os->copy[i], &p[2 + i]);
		if (poll(p, ARRAY_LEN(p), -1) < 0)
			continue;
		if (p[1].revents)
			exec_on_signal(s);
		for (int i = 0; i < STREAMS; i++)
			copy_serve(&s->os->copy[i], &p[2 + i]);
		if (p[0].revents && s->status < 0)
			rc = session_receive(s, e);
	}
	for (int i = 0; i < STREAMS && !rc; i++) {
		if (!copy_rest(s, &s->os->copy[i]))
			break;
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
		stream_cooked(&s->os->saved);
	for (int i = 0; i < STREAMS && s->os; i++) {
		end_copy(&s->os->copy[i]);
		fd_close(&s->os->given[i]);
	}
	if (s->os)
		fd_close(&s->os->signals);
	free(s->os);
	s->os = NULL;
}
