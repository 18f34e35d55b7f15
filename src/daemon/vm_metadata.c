/* SPDX-License-Identifier: BSD-2-Clause */
/* vm.metadata.*: the tree is its supervisor's, which checks what becomes of it. */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/metadata.h>

#include "daemon.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "request.h"
#include "spec/json.h"
#include "talk.h"

#define DEPTH 14 /* of what a supervisor serves, and more */

/* It comes as a text. */
static void answer_metadata(struct machine *m, struct request *r, json_object *result,
			    json_object *error, int fd)
{
	const char *text = j_get_str(result, "text", ""), *why;
	json_object *o, *tree;

	(void)m;
	(void)fd;
	if (error) {
		method_refuse_as(r, error);
		return;
	}
	tree = j_parse(text, strlen(text), DEPTH, &why);
	if (!json_object_is_type(tree, json_type_object)) {
		json_object_put(tree);
		method_refuse(r, RPC_FAILED, "failed", "its supervisor answers what is no JSON");
		return;
	}
	o = json_object_new_object();
	j_obj(o, "metadata", tree);
	request_answer(r, o);
}

/* False: refused. A larger one would not fit the message to the supervisor. */
static bool fits(struct request *r, json_object *tree)
{
	size_t len = strlen(json_object_to_json_string_ext(
		tree, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	char value[32], most[48];

	if (len <= METADATA_JSON_MAX)
		return true;
	snprintf(value, sizeof(value), "%zu bytes", len);
	snprintf(most, sizeof(most), "at most %u bytes of JSON", METADATA_JSON_MAX);
	method_refuse_field(r, RPC_BAD_PARAMS, "value", "metadata", value, most);
	return false;
}

static void metadata_ask(struct daemon *d, struct request *r, bool patch)
{
	struct machine *m = method_machine(d, r);
	json_object *tree = j_get(r->params, "metadata"), *params;

	if (!m || (tree && !fits(r, tree)))
		return;
	params = json_object_new_object();
	if (tree)
		j_obj(params, "metadata", json_object_get(tree));
	if (patch)
		j_bool(params, "patch", true);
	talk_ask(m, "metadata", params, answer_metadata, r, false);
}

void method_vm_metadata_get(struct daemon *d, struct request *r)
{
	metadata_ask(d, r, false);
}

void method_vm_metadata_set(struct daemon *d, struct request *r)
{
	metadata_ask(d, r, false);
}

void method_vm_metadata_patch(struct daemon *d, struct request *r)
{
	metadata_ask(d, r, true);
}
