/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs of insulactl: one function each, and their table. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

static int status_of(const struct err *e)
{
	if (e->code == -EINVAL || e->code == -ENAMETOOLONG || e->code == -CONN_BAD_INPUT)
		return CTL_BAD_INPUT;
	return e->code <= -CONN_REFUSED && e->code > -CONN_LAST ? CTL_REFUSED : CTL_FAILED;
}

static int verbs_fail(const struct err *e)
{
	print_message("", e->text);
	return status_of(e);
}

/* Of several VMs the one that it is about is named, unless the line names it. */
static int fail_of(const struct err *e, const char *vm, bool several)
{
	struct err named;

	if (!several || strstr(e->text, vm))
		return verbs_fail(e);
	err_set(&named, e->code, "%.80s: %s", vm, e->text);
	return verbs_fail(&named);
}

/* For a program; what says nothing is printed only if JSON was asked for. */
static void print_answer(const struct ctl *c, json_object *r)
{
	if (c->json || json_object_object_length(r))
		print_json(r);
}

static json_object *with_id(const char *id)
{
	json_object *o = json_object_new_object();

	j_str(o, "id", id);
	return o;
}

/* Call, and print what came. */
static int simple(struct ctl *c, const char *method, json_object *params)
{
	struct err e;
	json_object *r = conn_call(&c->conn, method, params, &e);

	if (!r)
		return verbs_fail(&e);
	if (print_is_table(c->json))
		print_members(r);
	else
		print_answer(c, r);
	json_object_put(r);
	return 0;
}

/* The same for several VMs; quiet on a terminal. */
static int each(struct ctl *c, const char *method, int argc, char **argv, int64_t deadline)
{
	int status = 0;

	for (int i = 0; i < argc; i++) {
		json_object *params = with_id(argv[i]), *r;
		struct err e;

		if (deadline >= 0)
			j_int(params, "deadline_ms", deadline);
		r = conn_call(&c->conn, method, params, &e);
		if (!r)
			status = fail_of(&e, argv[i], argc > 1);
		else if (print_is_table(c->json))
			puts(argv[i]);
		else
			print_answer(c, r);
		json_object_put(r);
	}
	return status;
}

/* ---- starting ---- */

static int help_of(const char *name)
{
	verb_help(verb_find(name));
	return 0;
}

static json_object *start_params(struct run_options *o)
{
	json_object *params = json_object_new_object();

	j_str(params, "name", o->name);
	j_obj(params, "config", json_object_get(o->config));
	return params;
}

static int end_status(json_object *r)
{
	const char *message = j_get_str(r, "message", NULL);

	if (message)
		print_message("", message);
	return (int)j_get_int(r, "status", CTL_FAILED);
}

/* The status after stream_console(). */
static int detached(int how)
{
	return how < 0 ? 128 - how : 0;
}

/* The console is ours until the VM ends; then its status is ours too. */
static int run_attached(struct ctl *c, struct run_options *o)
{
	json_object *params = start_params(o), *r;
	struct err e;
	int peer, status, how = 0, fd = stream_offer(&c->conn, params, &peer, &e);
	int64_t id;

	if (fd < 0) {
		json_object_put(params);
		return verbs_fail(&e);
	}
	j_bool(params, "wait", true);
	id = conn_send(&c->conn, "vm.run", params, &peer, peer >= 0, &e);
	fd_close(&peer);
	if (id >= 0)
		how = stream_console(&c->conn, fd, false);
	fd_close(&fd);
	if (how) {
		fprintf(stderr, "\r\ninsulactl: detached, the VM runs on\n");
		return detached(how);
	}
	r = id < 0 ? NULL : conn_wait(&c->conn, id, &e);
	status = r ? end_status(r) : verbs_fail(&e);
	json_object_put(r);
	return status;
}

/* The id alone for scripts, unless somebody wants everything. */
static int verbs_make(struct ctl *c, const char *method, struct run_options *o)
{
	struct err e;
	json_object *r = conn_call(&c->conn, method, start_params(o), &e);

	if (!r)
		return verbs_fail(&e);
	if (c->json)
		print_json(r);
	else
		puts(j_get_str(r, "id", ""));
	json_object_put(r);
	return 0;
}

static int verb_run(struct ctl *c, int argc, char **argv)
{
	struct run_options o = {.verb = "run"};
	struct err e;
	int status;

	if (config_flags(&o, argc, argv, &e))
		status = verbs_fail(&e);
	else if (o.help)
		status = help_of("run");
	else if (config_look(&o, &e))
		status = verbs_fail(&e);
	else if (o.detach)
		status = verbs_make(c, "vm.run", &o);
	else
		status = run_attached(c, &o);
	json_object_put(o.config);
	return status;
}

static int verb_create(struct ctl *c, int argc, char **argv)
{
	struct run_options o = {.verb = "create"};
	struct err e;
	int status;

	if (config_flags(&o, argc, argv, &e))
		status = verbs_fail(&e);
	else if (o.help)
		status = help_of("create");
	else if (config_look(&o, &e))
		status = verbs_fail(&e);
	else
		status = verbs_make(c, "vm.create", &o);
	json_object_put(o.config);
	return status;
}

static int verb_start(struct ctl *c, int argc, char **argv)
{
	return each(c, "vm.start", argc - 1, argv + 1, -1);
}

static int verb_exec(struct ctl *c, int argc, char **argv)
{
	struct err e;
	int status;

	return ctl_exec(c, argc, argv, &status, &e) ? verbs_fail(&e) : status;
}

/* ---- looking ---- */

static int verb_ps(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.list", NULL, &e);

	(void)argc;
	(void)argv;
	if (!r)
		return verbs_fail(&e);
	if (print_is_table(c->json))
		print_vms(j_get(r, "vms"));
	else
		print_json(r);
	json_object_put(r);
	return 0;
}

static int verb_info(struct ctl *c, int argc, char **argv)
{
	return argc > 1 ? simple(c, "vm.info", with_id(argv[1])) : simple(c, "daemon.info", NULL);
}

static int verb_metrics(struct ctl *c, int argc, char **argv)
{
	return argc > 1 ? simple(c, "vm.metrics", with_id(argv[1]))
			: simple(c, "daemon.metrics", NULL);
}

static int verb_logs(struct ctl *c, int argc, char **argv)
{
	struct err e;

	(void)argc;
	return ctl_logs(c, argv[1], &e) ? verbs_fail(&e) : 0;
}

static int verb_events(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "events.subscribe", argc > 1 ? with_id(argv[1]) : NULL,
				   &e),
		    *o;

	if (!r)
		return verbs_fail(&e);
	json_object_put(r);
	while ((o = conn_next(&c->conn, &e))) {
		if (!strcmp(j_get_str(o, "method", ""), "events.dropped")) {
			json_object_put(o);
			err_set(&e, -EPIPE,
				"events came faster than they were read: some are missing");
			break;
		}
		if (print_is_table(c->json))
			print_event(j_get(o, "params"));
		else
			print_json(j_get(o, "params"));
		fflush(stdout);
		json_object_put(o);
	}
	return verbs_fail(&e);
}

static int verb_console(struct ctl *c, int argc, char **argv)
{
	json_object *params = with_id(argv[1]);
	struct err e;
	int fd, how;

	(void)argc;
	j_int(params, "scrollback", 65536);
	fd = stream_attach(&c->conn, params, &e);
	if (fd < 0)
		return verbs_fail(&e);
	if (isatty(STDIN_FILENO))
		fprintf(stderr, "insulactl: Ctrl-] detaches\r\n");
	how = stream_console(&c->conn, fd, true);
	if (how)
		fprintf(stderr, "\r\ninsulactl: detached\n");
	fd_close(&fd);
	return detached(how);
}

/* ---- ending ---- */

#define STOP_SECONDS 10

static int64_t stop_ms(const struct ctl *c)
{
	return (c->timeout < 0 ? STOP_SECONDS : c->timeout) * 1000;
}

static int verb_stop(struct ctl *c, int argc, char **argv)
{
	return each(c, "vm.stop", argc - 1, argv + 1, stop_ms(c));
}

static int verb_kill(struct ctl *c, int argc, char **argv)
{
	return each(c, "vm.kill", argc - 1, argv + 1, -1);
}

/* Stopped in order, and deleted; one that is deleted when it ends may have gone by then. */
static int remove_running(struct ctl *c, const char *vm, struct err *e)
{
	json_object *params = with_id(vm), *r;

	j_int(params, "deadline_ms", stop_ms(c));
	r = conn_call(&c->conn, "vm.stop", params, e);
	if (!r && e->code != -CONN_WRONG_STATE)
		return e->code;
	json_object_put(r);
	r = conn_call(&c->conn, "vm.delete", with_id(vm), e);
	json_object_put(r);
	return r || e->code == -CONN_NOT_FOUND ? 0 : e->code;
}

static int verb_rm(struct ctl *c, int argc, char **argv)
{
	int status = 0;

	if (!c->force)
		return each(c, "vm.delete", argc - 1, argv + 1, -1);
	for (int i = 1; i < argc; i++) {
		struct err e;
		json_object *r = conn_call(&c->conn, "vm.delete", with_id(argv[i]), &e);
		int rc = r ? 0 : e.code;

		json_object_put(r);
		if (rc == -CONN_WRONG_STATE)
			rc = remove_running(c, argv[i], &e);
		if (rc)
			status = fail_of(&e, argv[i], argc > 2);
		else if (c->json)
			puts("{}");
		else if (print_is_table(false))
			puts(argv[i]);
	}
	return status;
}

static int verb_pause(struct ctl *c, int argc, char **argv)
{
	return each(c, "vm.pause", argc - 1, argv + 1, -1);
}

static int verb_resume(struct ctl *c, int argc, char **argv)
{
	return each(c, "vm.resume", argc - 1, argv + 1, -1);
}

static int verb_wait(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.wait", with_id(argv[1]), &e);
	int status;

	(void)argc;
	if (!r)
		return verbs_fail(&e);
	if (!print_is_table(c->json))
		print_json(r);
	status = end_status(r);
	json_object_put(r);
	return status;
}

static int verb_device(struct ctl *c, int argc, char **argv)
{
	json_object *params;
	struct err e;

	(void)argc;
	if (strcmp(argv[1], "restart") != 0) {
		err_set(&e, -EINVAL, "device: '%.40s'; expected restart", argv[1]);
		return verbs_fail(&e);
	}
	params = with_id(argv[2]);
	j_str(params, "device", argv[3]);
	return simple(c, "vm.device.restart", params);
}

/* ---- anything ---- */

static int verb_rpc(struct ctl *c, int argc, char **argv)
{
	json_object *params = NULL, *r;
	const char *why = "";
	struct err e;

	if (argc > 2 && !(params = j_parse(argv[2], strlen(argv[2]), 32, &why))) {
		err_set(&e, -EINVAL, "parameters: %s; expected a JSON object", why);
		return verbs_fail(&e);
	}
	r = conn_call(&c->conn, argv[1], params, &e);
	if (!r)
		return verbs_fail(&e) == CTL_FAILED ? CTL_FAILED : CTL_REFUSED;
	print_json(r);
	json_object_put(r);
	return 0;
}

#define COMMON (FLAG_HELP | FLAG_JSON)
#define OF_RUN                                                                       \
	"The flags of a VM are those of insula-run (--kernel, --mem, --disk ...);\n" \
	"insula-run --help explains them."

const struct verb verbs[] = {
	{"run", NULL, "[-d] [flags] [--] [command...]",
	 "start a VM that is deleted when it ends (-d: in the background; prints its id)", verb_run,
	 0, -1, 0, OF_RUN, config_words},
	{"create", NULL, "[flags] [--] [command...]", "make a VM, start nothing; prints its id",
	 verb_create, 0, -1, 0, OF_RUN, config_words},
	{"start", NULL, "VM...", "start VMs that were created or have ended", verb_start, 1, -1,
	 COMMON, NULL, NULL},
	{"exec", NULL, "[-i] [-t] [-e NAME=VALUE] [-w DIR] [-u USER] VM [--] command...",
	 "run a command in a VM; exit with its status", verb_exec, 1, -1, 0, NULL, exec_words},
	{"ps", "ls list", "", "list VMs", verb_ps, 0, 0, COMMON, NULL, NULL},
	{"info", "show", "[VM]", "state of one VM, or of the daemon", verb_info, 0, 1, COMMON, NULL,
	 NULL},
	{"console", "attach", "VM",
	 "attach to the console; Ctrl-], or the end of an input that is no terminal, detaches",
	 verb_console, 1, 1, COMMON, NULL, NULL},
	{"logs", "log", "[-f] [--tail N] [--since TIME] [--timestamps] VM",
	 "output of its console, its command and its processes", verb_logs, 1, 1,
	 COMMON | FLAG_FOLLOW | FLAG_TAIL | FLAG_SINCE | FLAG_TIMESTAMPS, NULL, NULL},
	{"pause", NULL, "VM...", "stop the processors of VMs", verb_pause, 1, -1, COMMON, NULL,
	 NULL},
	{"resume", "unpause", "VM...", "let the processors of VMs go on", verb_resume, 1, -1,
	 COMMON, NULL, NULL},
	{"stop", NULL, "[-t SECONDS] VM...", "ask guests to power off, then end VMs", verb_stop, 1,
	 -1, COMMON | FLAG_TIMEOUT, NULL, NULL},
	{"kill", NULL, "VM...", "end VMs at once, without asking the guests", verb_kill, 1, -1,
	 COMMON, NULL, NULL},
	{"device", NULL, "restart VM DEVICE",
	 "restart a device's process, also one that has failed", verb_device, 3, 3, COMMON, NULL,
	 NULL},
	{"wait", NULL, "VM", "wait until a VM ends; exit with its status", verb_wait, 1, 1, COMMON,
	 NULL, NULL},
	{"rm", "delete remove", "[-f] VM...",
	 "delete VMs that do not run (-f: stop the others first)", verb_rm, 1, -1,
	 COMMON | FLAG_FORCE | FLAG_TIMEOUT, NULL, NULL},
	{"metrics", NULL, "[VM]", "counters of one VM, or of the daemon", verb_metrics, 0, 1,
	 COMMON, NULL, NULL},
	{"events", NULL, "[VM]", "print events as they come", verb_events, 0, 1, COMMON, NULL,
	 NULL},
	{"rpc", "call", "METHOD [PARAMS]", "call any method, with a JSON object", verb_rpc, 1, 2,
	 COMMON, NULL, NULL},
};
const size_t nverbs = ARRAY_LEN(verbs);
