/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs that look at VMs. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

/* ---- ps ---- */

/* "state" or "status", for a VM's state has both names. */
static bool filter_fits(json_object *vm, const char *filter)
{
	const char *value = strchr(filter, '=') + 1;

	if (filter[0] == 'n')
		return strstr(j_get_str(vm, "name", ""), value) != NULL;
	if (filter[0] == 'i')
		return !strncmp(j_get_str(vm, "id", ""), value, strlen(value));
	return !strcmp(j_get_str(vm, "state", ""), value);
}

static bool is_at_rest(json_object *vm)
{
	const char *state = j_get_str(vm, "state", "");

	return !strcmp(state, "created") || !strcmp(state, "ended");
}

/* Whoever asks for a state means it: -a is not needed for that. */
static bool ps_shows(const struct ctl *c, json_object *vm)
{
	size_t n = c->filters ? json_object_array_length(c->filters) : 0;
	bool all = c->all;

	for (size_t i = 0; i < n; i++) {
		const char *f = json_object_get_string(json_object_array_get_idx(c->filters, i));

		if (!filter_fits(vm, f))
			return false;
		all |= f[0] == 's';
	}
	return all || !is_at_rest(vm);
}

static json_object *ps_list(const struct ctl *c, json_object *all)
{
	json_object *list = json_object_new_array();

	for (size_t i = 0; all && i < json_object_array_length(all); i++) {
		json_object *vm = json_object_array_get_idx(all, i);

		if (ps_shows(c, vm))
			json_object_array_add(list, json_object_get(vm));
	}
	return list;
}

static void print_ids(json_object *list)
{
	for (size_t i = 0; i < json_object_array_length(list); i++)
		puts(j_get_str(json_object_array_get_idx(list, i), "id", ""));
}

int verb_ps(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.list", NULL, &e), *list;

	(void)argc;
	(void)argv;
	if (!r)
		return ctl_fail(&e);
	list = ps_list(c, j_get(r, "vms"));
	if (c->quiet) {
		print_ids(list);
		json_object_put(list);
	} else if (print_is_table(c->json)) {
		print_vms(list);
		json_object_put(list);
	} else {
		j_obj(r, "vms", list);
		print_json(r);
	}
	json_object_put(r);
	return 0;
}

/* ---- one or several VMs ---- */

int verb_info(struct ctl *c, int argc, char **argv)
{
	return argc > 1 ? ctl_simple(c, "vm.info", ctl_with_id(argv[1]))
			: ctl_simple(c, "daemon.info", NULL);
}

int verb_metrics(struct ctl *c, int argc, char **argv)
{
	return argc > 1 ? ctl_simple(c, "vm.metrics", ctl_with_id(argv[1]))
			: ctl_simple(c, "daemon.metrics", NULL);
}

/* What there is is printed, also if others are not there. */
int verb_inspect(struct ctl *c, int argc, char **argv)
{
	json_object *list = json_object_new_array();
	int status = 0;

	for (int i = 1; i < argc; i++) {
		struct err e;
		json_object *r = conn_call(&c->conn, "vm.info", ctl_with_id(argv[i]), &e);

		if (r)
			json_object_array_add(list, r);
		else
			status = ctl_fail_of(&e, argv[i], argc > 2);
	}
	print_pretty(list);
	json_object_put(list);
	return status;
}

/* ---- in the guest ---- */

/* "exec VM -- ps ...", on our own streams. */
int verb_top(struct ctl *c, int argc, char **argv)
{
	static const char *const words[] = {"exec", NULL, "--", "ps"};
	char **args = calloc((size_t)argc + ARRAY_LEN(words), sizeof(*args));
	struct err e;
	int n = 0, status, rc;

	if (!args)
		panic("out of memory");
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		args[n++] = words[i] ? (char *)(uintptr_t)words[i] : argv[1];
	for (int i = 2; i < argc; i++)
		args[n++] = argv[i];
	rc = ctl_exec(c, n, args, &status, &e);
	free(args);
	return rc ? ctl_fail(&e) : status;
}
