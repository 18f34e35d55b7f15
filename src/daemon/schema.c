/* SPDX-License-Identifier: BSD-2-Clause */
/* Values against schemas. See schema.h. */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/err.h>

#include "spec/json.h"
#include "schema.h"

#define MAX_DEPTH 12

struct path {
	const struct path *up;
	const char *key; /* NULL: an element */
	size_t index;
};

static size_t print_path(const struct path *at, char *out, size_t size)
{
	size_t n;

	if (!at) {
		out[0] = 0;
		return 0;
	}
	n = print_path(at->up, out, size);
	if (at->key)
		snprintf(out + n, size - n, "%s%s", n ? "." : "", at->key);
	else
		snprintf(out + n, size - n, "[%zu]", at->index);
	return strlen(out);
}

static int say(struct problem *p, const struct path *at, json_object *v, const char *reason,
	       const char *expected)
{
	p->reason = reason;
	print_path(at, p->field, sizeof(p->field));
	snprintf(p->value, sizeof(p->value), "%.120s", v ? j_text(v) : "");
	snprintf(p->expected, sizeof(p->expected), "%.250s", expected);
	err_clean(p->field);
	err_clean(p->value);
	return -1;
}

static const struct {
	const char *name, *words;
	enum json_type type;
} types[] = {
	{"object", "an object", json_type_object}, {"array", "an array", json_type_array},
	{"string", "a string", json_type_string},  {"integer", "a whole number", json_type_int},
	{"number", "a number", json_type_double},  {"boolean", "true or false", json_type_boolean},
	{"null", "null", json_type_null},
};

static bool is_type(json_object *v, enum json_type t)
{
	if (t == json_type_string && json_object_is_type(v, t))
		return strlen(json_object_get_string(v)) == (size_t)json_object_get_string_len(v);
	return json_object_is_type(v, t) ||
	       (t == json_type_double && json_object_is_type(v, json_type_int));
}

static int validate(json_object *s, json_object *v, const struct path *at, struct problem *p);

/* What people call the type; NULL: the value has it, or there is no such type. */
static const char *not_of_type(const char *name, json_object *v)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		if (!strcmp(types[i].name, name))
			return is_type(v, types[i].type) ? NULL : types[i].words;
	}
	return NULL;
}

/* "type" is a name, or an array of names, one of which it must be. */
static int check_type(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	json_object *type = j_get(s, "type");
	const char *one = j_get_str(s, "type", NULL);
	char words[128] = "";
	size_t n = 0;

	if (one) {
		one = not_of_type(one, v);
		return one ? say(p, at, v, "type", one) : 0;
	}
	for (size_t i = 0; type && i < json_object_array_length(type); i++) {
		json_object *name = json_object_array_get_idx(type, i);

		one = not_of_type(json_object_get_string(name), v);
		if (!one)
			return 0;
		n += (size_t)snprintf(words + n, sizeof(words) - n, "%s%s", i ? " or " : "", one);
	}
	return type ? say(p, at, v, "type", words) : 0;
}

static int check_enum(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	json_object *list = j_get(s, "enum");

	if (!list)
		return 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		if (json_object_equal(json_object_array_get_idx(list, i), v))
			return 0;
	}
	return say(p, at, v, "value", j_text(list));
}

static int check_range(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	int64_t min = j_get_int(s, "minimum", INT64_MIN), max = j_get_int(s, "maximum", INT64_MAX);
	char words[96];
	int64_t n;

	if (!json_object_is_type(v, json_type_int))
		return 0;
	n = json_object_get_int64(v);
	if (n >= min && n <= max)
		return 0;
	snprintf(words, sizeof(words), "a number from %lld to %lld", (long long)min,
		 (long long)max);
	return say(p, at, v, "value", words);
}

static int check_length(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	bool text = json_object_is_type(v, json_type_string);
	bool list = json_object_is_type(v, json_type_array);
	int64_t n = text   ? json_object_get_string_len(v)
		    : list ? (int64_t)json_object_array_length(v)
			   : 0;
	int64_t min = text ? j_get_int(s, "minLength", 0) : 0;
	int64_t max = j_get_int(s, text ? "maxLength" : "maxItems", INT64_MAX);
	char words[96];

	if ((!text && !list) || (n >= min && n <= max))
		return 0;
	snprintf(words, sizeof(words), "%lld to %lld %s", (long long)min, (long long)max,
		 text ? "bytes" : "elements");
	return say(p, at, v, "value", words);
}

static int check_required(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	json_object *list = j_get(s, "required");

	if (!list || !json_object_is_type(v, json_type_object))
		return 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		const char *key = json_object_get_string(json_object_array_get_idx(list, i));
		struct path here = {at, key, 0};

		if (!json_object_object_get_ex(v, key, NULL))
			return say(p, &here, NULL, "missing", "this member");
	}
	return 0;
}

static int check_members(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	json_object *props = j_get(s, "properties");
	bool others = j_get_bool(s, "additionalProperties", true);
	char words[256] = "one of:";

	if (!json_object_is_type(v, json_type_object))
		return 0;
	json_object_object_foreach(v, key, member)
	{
		struct path here = {at, key, 0};
		json_object *sub = j_get(props, key);

		if (sub && validate(sub, member, &here, p))
			return -1;
		if (sub || others)
			continue;
		if (props) {
			json_object_object_foreach(props, known, ignored)
			{
				size_t n = strlen(words);

				(void)ignored;
				snprintf(words + n, sizeof(words) - n, " %s", known);
			}
		}
		return say(p, &here, member, "unknown", words);
	}
	return 0;
}

static int check_items(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	json_object *items = j_get(s, "items");

	if (!items || !json_object_is_type(v, json_type_array))
		return 0;
	for (size_t i = 0; i < json_object_array_length(v); i++) {
		struct path here = {at, NULL, i};

		if (validate(items, json_object_array_get_idx(v, i), &here, p))
			return -1;
	}
	return 0;
}

/* Recursion is bounded by the depth of the schema, which is ours. */
static int validate(json_object *s, json_object *v, const struct path *at, struct problem *p)
{
	static int (*const checks[])(json_object *, json_object *, const struct path *,
				     struct problem *) = {
		check_type,     check_enum,    check_range, check_length,
		check_required, check_members, check_items,
	};

	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		if (checks[i](s, v, at, p))
			return -1;
	}
	return 0;
}

int schema_validate(json_object *schema, json_object *value, struct problem *p)
{
	return validate(schema, value, NULL, p);
}

/* ---- the schemas themselves ---- */

static bool known_type(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		if (!strcmp(types[i].name, name))
			return true;
	}
	return false;
}

static bool known_types(json_object *v)
{
	size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;

	if (json_object_is_type(v, json_type_string))
		return known_type(json_object_get_string(v));
	for (size_t i = 0; i < n; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		if (!json_object_is_type(one, json_type_string) ||
		    !known_type(json_object_get_string(one)))
			return false;
	}
	return n && n <= ARRAY_LEN(types);
}

static int check_schema(json_object *s, const struct path *at, int depth, struct problem *p);

static int check_word(const char *word, json_object *v, const struct path *at, int depth,
		      struct problem *p)
{
	static const struct {
		const char *word;
		enum json_type type;
	} words[] = {
		{"properties", json_type_object},
		{"required", json_type_array},
		{"additionalProperties", json_type_boolean},
		{"items", json_type_object},
		{"enum", json_type_array},
		{"minimum", json_type_int},
		{"maximum", json_type_int},
		{"minLength", json_type_int},
		{"maxLength", json_type_int},
		{"maxItems", json_type_int},
		{"description", json_type_string},
	};
	size_t i = 0;

	if (!strcmp(word, "type"))
		return known_types(v) ? 0 : say(p, at, v, "value", "a type, or an array of them");
	while (i < ARRAY_LEN(words) && strcmp(words[i].word, word) != 0)
		i++;
	if (i == ARRAY_LEN(words))
		return say(p, at, v, "unknown", "a word of schema.h");
	if (!json_object_is_type(v, words[i].type))
		return say(p, at, v, "type", json_type_to_name(words[i].type));
	if (!strcmp(word, "items"))
		return check_schema(v, at, depth, p);
	if (!strcmp(word, "properties")) {
		json_object_object_foreach(v, key, sub)
		{
			struct path here = {at, key, 0};

			if (check_schema(sub, &here, depth, p))
				return -1;
		}
	}
	return 0;
}

static int check_schema(json_object *s, const struct path *at, int depth, struct problem *p)
{
	if (!json_object_is_type(s, json_type_object) || depth > MAX_DEPTH)
		return say(p, at, s, "type", "a schema: an object");
	json_object_object_foreach(s, word, v)
	{
		struct path here = {at, word, 0};

		if (check_word(word, v, &here, depth + 1, p))
			return -1;
	}
	return 0;
}

int schema_check(json_object *schema, struct problem *p)
{
	return check_schema(schema, NULL, 0, p);
}
