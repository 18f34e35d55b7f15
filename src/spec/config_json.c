/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings from JSON: each value is handed to the function that takes the text of its flag, a
 * member of an object to the one that takes that item. See config.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "config_take.h"
#include "json_place.h"

#define MAX_DEPTH 8

/* What is being read, and where in it we are. */
struct reading {
	struct vm_config *c;
	const struct json_source *src;
	const char *key; /* of the outermost object */
	const struct setting *s;
	int index; /* in its array; -1: it is none */
	struct err *e;
};

/* "FILE:LINE:COLUMN", "json" or "": where it stands, `member` of the object there or NULL. It is
 * looked for in the whole text: only for a refusal. */
static void place_is(const struct reading *r, const char *member, char out[WHERE_MAX])
{
	const struct json_source *src = r->src;

	snprintf(out, WHERE_MAX, "%s", src->name ? "" : "json");
	if (src->name && src->name[0])
		json_place(src, json_place_of(src, r->key, r->index, member), out, WHERE_MAX);
}

const char *where_is(const struct reading *r, const char *member, char out[WHERE_MAX])
{
	size_t n;

	place_is(r, member, out);
	n = strlen(out);
	snprintf(out + n, WHERE_MAX - n, "%s%.60s", n ? ": " : "", r->key);
	return out;
}

static int config_json_refuse(const struct reading *r, const char *member, const char *value,
			      const char *expected, const char *words)
{
	struct mistake *m = &r->c->mistake;
	char where[WHERE_MAX];

	config_field(m->field, r->key, r->index, member);
	snprintf(m->value, sizeof(m->value), "%s", value ? value : "");
	snprintf(m->expected, sizeof(m->expected), "%s", expected);
	m->has_value = value;
	err_clean(m->value);
	return err_set(r->e, -EINVAL, "%s: %s%s%s", where_is(r, member, where),
		       member ? member : "", member ? ": " : "", words);
}

static int wrong_type(const struct reading *r, const char *member, json_object *v,
		      const char *expected)
{
	char words[80];

	snprintf(words, sizeof(words), "wrong type; expected %s", expected);
	return config_json_refuse(r, member,
				  json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN),
				  expected, words);
}

/* json-c strings may hold NULs; none of our settings may. */
static bool clean_string(json_object *v)
{
	return json_object_is_type(v, json_type_string) &&
	       strlen(json_object_get_string(v)) == (size_t)json_object_get_string_len(v);
}

static int config_json_take(const struct reading *r, const char *text)
{
	const struct taking t = {.c = r->c, .s = r->s, .read = r, .index = r->index, .e = r->e};

	return config_take(&t, text);
}

/* ---- objects ---- */

static int take_texts(const struct taking *t, const struct reading *r, json_object *v)
{
	static const char expected[] = "a string or an array of strings";
	int rc = 0;

	if (clean_string(v))
		return items_set(t, json_object_get_string(v));
	if (!json_object_is_type(v, json_type_array))
		return wrong_type(r, t->item->key, v, expected);
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		rc = clean_string(one) ? items_set(t, json_object_get_string(one))
				       : wrong_type(r, t->item->key, v, expected);
	}
	return rc;
}

/* NULL: the value has the type. */
static const char *expected_type(enum setting_type type, json_object *v)
{
	bool number = json_object_is_type(v, json_type_int);

	switch (type) {
	case SETTING_FLAG:
		return json_object_is_type(v, json_type_boolean) ? NULL : "true or false";
	case SETTING_NUMBER:
		return number ? NULL : "a whole number";
	case SETTING_SIZE:
		return number || clean_string(v) ? NULL : "a string or a whole number";
	case SETTING_TEXT:
	case SETTING_PATH:
		return clean_string(v) ? NULL : "a string";
	case SETTING_TEXTS:
		break;
	}
	return NULL;
}

static int one_member(struct taking *t, const struct reading *r, json_object *v)
{
	const char *expected = expected_type(t->item->type, v);

	if (expected)
		return wrong_type(r, t->item->key, v, expected);
	if (t->item->type == SETTING_TEXTS)
		return take_texts(t, r, v);
	if (t->item->type == SETTING_FLAG)
		return json_object_get_boolean(v) ? items_set(t, "") : 0;
	return items_set(t, json_object_get_string(v));
}

/* `expected`: all of them, for the line; NULL: they are too many. */
static int unknown_key(const struct reading *r, const char *member, const char *expected,
		       const char *near)
{
	const char *key = member ? member : r->key;
	struct mistake *m = &r->c->mistake;
	char where[WHERE_MAX];

	/* Of the outermost object the key itself is what is unknown: it names nothing. */
	if (member)
		where_is(r, member, where);
	else
		place_is(r, NULL, where);
	*m = (struct mistake){0};
	config_field(m->field, r->key, r->index, member);
	snprintf(m->expected, sizeof(m->expected), "%s", near ? near : expected ? expected : "");
	return err_set(r->e, -EINVAL, "%s%sunknown key '%.40s'%s%s%s%s%s", where,
		       where[0] ? ": " : "", key, near ? "; did you mean '" : "", near ? near : "",
		       near ? "'?" : "", member ? "; expected " : "", member ? expected : "");
}

static int unknown_member(const struct reading *r, const char *key)
{
	char keys[128];

	setting_item_keys(r->s, keys, sizeof(keys));
	return unknown_key(r, key, keys, setting_item_meant(r->s, key));
}

static int members(struct taking *t, const struct reading *r, json_object *v)
{
	int rc = 0;

	json_object_object_foreach(v, key, member)
	{
		t->item = setting_item_find(t->s, key, strlen(key));
		if (!rc)
			rc = t->item ? one_member(t, r, member) : unknown_member(r, key);
	}
	return rc;
}

static int take_object(const struct reading *r, json_object *v)
{
	bool empty = !json_object_object_length(v);
	struct taking t = {.c = r->c, .s = r->s, .read = r, .index = r->index, .e = r->e};
	int rc = items_begin(&t);

	if (rc)
		return rc;
	rc = members(&t, r, v);
	t.item = NULL;
	if (!rc)
		return items_end(
			&t, empty ? "" : json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN));
	items_drop(&t);
	return rc;
}

/* ---- settings ---- */

static int take_items(const struct reading *r, json_object *v)
{
	if (clean_string(v))
		return config_json_take(r, json_object_get_string(v));
	if (json_object_is_type(v, json_type_object))
		return take_object(r, v);
	return wrong_type(r, NULL, v,
			  r->s->many ? "an array of objects or strings" : "an object or a string");
}

static int take_scalar(const struct reading *r, json_object *v)
{
	if (r->s->type == SETTING_FLAG) {
		if (!json_object_is_type(v, json_type_boolean))
			return wrong_type(r, NULL, v, "true or false");
		return config_json_take(r, json_object_get_boolean(v) ? "on" : "off");
	}
	if (!clean_string(v) && !json_object_is_type(v, json_type_int))
		return wrong_type(r, NULL, v, "a string or a whole number");
	return config_json_take(r, json_object_get_string(v));
}

/* An array, each element as after the flag. */
static int take_many(struct reading *r, json_object *v)
{
	const char *expected =
		r->s->items ? "an array of objects or strings" : "an array of strings";
	int rc = 0;

	if (!json_object_is_type(v, json_type_array))
		return wrong_type(r, NULL, v, expected);
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		r->index = (int)i;
		if (r->s->items)
			rc = take_items(r, one);
		else
			rc = clean_string(one) ? config_json_take(r, json_object_get_string(one))
					       : wrong_type(r, NULL, one, expected);
	}
	return rc;
}

static int take_command(const struct reading *r, json_object *v)
{
	static const char expected[] = "an array of strings";
	char *argv[CONFIG_MAX_ARGS], words[80];
	size_t n;

	if (!json_object_is_type(v, json_type_array))
		return wrong_type(r, NULL, v, expected);
	n = json_object_array_length(v);
	if (n > CONFIG_MAX_ARGS) {
		snprintf(words, sizeof(words), "%zu arguments; expected at most %d", n,
			 CONFIG_MAX_ARGS);
		return config_json_refuse(r, NULL, NULL, "at most 1024 arguments", words);
	}
	for (size_t i = 0; i < n; i++) {
		json_object *a = json_object_array_get_idx(v, i);
		if (!clean_string(a))
			return wrong_type(r, NULL, v, expected);
		/* config_set_command() copies and does not write. */
		argv[i] = (char *)(uintptr_t)json_object_get_string(a);
	}
	return config_set_command(r->c, argv, (unsigned)n, r->e);
}

static const char *nearest_key(const char *key)
{
	const char *known[SETTINGS + 1];

	for (size_t i = 0; i < SETTINGS; i++)
		known[i] = setting_key(&settings[i]);
	known[SETTINGS] = "command";
	return nearest(key, known, SETTINGS + 1);
}

static int take_key(struct vm_config *c, const struct json_source *src, const char *key,
		    json_object *v, struct err *e)
{
	struct reading r = {c, src, key, setting_of_key(key), -1, e};

	if (!strcmp(key, "command"))
		return take_command(&r, v);
	if (!r.s)
		return unknown_key(&r, NULL, NULL, nearest_key(key));
	if (r.s->many)
		return take_many(&r, v);
	return r.s->items ? take_items(&r, v) : take_scalar(&r, v);
}

int config_json_one(struct vm_config *c, const struct setting *s, json_object *v, struct err *e)
{
	static const struct json_source nowhere = {.name = ""};
	const struct reading r = {c, &nowhere, s->name, s, -1, e};

	if (s->items)
		return take_items(&r, v);
	return clean_string(v) ? config_json_take(&r, json_object_get_string(v))
			       : wrong_type(&r, NULL, v, "a string");
}

/* ---- the text ---- */

/* The text as a whole is not what it must be; at this byte, if a person can look there. */
static int malformed(const struct json_source *src, size_t at, const char *what, struct err *e)
{
	char place[WHERE_MAX];

	if (!src->name)
		return err_set(e, -EINVAL, "json: byte %zu: %s", at, what);
	if (!src->name[0])
		return err_set(e, -EINVAL, "%s", what);
	json_place(src, at, place, sizeof(place));
	return err_set(e, -EINVAL, "%s: %s", place, what);
}

static int no_object(const struct json_source *src, const char *what, struct err *e)
{
	const char *name = src->name ? src->name : "json";

	return err_set(e, -EINVAL, "%s%s%s", name, name[0] ? ": " : "", what);
}

/* The object is the caller's. */
static int parse(const struct json_source *src, json_object **out, struct err *e)
{
	json_tokener *tok = json_tokener_new_ex(MAX_DEPTH);
	enum json_tokener_error what;
	json_object *root;
	size_t end;
	int rc = 0;

	if (!tok)
		return err_set(e, -ENOMEM, "out of memory");
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	root = json_tokener_parse_ex(tok, src->text, (int)src->len);
	what = json_tokener_get_error(tok);
	end = json_tokener_get_parse_end(tok);
	json_tokener_free(tok);
	if (what == json_tokener_continue)
		rc = no_object(src, "the text ends inside a value; expected one object", e);
	else if (what != json_tokener_success)
		rc = malformed(src, end, json_tokener_error_desc(what), e);
	else if (!json_object_is_type(root, json_type_object))
		rc = no_object(src, "expected one object", e);
	for (; end < src->len && !rc; end++) {
		if (!memchr(" \t\r\n", src->text[end], 4))
			rc = malformed(src, end, "text after the object", e);
	}
	if (rc)
		json_object_put(root);
	else
		*out = root;
	return rc;
}

int config_json(struct vm_config *c, const char *name, const char *text, size_t len, struct err *e)
{
	const struct json_source src = {name, text, len};
	json_object *root = NULL;
	int rc;

	if (len > CONFIG_JSON_MAX)
		return err_set(e, -EINVAL, "json: %zu bytes; expected at most %u", len,
			       CONFIG_JSON_MAX);
	rc = parse(&src, &root, e);
	if (rc)
		return rc;
	json_object_object_foreach(root, key, v)
	{
		if (!rc)
			rc = take_key(c, &src, key, v, e);
	}
	json_object_put(root);
	return rc;
}
