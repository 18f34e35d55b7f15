/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl stats: what VMs use, as vm.stats says, and from two of its answers the share of a
 * processor. The first round is not shown: there is nothing to compare it with, and the counters of
 * devices come with the second. See ctl.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "exec.h"
#include "spec/json.h"

#define ROUND_MS 1000

struct usage_round {
	json_object *of; /* {id: answer}, owned */
	int status;
};

/* `before` is an answer about the same start of the same VM, or NULL. */
static void add_percent(json_object *now, json_object *before)
{
	int64_t cpu = j_get_int(now, "cpu_ns", 0) - j_get_int(before, "cpu_ns", 0);
	int64_t ns = j_get_int(now, "time_ns", 0) - j_get_int(before, "time_ns", 0);

	double percent = ns > 0 ? 100.0 * (double)cpu / (double)ns : -1;
	char text[32];

	if (!before || percent < 0)
		return;
	snprintf(text, sizeof(text), "%.1f", percent); /* not its 17 digits */
	j_obj(now, "cpu_percent", json_object_new_double_s(percent, text));
}

/* Of those that run; a VM that was named and does not is an error, another one has just ended. */
static void ask_one(struct ctl *c, const char *vm, bool named, bool several,
		    struct usage_round *now)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.stats", ctl_with_id(vm), &e);

	if (r)
		j_obj(now->of, j_get_str(r, "id", ""), r);
	else if (named || (e.code != -CONN_NOT_FOUND && e.code != -CONN_WRONG_STATE))
		now->status = ctl_fail_of(&e, vm, several);
}

static void ask_all(struct ctl *c, struct usage_round *now)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.list", NULL, &e), *list = j_get(r, "vms");

	if (!r)
		now->status = ctl_fail(&e);
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		json_object *vm = json_object_array_get_idx(list, i);
		const char *state = j_get_str(vm, "state", "");

		if (!strcmp(state, "running") || !strcmp(state, "paused"))
			ask_one(c, j_get_str(vm, "id", ""), false, true, now);
	}
	json_object_put(r);
}

static struct usage_round ask_round(struct ctl *c, int argc, char **argv)
{
	struct usage_round now = {.of = json_object_new_object()};

	for (int i = 1; i < argc; i++)
		ask_one(c, argv[i], true, argc > 2, &now);
	if (argc == 1)
		ask_all(c, &now);
	return now;
}

static void show_round(struct ctl *c, json_object *now, json_object *before)
{
	json_object *list = json_object_new_array(), *o;

	json_object_object_foreach(now, id, vm)
	{
		add_percent(vm, j_get(before, id));
		json_object_array_add(list, json_object_get(vm));
	}
	if (print_is_table(c->json)) {
		if (!c->once)
			fputs("\033[H\033[J", stdout); /* a table in the place of the last one */
		print_stats(list);
		json_object_put(list);
	} else {
		o = json_object_new_object();
		j_obj(o, "vms", list);
		print_json(o);
		json_object_put(o);
	}
	fflush(stdout);
}

int verb_stats(struct ctl *c, int argc, char **argv)
{
	struct usage_round before = ask_round(c, argc, argv), now;
	int status = before.status;

	while (!status) {
		exec_os_sleep(ROUND_MS);
		now = ask_round(c, argc, argv);
		status = now.status;
		if (!status || json_object_object_length(now.of))
			show_round(c, now.of, before.of);
		json_object_put(before.of);
		before = now;
		if (c->once || ferror(stdout))
			break;
	}
	json_object_put(before.of);
	return status;
}
