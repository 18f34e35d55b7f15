/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl exec: a command in a VM, on our own standard streams.
 *
 * The streams go to insulad by descriptor or by name, from there to a jailed insula-exec. What is
 * left to do is to keep the terminal raw, pass signals and its size on, and wait for the end; also
 * over a restart of insulad, which the command does not notice.
 */
#include "exec.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "spec/json.h"
#include "spec/settings.h"

#define AGAIN_NS 1000000000ull /* a second interrupt within this does not wait for the guest */
#define RETRIES 100            /* of the connection to an insulad that restarts */
#define RETRY_MS 100
#define SIGNAL_STATUS 128

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

size_t exec_words(const char *verb, struct flag_words *out)
{
	static const struct flag_words words[] = {
		{NULL, 'i', NULL, NULL, false, "pass standard input on"},
		{NULL, 't', NULL, NULL, false, "a terminal; with -i yours becomes its keyboard"},
		{NULL, 'e', "NAME=VALUE", NULL, false,
		 "a variable; -e NAME has the value that it has here"},
		{NULL, 'w', "DIR", NULL, false, "its directory in the guest; default /"},
		{NULL, 'u', "USER[:GROUP]", NULL, false,
		 "its user in the guest, a number or a name that the guest knows; default 0"},
		{"help", 'h', NULL, NULL, false, "this help"},
	};

	(void)verb;
	memcpy(out, words, sizeof(words));
	return ARRAY_LEN(words);
}

static int one_flag(struct session *s, int c, const char *value)
{
	switch (c) {
	case 'h':
		s->help = true;
		return 0;
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
	static const struct option help[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	char text[64];
	int c, rc = 0;

	optind = 0;
	opterr = 0;
	while (!rc && !s->help && (c = getopt_long(argc, argv, "+:ite:w:u:h", help, NULL)) >= 0)
		rc = one_flag(s, c, optarg);
	if (rc)
		return err_set(e, rc,
			       "exec: '%s': unknown flag, or one without its value; expected -i, "
			       "-t, -e NAME=VALUE, -w DIR, -u USER[:GROUP]",
			       flag_text(argv, text));
	if (s->help)
		return 0;
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

/* ---- requests ---- */

static void add_terminal(struct session *s)
{
	const char *term = window_type();
	uint16_t rows, cols;
	char *text;

	if (!s->tty)
		return;
	j_bool(s->params, "tty", true);
	if (window_size(&rows, &cols)) {
		j_int(s->params, "rows", rows);
		j_int(s->params, "cols", cols);
	}
	if (!term)
		return;
	if (asprintf(&text, "TERM=%s", term) < 0)
		panic("out of memory");
	add_env(s->params, text);
	free(text);
}

static json_object *about(const struct session *s)
{
	json_object *o = json_object_new_object();

	j_str(o, "id", s->vm);
	j_int(o, "exec", s->exec);
	return o;
}

static int exec_begin(struct session *s, struct err *e)
{
	int fds[3], n;

	add_terminal(s);
	n = exec_os_open(s, fds, e);
	if (n < 0)
		return n;
	s->want = conn_send(&s->ctl->conn, "vm.exec", s->params, fds, (unsigned)n, e);
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
	uint16_t rows, cols;
	struct err e;

	if (signo != GUEST_SIGWINCH) {
		j_int(o, "signal", signo);
		(void)conn_send(&s->ctl->conn, "vm.exec.signal", o, NULL, 0, &e);
	} else if (s->tty && window_size(&rows, &cols)) {
		j_int(o, "rows", rows);
		j_int(o, "cols", cols);
		(void)conn_send(&s->ctl->conn, "vm.exec.resize", o, NULL, 0, &e);
	} else {
		json_object_put(o);
	}
}

/* A guest that does not listen must not keep us: the second interrupt within a second kills. */
static bool again(struct session *s, int signo)
{
	uint64_t now = clock_ns(), before = s->interrupted_ns;

	if (signo != GUEST_SIGINT && signo != GUEST_SIGTERM)
		return false;
	s->interrupted_ns = now;
	return before && now - before < AGAIN_NS;
}

void session_signal(struct session *s, int signo)
{
	if (again(s, signo) || !s->exec) {
		if (s->exec)
			pass_on(s, GUEST_SIGKILL);
		if (signo != GUEST_SIGWINCH)
			s->status = SIGNAL_STATUS + signo;
	} else {
		pass_on(s, signo);
	}
}

/* ---- answers ---- */

static void ended(struct session *s, json_object *r)
{
	const char *text = j_get_str(r, "text", NULL), *reason = j_get_str(r, "reason", "");
	char line[512];

	s->status = (int)j_get_int(r, "status", CTL_FAILED);

	if (!text)
		return;
	snprintf(line, sizeof(line), "%s%s",
		 !strcmp(reason, "lost") ? "the connection to the command is lost: " : "", text);
	print_message(s->raw ? "\r" : "", line);
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
		exec_os_raw(s);
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
		exec_os_sleep(RETRY_MS);
	}
	return e->code;
}

int session_receive(struct session *s, struct err *e)
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

int ctl_exec(struct ctl *c, int argc, char **argv, int *status, struct err *e)
{
	struct session s = {.ctl = c, .params = json_object_new_object(), .status = -1};
	int rc = read_flags(&s, argc, argv, e);

	if (!rc && s.help) {
		verb_help(verb_find("exec"));
		s.status = 0;
	} else if (!rc) {
		rc = exec_begin(&s, e);
		if (!rc)
			rc = exec_os_serve(&s, e);
	}
	exec_os_end(&s);
	json_object_put(s.params);
	*status = s.status;
	return rc;
}
