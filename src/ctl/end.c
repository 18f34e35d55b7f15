/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs that end VMs, wait for their end and delete them. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

#define STOP_SECONDS 10

static int64_t stop_ms(const struct ctl *c)
{
	return (c->timeout < 0 ? STOP_SECONDS : c->timeout) * 1000;
}

int verb_stop(struct ctl *c, int argc, char **argv)
{
	return ctl_each(c, "vm.stop", argc - 1, argv + 1, stop_ms(c));
}

int verb_kill(struct ctl *c, int argc, char **argv)
{
	return ctl_each(c, "vm.kill", argc - 1, argv + 1, -1);
}

/* Ended, and deleted; one that is deleted when it ends may have gone by then. */
static int remove_running(struct ctl *c, const char *vm, struct err *e)
{
	json_object *params = ctl_with_id(vm), *r;
	bool stop = c->timeout >= 0;

	if (stop)
		j_int(params, "deadline_ms", stop_ms(c));
	r = conn_call(&c->conn, stop ? "vm.stop" : "vm.kill", params, e);
	if (!r && e->code != -CONN_WRONG_STATE && e->code != -CONN_NOT_FOUND)
		return e->code;
	json_object_put(r);
	r = conn_call(&c->conn, "vm.delete", ctl_with_id(vm), e);
	json_object_put(r);
	return r || e->code == -CONN_NOT_FOUND ? 0 : e->code;
}

int verb_rm(struct ctl *c, int argc, char **argv)
{
	int status = 0;

	if (!c->force)
		return ctl_each(c, "vm.delete", argc - 1, argv + 1, -1);
	for (int i = 1; i < argc; i++) {
		struct err e;
		json_object *r = conn_call(&c->conn, "vm.delete", ctl_with_id(argv[i]), &e);
		int rc = r ? 0 : e.code;

		json_object_put(r);
		if (rc == -CONN_WRONG_STATE)
			rc = remove_running(c, argv[i], &e);
		if (rc)
			status = ctl_fail_of(&e, argv[i], argc > 2);
		else if (c->json)
			puts("{}");
		else if (print_is_table(false))
			puts(argv[i]);
	}
	return status;
}

int verb_wait(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.wait", ctl_with_id(argv[1]), &e);
	int status;

	(void)argc;
	if (!r)
		return ctl_fail(&e);
	if (!print_is_table(c->json))
		print_json(r);
	status = ctl_end_status(r);
	json_object_put(r);
	return status;
}

/* ---- prune ---- */

/* Those of the client alone: root sees everybody's. NULL: an error. */
static json_object *ended_list(struct ctl *c, struct err *e)
{
	json_object *info = conn_call(&c->conn, "daemon.info", NULL, e), *r, *all, *list;
	int64_t uid = j_get_int(info, "uid", -1);

	if (!info)
		return NULL;
	json_object_put(info);
	r = conn_call(&c->conn, "vm.list", NULL, e);
	if (!r)
		return NULL;
	all = j_get(r, "vms");
	list = json_object_new_array();
	for (size_t i = 0; all && i < json_object_array_length(all); i++) {
		json_object *vm = json_object_array_get_idx(all, i);

		if (!strcmp(j_get_str(vm, "state", ""), "ended") && j_get_int(vm, "uid", -2) == uid)
			json_object_array_add(list, json_object_get(vm));
	}
	json_object_put(r);
	return list;
}

static bool may_prune(const struct ctl *c, size_t n)
{
	char question[80];

	if (c->force || !n || !isatty(STDIN_FILENO))
		return true;
	snprintf(question, sizeof(question), "Delete %zu VM%s that ha%s ended, with the logs?", n,
		 n == 1 ? "" : "s", n == 1 ? "s" : "ve");
	return print_ask(question);
}

/* One that somebody has deleted, or started again, meanwhile is none of ours. */
static int prune_one(struct ctl *c, json_object *vm, json_object *removed)
{
	const char *id = j_get_str(vm, "id", "");
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.delete", ctl_with_id(id), &e);

	if (r) {
		json_object_put(r);
		json_object_array_add(removed, json_object_new_string(id));
		if (print_is_table(c->json))
			printf("%s  %s\n", id, j_get_str(vm, "name", ""));
		return 0;
	}
	return e.code == -CONN_NOT_FOUND || e.code == -CONN_WRONG_STATE ? 0
									: ctl_fail_of(&e, id, true);
}

int verb_prune(struct ctl *c, int argc, char **argv)
{
	json_object *list, *removed, *o;
	int status = 0, rc;
	struct err e;

	(void)argc;
	(void)argv;
	list = ended_list(c, &e);
	if (!list)
		return ctl_fail(&e);
	if (!may_prune(c, json_object_array_length(list))) {
		json_object_put(list);
		return CTL_REFUSED;
	}
	removed = json_object_new_array();
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		rc = prune_one(c, json_object_array_get_idx(list, i), removed);
		status = rc ? rc : status;
	}
	o = json_object_new_object();
	j_obj(o, "removed", removed);
	if (!print_is_table(c->json))
		print_json(o);
	json_object_put(o);
	json_object_put(list);
	return status;
}
