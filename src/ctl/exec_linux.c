/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl exec: a command in a VM, on our own standard streams.
 *
 * The streams go to insulad by descriptor, from there to a jailed insula-exec, and no byte of them
 * comes by here. What is left to do is to keep the terminal raw, pass signals and its size on, and
 * wait for the end; also over a restart of insulad, which the command does not notice.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "supervisor/json.h"
#include "supervisor/settings.h"

#define AGAIN_NS 1000000000ull /* a second interrupt within this does not wait for the guest */
#define RETRIES 100            /* of the connection to an insulad that starts anew */
#define RETRY_MS 100
#define SIGNAL_STATUS 128

struct session {
	struct ctl *ctl;
	const char *vm;
	bool input, tty, raw;
	json_object *params; /* of vm.exec; owned until it is sent */
	int64_t exec;        /* 0: not known yet */
	int64_t want;        /* the id of the answer that we wait for */
	int signals;         /* owned */
	int status;          /* -1: it still runs */
	uint64_t interrupted_ns;
	struct termios saved;
};

/* ---- flags ---- */

static json_object *list_in(json_object *o, const char *key)
{
	json_object *list = j_get(o, key);

	if (!list)
		j_obj(o, key, list = json_object_new_array());
	return list;
}

static void add_env(json_object *params, const char *text)
{
	char *whole;
	int rc = setting_env(text, &whole);

	if (rc < 0)
		panic("out of memory");
	if (rc)
		json_object_array_add(list_in(params, "env"), json_object_new_string(whole));
	free(whole);
}

static int one_flag(struct session *s, int c, const char *value)
{
	switch (c) {
	case 'i':
		s->input = true;
		return 0;
	case 't':
		s->tty = true;
		return 0;
	case 'e':
		add_env(s->params, value);
		return 0;
	case 'w':
		j_str(s->params, "cwd", value);
		return 0;
	case 'u':
		j_str(s->params, "user", value);
		return 0;
	default:
		return -EINVAL;
	}
}

/* -it and the like, too: getopt, which stops at the VM's name. */
static int read_flags(struct session *s, int argc, char **argv, struct err *e)
{
	int c, rc = 0;

	optind = 0;
	opterr = 0;
	while (!rc && (c = getopt(argc, argv, "+ite:w:u:")) >= 0)
		rc = one_flag(s, c, optarg);
	if (rc)
		return err_set(e, rc,
			       "exec: unknown flag, or one without its value; expected -i, "
			       "-t, -e NAME=VALUE, -w DIR, -u UID[:GID]");
	if (optind < argc)
		s->vm = argv[optind++];
	if (optind < argc && !strcmp(argv[optind], "--"))
		optind++;
	if (!s->vm || optind >= argc)
		return err_set(e, -EINVAL, "exec: expected a VM and a command");
	for (; optind < argc; optind++)
		json_object_array_add(list_in(s->params, "command"),
				      json_object_new_string(argv[optind]));
	j_str(s->params, "id", s->vm);
	j_bool(s->params, "queue", true);
	return 0;
}

/* ---- the terminal ---- */

static bool window(struct winsize *w)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (!ioctl(fd, TIOCGWINSZ, w) && w->ws_row && w->ws_col)
			return true;
	}
	return false;
}

static void add_terminal(struct session *s)
{
	struct winsize w;

	if (!s->tty)
		return;
	j_bool(s->params, "tty", true);
	if (window(&w)) {
		j_int(s->params, "rows", w.ws_row);
		j_int(s->params, "cols", w.ws_col);
	}
	if (getenv("TERM"))
		add_env(s->params, "TERM");
}

static void make_raw(struct session *s)
{
	struct termios raw;

	if (!s->tty || !s->input || tcgetattr(STDIN_FILENO, &s->saved))
		return;
	raw = s->saved;
	cfmakeraw(&raw);
	s->raw = !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

/* ---- requests ---- */

static json_object *about(const struct session *s)
{
	json_object *o = json_object_new_object();

	j_str(o, "id", s->vm);
	j_int(o, "exec", s->exec);
	return o;
}

static int begin(struct session *s, struct err *e)
{
	const int fds[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

	add_terminal(s);
	s->want = conn_send(&s->ctl->conn, "vm.exec", s->params, fds + !s->input, s->input ? 3 : 2,
			    e);
	s->params = NULL;
	return s->want < 0 ? e->code : 0;
}

static int wait_for_end(struct session *s, struct err *e)
{
	s->want = conn_send(&s->ctl->conn, "vm.exec.wait", about(s), NULL, 0, e);
	return s->want < 0 ? e->code : 0;
}

/* Nobody reads these answers: the guest takes them, or the next thing that is heard is its end. */
static void pass_on(struct session *s, int signo)
{
	json_object *o = about(s);
	struct winsize w;
	struct err e;

	if (signo != SIGWINCH) {
		j_int(o, "signal", signo);
		(void)conn_send(&s->ctl->conn, "vm.exec.signal", o, NULL, 0, &e);
	} else if (s->tty && window(&w)) {
		j_int(o, "rows", w.ws_row);
		j_int(o, "cols", w.ws_col);
		(void)conn_send(&s->ctl->conn, "vm.exec.resize", o, NULL, 0, &e);
	} else {
		json_object_put(o);
	}
}

/* A guest that does not listen must not keep us: the second interrupt within a second kills. */
static bool again(struct session *s, int signo)
{
	uint64_t now = clock_ns(), before = s->interrupted_ns;

	if (signo != SIGINT && signo != SIGTERM)
		return false;
	s->interrupted_ns = now;
	return before && now - before < AGAIN_NS;
}

static void on_signal(struct session *s)
{
	struct signalfd_siginfo si;
	int signo;

	if (read(s->signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	signo = (int)si.ssi_signo;
	if (again(s, signo) || !s->exec) {
		if (s->exec)
			pass_on(s, SIGKILL);
		if (signo != SIGWINCH)
			s->status = SIGNAL_STATUS + signo;
	} else {
		pass_on(s, signo);
	}
}

/* ---- answers ---- */

static void ended(struct session *s, json_object *r)
{
	const char *text = j_get_str(r, "text", NULL), *reason = j_get_str(r, "reason", "");

	s->status = (int)j_get_int(r, "status", CTL_FAILED);
	if (text)
		fprintf(stderr, "%sinsulactl: %s%s\n", s->raw ? "\r" : "",
			!strcmp(reason, "lost") ? "the connection to the command is lost: " : "",
			text);
}

static int on_answer(struct session *s, json_object *o, struct err *e)
{
	json_object *r;
	int rc = 0;

	if (j_get_int(o, "id", -1) != s->want)
		return 0;
	r = conn_result(o, e);
	if (!r)
		return e->code;
	if (s->exec) {
		ended(s, r);
	} else {
		s->exec = j_get_int(r, "exec", 0);
		make_raw(s);
		rc = wait_for_end(s, e);
	}
	json_object_put(r);
	return rc;
}

/* insulad was stopped or killed. The command runs on, and a new insulad finds it. */
static int connect_again(struct session *s, struct err *e)
{
	if (!s->exec)
		return e->code;
	for (int i = 0; i < RETRIES; i++) {
		conn_close(&s->ctl->conn);
		if (!conn_open(&s->ctl->conn, s->ctl->path, e) && !wait_for_end(s, e))
			return 0;
		poll(NULL, 0, RETRY_MS);
	}
	return e->code;
}

static int receive(struct session *s, struct err *e)
{
	json_object *o;
	int rc = 0;

	do {
		o = conn_next(&s->ctl->conn, e);
		rc = o ? on_answer(s, o, e) : connect_again(s, e);
		json_object_put(o);
	} while (!rc && s->status < 0 && conn_has_line(&s->ctl->conn));
	return rc;
}

static int serve(struct session *s, struct err *e)
{
	int rc = 0;

	while (!rc && s->status < 0) {
		struct pollfd p[] = {{s->ctl->conn.fd, POLLIN, 0}, {s->signals, POLLIN, 0}};

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			on_signal(s);
		if (p[0].revents && s->status < 0)
			rc = receive(s, e);
	}
	return rc;
}

static int catch_signals(struct session *s, struct err *e)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? err_sys(e, -errno, "signalfd") : 0;
}

int ctl_exec(struct ctl *c, int argc, char **argv, int *status, struct err *e)
{
	struct session s = {
		.ctl = c, .params = json_object_new_object(), .signals = -1, .status = -1};
	int rc = read_flags(&s, argc, argv, e);

	if (!rc)
		rc = catch_signals(&s, e);
	if (!rc)
		rc = begin(&s, e);
	if (!rc)
		rc = serve(&s, e);
	if (s.raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &s.saved);
	json_object_put(s.params);
	fd_close(&s.signals);
	*status = s.status;
	return rc;
}
