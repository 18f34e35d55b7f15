/* SPDX-License-Identifier: BSD-2-Clause */
/* The verb for the metadata of a VM that runs. See ctl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

#define JSON_MAX (1u << 20)
#define DEPTH 16

static json_object *read_tree(const char *path, struct err *e)
{
	const char *why = "";
	json_object *o;
	char *text;
	size_t len;
	int rc = text_read(path, true, JSON_MAX, &text, &len);

	if (rc) {
		err_set(e, -EINVAL, "metadata: %s: %s", path, strerror(-rc));
		return NULL;
	}
	o = j_parse(text, len, DEPTH, &why);
	if (!o)
		err_set(e, -EINVAL, "metadata: %s: %s", path, why);
	free(text);
	return o;
}

static int call(struct ctl *c, const char *method, const char *vm, json_object *tree)
{
	json_object *params = ctl_with_id(vm), *r;
	struct err e;

	if (tree)
		j_obj(params, "metadata", tree);
	r = conn_call(&c->conn, method, params, &e);
	if (!r)
		return ctl_fail(&e);
	if (!tree || c->json)
		print_json(j_get(r, "metadata"));
	json_object_put(r);
	return 0;
}

int verb_metadata(struct ctl *c, int argc, char **argv)
{
	static const struct {
		const char *name, *method, *form;
		int args;
	} words[] = {
		{"get", "vm.metadata.get", "VM", 1},
		{"set", "vm.metadata.set", "VM FILE", 2},
		{"patch", "vm.metadata.patch", "VM FILE", 2},
	};
	json_object *tree = NULL;
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(words[i].name, argv[1]) != 0)
			continue;
		if (argc - 2 != words[i].args) {
			err_set(&e, -EINVAL, "metadata %s: %d argument%s; expected %s", argv[1],
				argc - 2, argc == 3 ? "" : "s", words[i].form);
			return ctl_fail(&e);
		}
		if (words[i].args > 1 && !(tree = read_tree(argv[3], &e)))
			return ctl_fail(&e);
		return call(c, words[i].method, argv[2], tree);
	}
	err_set(&e, -EINVAL, "metadata: '%.40s'; expected get, set or patch", argv[1]);
	return ctl_fail(&e);
}
