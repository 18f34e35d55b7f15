/* SPDX-License-Identifier: BSD-2-Clause */
/* insulactl pool: VMs that are kept ready. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

static json_object *pool_params(const char *name)
{
	json_object *o = json_object_new_object();

	j_str(o, "name", name);
	return o;
}

/* As `create`: the name first, then flags of a VM. */
static int create_pool(struct ctl *c, int argc, char **argv)
{
	struct run_options o = {.verb = "pool"};
	const char *name = argc > 2 && argv[2][0] != '-' ? argv[2] : NULL;
	json_object *params;
	struct err e;
	int status = 0, from = name ? 2 : 1;

	if (config_flags(&o, argc - from, argv + from, &e)) {
		status = ctl_fail(&e);
	} else if (o.help) {
		verb_help(verb_find("pool"));
	} else if (!name) {
		err_set(&e, -EINVAL, "pool create: no name; expected NAME behind it");
		status = ctl_fail(&e);
	} else if (config_look(&o, &e)) {
		status = ctl_fail(&e);
	} else {
		params = pool_params(name);
		j_obj(params, "config", json_object_get(o.config));
		if (o.count)
			j_int(params, "count", o.count);
		status = ctl_simple(c, "pool.create", params);
	}
	config_options_free(&o);
	return status;
}

static int list_pools(struct ctl *c)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "pool.list", NULL, &e);

	if (!r)
		return ctl_fail(&e);
	if (print_is_table(c->json))
		print_pools(j_get(r, "pools"));
	else
		print_json(r);
	json_object_put(r);
	return 0;
}

int verb_pool(struct ctl *c, int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct err e;

	if (!strcmp(what, "create"))
		return create_pool(c, argc, argv);
	if (!strcmp(what, "-h") || !strcmp(what, "--help")) {
		verb_help(verb_find("pool"));
		return 0;
	}
	if (!strcmp(what, "ls") && argc == 2)
		return list_pools(c);
	if (!strcmp(what, "info") && argc == 3)
		return ctl_simple(c, "pool.info", pool_params(argv[2]));
	if (!strcmp(what, "rm") && argc > 2)
		return ctl_each_of(c, "pool.remove", "name", argc - 2, argv + 2, -1);
	err_set(&e, -EINVAL,
		"pool: '%.40s'; expected create NAME --restore DIR, ls, info NAME or rm NAME...",
		what);
	return ctl_fail(&e);
}
