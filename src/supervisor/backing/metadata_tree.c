/* SPDX-License-Identifier: BSD-2-Clause */
/* The tree of the metadata service. See metadata.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/metadata.h>

#include "metadata.h"
#include "spec/json.h"

#define AS_TEXT (JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)

_Static_assert(METADATA_TREE_DEPTH < METADATA_DEPTH, "what is parsed can be served");

const char *metadata_text(json_object *tree)
{
	return json_object_to_json_string_ext(tree, AS_TEXT);
}

/* A name is a part of a path, and a line of a list. */
static bool good_name(const char *name)
{
	for (const char *p = name; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 127 || *p == '/')
			return false;
	}
	return *name;
}

static int check_names(json_object *o, struct err *e)
{
	int rc = 0;

	if (!json_object_is_type(o, json_type_object))
		return 0;
	json_object_object_foreach(o, name, value)
	{
		if (!good_name(name))
			return err_set(e, -EINVAL,
				       "metadata: the name '%.60s'; expected some characters, "
				       "without a slash or control characters",
				       name);
		rc = rc ? rc : check_names(value, e);
	}
	return rc;
}

static int depth_of(json_object *o)
{
	int most = 0;

	if (json_object_is_type(o, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(o); i++) {
			int d = depth_of(json_object_array_get_idx(o, i));

			most = d > most ? d : most;
		}
		return most + 1;
	}
	if (!json_object_is_type(o, json_type_object))
		return 0;
	json_object_object_foreach(o, name, value)
	{
		int d = depth_of(value);

		(void)name;
		most = d > most ? d : most;
	}
	return most + 1;
}

int metadata_check(json_object *tree, struct err *e)
{
	size_t len;

	if (!json_object_is_type(tree, json_type_object))
		return err_set(e, -EINVAL, "metadata: expected an object of JSON");
	if (depth_of(tree) > METADATA_TREE_DEPTH)
		return err_set(e, -EINVAL, "metadata: expected objects at most %d deep",
			       METADATA_TREE_DEPTH);
	len = strlen(metadata_text(tree));
	if (len > METADATA_JSON_MAX)
		return err_set(e, -EINVAL, "metadata: %zu bytes as JSON; expected at most %u", len,
			       METADATA_JSON_MAX);
	return check_names(tree, e);
}

json_object *metadata_parse(const char *text, size_t len, struct err *e)
{
	const char *why = "";
	/* One more: what is just too deep gets a line of its own. */
	json_object *o = j_parse(text, len, METADATA_TREE_DEPTH + 2, &why);

	if (!o) {
		err_set(e, -EINVAL, "metadata: %s; expected an object of JSON", why);
		return NULL;
	}
	if (!metadata_check(o, e))
		return o;
	json_object_put(o);
	return NULL;
}

json_object *metadata_merge(json_object *tree, json_object *patch)
{
	json_object *out = NULL;

	if (!json_object_is_type(patch, json_type_object)) {
		(void)json_object_deep_copy(patch, &out, NULL);
		return out;
	}
	if (!json_object_is_type(tree, json_type_object))
		out = json_object_new_object();
	else if (json_object_deep_copy(tree, &out, NULL))
		return NULL;
	json_object_object_foreach(patch, name, value)
	{
		if (!value)
			json_object_object_del(out, name);
		else
			j_obj(out, name, metadata_merge(j_get(out, name), value));
	}
	return out;
}

/* ---- flat ---- */

/* Nodes and text in the making. There is room for what metadata_check() has let through: a byte of
 * JSON is at most one node, and one byte of text beside itself. */
struct flat {
	struct metadata_node *node;
	uint32_t nodes;
	char *text;
	uint32_t json; /* bytes of it */
	char *own;     /* names and strings, until the JSON is complete */
	uint32_t owns;
};

static struct metadata_piece put_json(struct flat *f, const char *s, size_t n)
{
	struct metadata_piece p = {f->json, (uint32_t)n};

	memcpy(f->text + f->json, s, n);
	f->json += (uint32_t)n;
	return p;
}

/* Its place is counted from the end of the JSON, until that is known. */
static struct metadata_piece put_own(struct flat *f, const char *s, size_t n)
{
	struct metadata_piece p = {f->owns, (uint32_t)n};

	memcpy(f->own + f->owns, s, n);
	f->owns += (uint32_t)n;
	return p;
}

static uint32_t flat_node(struct flat *f, json_object *o);

static void flat_members(struct flat *f, json_object *o)
{
	bool first = true;

	put_json(f, "{", 1);
	json_object_object_foreach(o, name, value)
	{
		json_object *quoted = json_object_new_string(name);
		const char *text = metadata_text(quoted);
		struct metadata_piece own = put_own(f, name, strlen(name));

		if (!first)
			put_json(f, ",", 1);
		first = false;
		put_json(f, text, strlen(text));
		put_json(f, ":", 1);
		json_object_put(quoted);
		f->node[flat_node(f, value)].name = own;
	}
	put_json(f, "}", 1);
}

/* Its index. */
static uint32_t flat_node(struct flat *f, json_object *o)
{
	uint32_t i = f->nodes++, at = f->json;
	struct metadata_node *n = &f->node[i];

	*n = (struct metadata_node){.kind = METADATA_OTHER};
	if (json_object_is_type(o, json_type_object)) {
		n->kind = METADATA_OBJECT;
		flat_members(f, o);
	} else {
		const char *text = metadata_text(o);

		put_json(f, text, strlen(text));
	}
	if (json_object_is_type(o, json_type_string)) {
		n->kind = METADATA_STRING;
		n->text = put_own(f, json_object_get_string(o),
				  (size_t)json_object_get_string_len(o));
	}
	n->json = (struct metadata_piece){at, f->json - at};
	n->next = f->nodes;
	return i;
}

static void join(struct flat *f, void **blob, size_t *len)
{
	struct metadata_head h = {
		.magic = METADATA_MAGIC, .nodes = f->nodes, .bytes = f->json + f->owns};
	size_t nodes = f->nodes * sizeof(*f->node);
	char *out;

	for (uint32_t i = 0; i < f->nodes; i++) {
		f->node[i].name.off += f->json;
		f->node[i].text.off += f->json;
	}
	*len = sizeof(h) + nodes + h.bytes;
	*blob = out = malloc(*len);
	if (!out)
		return;
	memcpy(out, &h, sizeof(h));
	memcpy(out + sizeof(h), f->node, nodes);
	memcpy(out + sizeof(h) + nodes, f->text, f->json);
	memcpy(out + sizeof(h) + nodes + f->json, f->own, f->owns);
}

int metadata_flatten(json_object *tree, void **blob, size_t *len, struct err *e)
{
	size_t room = strlen(metadata_text(tree)) + 1;
	struct flat f = {
		.node = calloc(room, sizeof(*f.node)), .text = malloc(room), .own = malloc(room)};
	int rc = 0;

	*blob = NULL;
	if (f.node && f.text && f.own) {
		(void)flat_node(&f, tree);
		join(&f, blob, len);
	}
	if (!*blob)
		rc = err_set(e, -ENOMEM, "out of memory");
	else if (*len > METADATA_BLOB_MAX)
		rc = err_set(e, -EINVAL, "metadata: too many members; expected fewer");
	free(f.node);
	free(f.text);
	free(f.own);
	return rc;
}
