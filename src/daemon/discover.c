/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of methods as schemas, as an OpenRPC document, and as docs/control-api.md. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discover.h"
#include "methods.h"
#include "request.h"
#include "spec/json.h"
#include "schema.h"
#include "spec/describe.h"

static json_object *load(const char *method, const char *text, struct err *e)
{
	const char *why = "";
	json_object *o = j_parse(text, strlen(text), RPC_DEPTH, &why);
	struct problem p;

	if (!o)
		err_set(e, -EINVAL, "schema of %s: %s", method, why);
	else if (schema_check(o, &p))
		err_set(e, -EINVAL, "schema of %s: %s: expected %s", method, p.field, p.expected);
	else
		return o;
	json_object_put(o);
	return NULL;
}

int schemas_load(struct schemas *s, struct err *e)
{
	*s = (struct schemas){.params = calloc(nmethods, sizeof(json_object *)),
			      .result = calloc(nmethods, sizeof(json_object *))};
	if (!s->params || !s->result) {
		schemas_free(s);
		return err_set(e, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < nmethods; i++) {
		s->params[i] = load(methods[i].name, methods[i].params, e);
		s->result[i] = load(methods[i].name, methods[i].result, e);
		if (!s->params[i] || !s->result[i]) {
			schemas_free(s);
			return -EINVAL;
		}
	}
	return 0;
}

void schemas_free(struct schemas *s)
{
	for (size_t i = 0; i < nmethods; i++) {
		if (s->params)
			json_object_put(s->params[i]);
		if (s->result)
			json_object_put(s->result[i]);
	}
	free(s->params);
	free(s->result);
	*s = (struct schemas){0};
}

/* OpenRPC 1.2.6, content descriptors: one per parameter. */
static json_object *params_of(json_object *schema)
{
	json_object *list = json_object_new_array(), *required = j_get(schema, "required");

	json_object_object_foreach(j_get(schema, "properties"), name, v)
	{
		json_object *o = json_object_new_object();
		bool must = false;

		for (size_t i = 0; i < json_object_array_length(required); i++)
			must |= !strcmp(name, json_object_get_string(
						      json_object_array_get_idx(required, i)));
		j_str(o, "name", name);
		j_bool(o, "required", must);
		j_obj(o, "schema", json_object_get(v));
		json_object_array_add(list, o);
	}
	return list;
}

/* Each of `parts` becomes what an element of the configuration's array of them is. */
static void part_schemas(json_object *parts)
{
	json_object *whole = settings_schema(), *all = j_get(whole, "properties");
	char key[32];

	json_object_object_foreach(parts, name, part)
	{
		json_object *element;

		(void)part;
		snprintf(key, sizeof(key), "%ss", name);
		element = j_get(j_get(all, key), "items");
		if (element)
			j_obj(parts, name, json_object_get(element));
	}
	json_object_put(whole);
}

/* A schema of the table, with that of a configuration, or of its parts, in the place of "an
 * object": what a request has there is checked by config_json() or config_plug(), which know more
 * and say it better. The caller's. */
static json_object *whole_schema(const char *text)
{
	json_object *o = json_tokener_parse(text), *members = j_get(o, "properties");
	json_object *config = j_get(members, "config");

	if (j_get(config, "properties"))
		part_schemas(j_get(config, "properties"));
	else if (config)
		j_obj(members, "config", settings_schema());
	return o;
}

static json_object *one_method(const struct method *m)
{
	json_object *o = json_object_new_object(), *result = json_object_new_object();
	json_object *params = whole_schema(m->params);

	j_str(o, "name", m->name);
	j_str(o, "summary", m->summary);
	j_str(o, "paramStructure", "by-name");
	j_obj(o, "params", params_of(params));
	j_str(result, "name", "result");
	j_obj(result, "schema", whole_schema(m->result));
	j_obj(o, "result", result);
	json_object_put(params);
	return o;
}

json_object *discover_document(void)
{
	json_object *o = json_object_new_object(), *info = json_object_new_object();
	json_object *list = json_object_new_array();

	j_str(o, "openrpc", "1.2.6");
	j_str(info, "title", "insulad");
	j_str(info, "version", INSULA_VERSION);
	j_obj(o, "info", info);
	for (size_t i = 0; i < nmethods; i++)
		json_object_array_add(list, one_method(&methods[i]));
	j_obj(o, "methods", list);
	return o;
}

/* ---- for people ---- */

#define MANY 6 /* members that are worth a reference */

/* Does `all` have every member of `some`? */
static bool has_members(json_object *all, json_object *some)
{
	json_object_object_foreach(some, name, v)
	{
		if (!json_object_equal(v, j_get(all, name)))
			return false;
	}
	return true;
}

/* The first method before number `n` whose long list of answers is part of that one's: its answers,
 * the caller's, and its name; NULL. */
static json_object *answers_before(size_t n, json_object *answers, const char **name)
{
	for (size_t i = 0; i < n; i++) {
		json_object *result = json_tokener_parse(methods[i].result);
		json_object *o = json_object_get(j_get(result, "properties"));

		json_object_put(result);
		if (json_object_object_length(o) >= MANY && has_members(answers, o)) {
			*name = methods[i].name;
			return o;
		}
		json_object_put(o);
	}
	return NULL;
}

static bool is_required(json_object *schema, const char *name)
{
	json_object *required = j_get(schema, "required");

	for (size_t i = 0; i < json_object_array_length(required); i++) {
		if (!strcmp(name, json_object_get_string(json_object_array_get_idx(required, i))))
			return true;
	}
	return false;
}

/* But for those in `known`. */
static void print_members(json_object *schema, bool params, json_object *known)
{
	json_object_object_foreach(j_get(schema, "properties"), name, v)
	{
		if (j_get(known, name))
			continue;
		printf("| `%s` | %s%s | %s |\n", name, j_get_str(v, "type", ""),
		       params && is_required(schema, name) ? ", required" : "",
		       j_get_str(v, "description", ""));
	}
}

static void print_answer(size_t n)
{
	json_object *result = json_tokener_parse(methods[n].result), *known;
	json_object *answers = j_get(result, "properties");
	const char *name = NULL;

	known = answers_before(n, answers, &name);
	if (known) /* an anchor has no dots */
		printf("Answered as [%s](#%.*s%s).\n\n", name, (int)strcspn(name, "."), name,
		       strchr(name, '.') + 1);
	if (json_object_object_length(answers) > (known ? json_object_object_length(known) : 0)) {
		printf("| answer%s | | |\n| --- | --- | --- |\n", known ? ", beside those" : "");
		print_members(result, false, known);
		printf("\n");
	}
	json_object_put(known);
	json_object_put(result);
}

static void print_method(size_t n)
{
	const struct method *m = &methods[n];
	json_object *params = json_tokener_parse(m->params);

	printf("### %s\n\n", m->name);
	for (const char *p = m->summary; *p; p++) {
		if (*p != '\\')
			putchar(*p);
	}
	printf("\n\n");
	if (json_object_object_length(j_get(params, "properties"))) {
		printf("| parameter | | |\n| --- | --- | --- |\n");
		print_members(params, true, NULL);
		printf("\n");
	}
	print_answer(n);
	json_object_put(params);
}

int discover_markdown(void)
{
	for (size_t i = 0; i < nmethods; i++)
		print_method(i);
	return fflush(stdout) ? -errno : 0;
}
