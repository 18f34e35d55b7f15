/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of verbs, what they have in common, and those that start VMs. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/config.h"
#include "spec/json.h"
#include "spec/settings.h"

int ctl_status(const struct err *e)
{
	if (e->code == -EINVAL || e->code == -ENAMETOOLONG || e->code == -CONN_BAD_INPUT)
		return CTL_BAD_INPUT;
	return e->code <= -CONN_REFUSED && e->code > -CONN_LAST ? CTL_REFUSED : CTL_FAILED;
}

int ctl_fail(const struct err *e)
{
	print_message("", e->text);
	return ctl_status(e);
}

/* Always in the same place: a name as short as "a" is in many a line. */
int ctl_fail_of(const struct err *e, const char *vm, bool several)
{
	struct err named;

	if (!several)
		return ctl_fail(e);
	err_set(&named, e->code, "%.80s: %s", vm, e->text);
	return ctl_fail(&named);
}

void ctl_print_answer(const struct ctl *c, json_object *r)
{
	if (c->json || json_object_object_length(r))
		print_json(r);
}

void ctl_print_done(const struct ctl *c, const char *name, json_object *r)
{
	if (print_is_table(c->json))
		puts(name);
	else
		ctl_print_answer(c, r);
}

json_object *ctl_with_id(const char *id)
{
	json_object *o = json_object_new_object();

	j_str(o, "id", id);
	return o;
}

int ctl_simple(struct ctl *c, const char *method, json_object *params)
{
	struct err e;
	json_object *r = conn_call(&c->conn, method, params, &e);

	if (!r)
		return ctl_fail(&e);
	if (print_is_table(c->json))
		print_members(r);
	else
		ctl_print_answer(c, r);
	json_object_put(r);
	return 0;
}

int ctl_each_of(struct ctl *c, const char *method, const char *key, int argc, char **argv,
		int64_t deadline)
{
	int status = 0;

	for (int i = 0; i < argc; i++) {
		json_object *params = json_object_new_object(), *r;
		struct err e;

		j_str(params, key, argv[i]);
		if (deadline >= 0)
			j_int(params, "deadline_ms", deadline);
		if (c->set_clock)
			j_bool(params, "set_clock", true);
		r = conn_call(&c->conn, method, params, &e);
		if (!r)
			status = ctl_fail_of(&e, argv[i], argc > 1);
		else
			ctl_print_done(c, argv[i], r);
		json_object_put(r);
	}
	return status;
}

int ctl_each(struct ctl *c, const char *method, int argc, char **argv, int64_t deadline)
{
	return ctl_each_of(c, method, "id", argc, argv, deadline);
}

/* ---- starting ---- */

static int help_of(const char *name)
{
	verb_help(verb_find(name));
	return 0;
}

/* One that no other VM has, so that we can order about what we have not heard of yet. */
static const char *run_name(char made[20])
{
	strcpy(made, "vm-");
	random_hex(made + strlen(made), 12);
	return made;
}

static json_object *start_params(struct run_options *o)
{
	json_object *params = json_object_new_object();

	j_str(params, "name", o->name);
	if (!strcmp(o->verb, "run") && !o->remove)
		j_bool(params, "keep", true);
	j_str(params, "pool", o->pool);
	if (!o->pool || json_object_object_length(o->config))
		j_obj(params, "config", json_object_get(o->config));
	return params;
}

int ctl_end_status(json_object *r)
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

#define HANG_UP 1 /* SIGHUP, which Windows does not know */

/* As insula-run takes an interrupt: the guest is not asked, its devices write out what they have.
 * The terminal's end is none: whoever had it may come back. */
static int run_interrupted(struct ctl *c, const char *name, int64_t id, int how)
{
	json_object *params = ctl_with_id(name);
	struct err e;

	j_int(params, "deadline_ms", 0);
	if (conn_send(&c->conn, "vm.stop", params, NULL, 0, &e) < 0)
		return ctl_fail(&e);
	json_object_put(conn_wait(&c->conn, id, &e));
	if (how != STREAM_LOST)
		return detached(how);
	print_message("", "an output takes no more: the VM is stopped");
	return CTL_FAILED;
}

/* The console is ours until the VM ends; then its status is ours too. */
static int run_attached(struct ctl *c, struct run_options *o)
{
	json_object *params, *r;
	int peer[2], n, status, how = 0;
	struct stream s;
	struct err e;
	int64_t id;

	if (!o->name)
		o->name = run_name(o->made);
	params = start_params(o);
	n = stream_offer(&c->conn, params, &s, peer, &e);
	if (n < 0) {
		json_object_put(params);
		return ctl_fail(&e);
	}
	j_bool(params, "wait", true);
	id = conn_send(&c->conn, "vm.run", params, peer, (unsigned)n, &e);
	fd_close(&peer[0]);
	fd_close(&peer[1]);
	if (id >= 0)
		how = stream_console(&c->conn, &s, false);
	stream_close(&s);
	if (how < -HANG_UP || how == STREAM_LOST)
		return run_interrupted(c, o->name, id, how);
	if (how) {
		fprintf(stderr, "\r\ninsulactl: detached, the VM runs on\n");
		return detached(how);
	}
	r = id < 0 ? NULL : conn_wait(&c->conn, id, &e);
	status = r ? ctl_end_status(r) : ctl_fail(&e);
	json_object_put(r);
	return status;
}

/* The id alone for scripts, unless somebody wants everything. */
static int verbs_make(struct ctl *c, const char *method, struct run_options *o)
{
	struct err e;
	json_object *r = conn_call(&c->conn, method, start_params(o), &e);

	if (!r)
		return ctl_fail(&e);
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
		status = ctl_fail(&e);
	else if (o.help)
		status = help_of("run");
	else if (config_look(&o, &e))
		status = ctl_fail(&e);
	else if (o.detach)
		status = verbs_make(c, "vm.run", &o);
	else
		status = run_attached(c, &o);
	config_options_free(&o);
	return status;
}

static int verb_create(struct ctl *c, int argc, char **argv)
{
	struct run_options o = {.verb = "create"};
	struct err e;
	int status;

	if (config_flags(&o, argc, argv, &e))
		status = ctl_fail(&e);
	else if (o.help)
		status = help_of("create");
	else if (o.remove)
		status = ctl_fail((err_set(&e, -EINVAL, "create: --rm; expected run"), &e));
	else if (config_look(&o, &e))
		status = ctl_fail(&e);
	else
		status = verbs_make(c, "vm.create", &o);
	config_options_free(&o);
	return status;
}

static int verb_start(struct ctl *c, int argc, char **argv)
{
	return ctl_each(c, "vm.start", argc - 1, argv + 1, -1);
}

static int verb_exec(struct ctl *c, int argc, char **argv)
{
	struct err e;
	int status;

	return ctl_exec(c, argc, argv, &status, &e) ? ctl_fail(&e) : status;
}

/* ---- looking ---- */

static int verb_logs(struct ctl *c, int argc, char **argv)
{
	struct err e;

	(void)argc;
	return ctl_logs(c, argv[1], &e) ? ctl_fail(&e) : 0;
}

static int verb_events(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "events.subscribe",
				   argc > 1 ? ctl_with_id(argv[1]) : NULL, &e),
		    *o;

	if (!r)
		return ctl_fail(&e);
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
	return ctl_fail(&e);
}

static int verb_console(struct ctl *c, int argc, char **argv)
{
	json_object *params = ctl_with_id(argv[1]);
	struct stream s = {.errors = -1};
	struct err e;
	int how;

	(void)argc;
	j_int(params, "scrollback", 65536);
	s.fd = stream_attach(&c->conn, params, &e);
	if (s.fd < 0)
		return ctl_fail(&e);
	if (isatty(STDIN_FILENO))
		fprintf(stderr, "insulactl: Ctrl-] detaches\r\n");
	how = stream_console(&c->conn, &s, true);
	if (how == STREAM_LOST)
		print_message("", "standard output takes no more");
	else if (how)
		fprintf(stderr, "\r\ninsulactl: detached\n");
	stream_close(&s);
	return how == STREAM_LOST ? CTL_FAILED : detached(how);
}

static int verb_pause(struct ctl *c, int argc, char **argv)
{
	return ctl_each(c, "vm.pause", argc - 1, argv + 1, -1);
}

static int verb_resume(struct ctl *c, int argc, char **argv)
{
	return ctl_each(c, "vm.resume", argc - 1, argv + 1, -1);
}

static int verb_balloon(struct ctl *c, int argc, char **argv)
{
	json_object *params;
	uint64_t target = 0;
	struct err e;

	if (argc > 2 && (!parse_size(argv[2], &target) || target > INT64_MAX)) {
		err_set(&e, -EINVAL,
			"balloon: '%.40s'; expected the memory that the guest is left with, such "
			"as 256M",
			argv[2]);
		return ctl_fail(&e);
	}
	params = ctl_with_id(argv[1]);
	if (argc > 2)
		j_int(params, "target", (int64_t)target);
	return ctl_simple(c, "vm.balloon", params);
}

static int verb_resize(struct ctl *c, int argc, char **argv)
{
	json_object *params;
	struct err e;

	(void)argc;
	if (!c->mem && !c->cpus) {
		err_set(&e, -EINVAL,
			"resize: neither --mem nor --cpus; expected what the guest shall have");
		return ctl_fail(&e);
	}
	params = ctl_with_id(argv[1]);
	if (c->mem)
		j_int(params, "mem", c->mem);
	if (c->cpus)
		j_int(params, "cpus", c->cpus);
	return ctl_simple(c, "vm.resize", params);
}

static void j_path(json_object *o, const char *key, const char *path)
{
	char cwd[CTL_PATH_MAX], *text;

	wire_directory(cwd, sizeof(cwd));
	text = setting_absolute(setting_find("restore"), path, cwd);
	j_str(o, key, text ? text : path);
	free(text);
}

static int verb_snapshot(struct ctl *c, int argc, char **argv)
{
	json_object *params = ctl_with_id(argv[1]);

	(void)argc;
	j_path(params, "path", argv[2]);
	if (c->base)
		j_path(params, "base", c->base);
	j_str(params, "kind", c->base || c->diff ? "diff" : "full");
	j_bool(params, "keep_running", !c->ends);
	return ctl_simple(c, "vm.snapshot", params);
}

static int verb_clone(struct ctl *c, int argc, char **argv)
{
	json_object *params = ctl_with_id(argv[1]), *r, *vms;
	struct err e;

	(void)argc;
	if (c->count)
		j_int(params, "count", c->count);
	j_str(params, "name", c->name);
	r = conn_call(&c->conn, "vm.clone", params, &e);
	if (!r)
		return ctl_fail(&e);
	vms = j_get(r, "vms");
	if (print_is_table(c->json)) {
		for (size_t i = 0; i < json_object_array_length(vms); i++)
			puts(j_get_str(json_object_array_get_idx(vms, i), "id", ""));
	} else {
		ctl_print_answer(c, r);
	}
	json_object_put(r);
	return 0;
}

/* ---- anything ---- */

static int verb_rpc(struct ctl *c, int argc, char **argv)
{
	json_object *params = NULL, *r;
	const char *why = "";
	struct err e;

	if (argc > 2 && !(params = j_parse(argv[2], strlen(argv[2]), 32, &why))) {
		err_set(&e, -EINVAL, "parameters: %s; expected a JSON object", why);
		return ctl_fail(&e);
	}
	r = conn_call(&c->conn, argv[1], params, &e);
	if (!r)
		return ctl_fail(&e) == CTL_FAILED ? CTL_FAILED : CTL_REFUSED;
	print_json(r);
	json_object_put(r);
	return 0;
}

#define COMMON (FLAG_HELP | FLAG_JSON)
#define OF_RUN                                                                             \
	"The flags of a VM are those of insula-run (--kernel, --mem, --disk ...) and in\n" \
	"the words above; insula-run --help explains them."

const struct verb verbs[] = {
	{"run", NULL, "[-itd] [--rm] [flags] IMAGE|-- [command...]",
	 "start a VM, on these standard streams; exit with its status (-d: in the background; "
	 "prints its id)",
	 verb_run, 0, -1, 0, OF_RUN, config_words},
	{"create", NULL, "[flags] IMAGE|-- [command...]", "make a VM, start nothing; prints its id",
	 verb_create, 0, -1, 0, OF_RUN, config_words},
	{"start", NULL, "VM...", "start VMs that were created or have ended", verb_start, 1, -1,
	 COMMON, NULL, NULL},
	{"exec", NULL, "[-i] [-t] [-e NAME=VALUE] [-w DIR] [-u USER] VM [--] command...",
	 "run a command in a VM; exit with its status", verb_exec, 1, -1, 0, NULL, exec_words},
	{"cp", NULL, "[-L] VM:PATH PATH|-, or PATH|- VM:PATH",
	 "copy files out of a VM, or into it, by its tar (-: an archive on standard output or "
	 "input)",
	 verb_cp, 2, 2, FLAG_HELP | FLAG_LINKS, NULL, NULL},
	{"ps", "ls list", "[-a] [-q] [--filter KEY=VALUE]", "list VMs that run (-a: all)", verb_ps,
	 0, 0, COMMON | FLAG_ALL | FLAG_QUIET | FLAG_FILTER, NULL, NULL},
	{"info", "show", "[VM]", "state of one VM, or of the daemon", verb_info, 0, 1, COMMON, NULL,
	 NULL},
	{"inspect", NULL, "VM...", "all that is known of VMs, as a JSON array", verb_inspect, 1, -1,
	 FLAG_HELP, NULL, NULL},
	{"top", NULL, "VM [argument of ps...]", "the processes in a VM, as its ps has them",
	 verb_top, 1, -1, 0, NULL, NULL},
	{"stats", NULL, "[--no-stream] [VM...]",
	 "processor, memory, disks and networks of VMs, again every second", verb_stats, 0, -1,
	 COMMON | FLAG_ONCE, NULL, NULL},
	{"console", "attach", "VM",
	 "attach to the console; Ctrl-], or the end of an input that is no terminal, detaches",
	 verb_console, 1, 1, COMMON, NULL, NULL},
	{"logs", "log", "[-f] [--tail N] [--since TIME] [--timestamps] VM",
	 "output of its console, its command and its processes", verb_logs, 1, 1,
	 COMMON | FLAG_FOLLOW | FLAG_TAIL | FLAG_SINCE | FLAG_TIMESTAMPS, NULL, NULL},
	{"pause", NULL, "VM...", "stop the processors of VMs", verb_pause, 1, -1, COMMON, NULL,
	 NULL},
	{"resume", "unpause", "[--set-clock] VM...", "let the processors of VMs go on", verb_resume,
	 1, -1, COMMON | FLAG_CLOCK, NULL, NULL},
	{"snapshot", NULL, "[--base DIR|--diff] [--stop] VM DIR",
	 "write a VM, as it is now, into a new directory; run --restore DIR goes on from it",
	 verb_snapshot, 2, 2, COMMON | FLAG_BUILDS_ON | FLAG_DIFF | FLAG_ENDS, NULL, NULL},
	{"clone", NULL, "[-n COUNT] [--name NAME] VM",
	 "VMs that go on from where this one is now; prints their ids", verb_clone, 1, 1,
	 COMMON | FLAG_COUNT | FLAG_NAME, NULL, NULL},
	{"pool", "pools", "create NAME [-n N] --restore DIR|ls|info NAME|rm NAME...",
	 "keep VMs that go on from a snapshot ready, for run --pool; list pools, forget them",
	 verb_pool, 1, -1, 0, OF_RUN, config_words},
	{"stop", NULL, "[-t SECONDS] VM...", "ask guests to power off, then end VMs", verb_stop, 1,
	 -1, COMMON | FLAG_TIMEOUT, NULL, NULL},
	{"kill", NULL, "VM...", "end VMs at once, without asking the guests", verb_kill, 1, -1,
	 COMMON, NULL, NULL},
	{"balloon", NULL, "VM [SIZE]",
	 "leave a guest so much memory; what it has, and its statistics", verb_balloon, 1, 2,
	 COMMON, NULL, NULL},
	{"resize", NULL, "[--mem SIZE] [--cpus N] VM",
	 "give a guest more while it runs, or take it back; what it has then", verb_resize, 1, 1,
	 COMMON | FLAG_MEM | FLAG_CPUS, NULL, NULL},
	{"device", "devices", "add VM KIND=VALUE|rm VM DEVICE...|ls VM|restart VM DEVICE",
	 "give a VM that runs a device more, in a slot of --hotplug, and take it back; list them; "
	 "restart a device's process, also one that has failed. KIND=VALUE is disk=FILE[,...], "
	 "net=..., share=DIR:GUESTDIR[...] or device=..., as the flags of run have it",
	 verb_device, 2, -1, COMMON | FLAG_PULLS | FLAG_GIVES | FLAG_CALLED, NULL, NULL},
	{"metadata", NULL, "get VM|set VM FILE|patch VM FILE",
	 "what a guest is told at http://169.254.169.254, as JSON: print it, replace it, or change "
	 "it by a merge patch (RFC 7396)",
	 verb_metadata, 2, 3, COMMON, NULL, NULL},
	{"policy", NULL, "VM DEVICE off|deny|allow=...|serve=...|from=... ...",
	 "what a guest may send by a card from now on, and nothing else: as the items of --net "
	 "have "
	 "it; off: what it likes",
	 verb_policy, 3, -1, COMMON, NULL, NULL},
	{"limit", "limits", "VM DEVICE rate=BYTES|pps=N|iops=N ...",
	 "how much a card carries in each direction from now on, or a disk reads and writes, a "
	 "second; 0: no limit",
	 verb_limit, 3, 4, COMMON, NULL, NULL},
	{"wait", NULL, "VM", "wait until a VM ends; exit with its status", verb_wait, 1, 1, COMMON,
	 NULL, NULL},
	{"rm", "delete remove", "[-f] VM...",
	 "delete VMs that do not run (-f: end the others first)", verb_rm, 1, -1,
	 COMMON | FLAG_FORCE | FLAG_TIMEOUT, NULL, NULL},
	{"prune", NULL, "[-f]", "delete all your VMs that have ended", verb_prune, 0, 0,
	 COMMON | FLAG_YES, NULL, NULL},
	{"image", "images", "ls | rm IMAGE... | prune [-a]",
	 "list and remove images of the cache: by reference or digest; prune: what none needs, and "
	 "what is above its limit (-a: all that no VM uses)",
	 ctl_image, 1, -1, COMMON | FLAG_ALL | FLAG_ALONE, NULL, NULL},
	{"module", "modules", "ls",
	 "list the storage modules (--disk MODULE:TARGET) and their settings", ctl_module, 1, 1,
	 COMMON | FLAG_ALONE, NULL, NULL},
	{"metrics", NULL, "[VM]", "counters of one VM, or of the daemon", verb_metrics, 0, 1,
	 COMMON, NULL, NULL},
	{"events", NULL, "[VM]", "print events as they come", verb_events, 0, 1, COMMON, NULL,
	 NULL},
	{"rpc", "call", "METHOD [PARAMS]", "call any method, with a JSON object", verb_rpc, 1, 2,
	 COMMON, NULL, NULL},
};
const size_t nverbs = ARRAY_LEN(verbs);
