/* SPDX-License-Identifier: BSD-2-Clause */
/* Settings from JSON: each value goes through config_set(), as a flag's text does. See config.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "config.h"
#include "json_place.h"
#include "settings.h"

#define MAX_DEPTH 8

static int wrong_type(const char *where, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "json: %.60s: wrong type; expected %s", where, expected);
}

/* json-c strings may hold NULs; none of our settings may. */
static bool clean_string(json_object *v)
{
	return json_object_is_type(v, json_type_string) &&
	       strlen(json_object_get_string(v)) == (size_t)json_object_get_string_len(v);
}

static int set_scalar(struct vm_config *c, const char *key, json_object *v, struct err *e)
{
	char where[80];

	snprintf(where, sizeof(where), "json: %.60s", key);
	if (!clean_string(v) && !json_object_is_type(v, json_type_int))
		return wrong_type(key, "a string or a whole number", e);
	return config_set(c, where, key, json_object_get_string(v), e);
}

struct text {
	char *s;
	size_t len, size;
};

/* Append `s` with its commas doubled, as the flag's text has them. */
static int text_add(struct text *t, const char *s, bool escape)
{
	for (; *s; s++) {
		if (t->size - t->len < 3) {
			size_t n = t->size ? t->size * 2 : 128;
			char *p = realloc(t->s, n);
			if (!p)
				return -ENOMEM;
			t->s = p;
			t->size = n;
		}
		if (escape && *s == ',')
			t->s[t->len++] = ',';
		t->s[t->len++] = *s;
		t->s[t->len] = 0;
	}
	return 0;
}

/* The members of an object that stands for a text of items: "KEY=VALUE", or "KEY" for a flag. */
enum member_kind { MEMBER_FLAG, MEMBER_TEXT, MEMBER_NUMBER, MEMBER_SIZE, MEMBER_TEXTS };
struct member {
	const char *key;
	enum member_kind kind;
};

struct list { /* of such objects, or of texts; or just one of them */
	const char *key, *setting, *members, *expected;
	const struct member *member;
	size_t n;
};

static const struct member disk_members[] = {{"path", MEMBER_TEXT},
					     {"ro", MEMBER_FLAG},
					     {"direct", MEMBER_FLAG},
					     {"serial", MEMBER_TEXT},
					     {"engine", MEMBER_TEXT}};
static const struct member net_members[] = {
	{"tap", MEMBER_TEXT},    {"fd", MEMBER_NUMBER}, {"user", MEMBER_FLAG},
	{"socket", MEMBER_TEXT}, {"mac", MEMBER_TEXT},  {"queues", MEMBER_NUMBER},
	{"mtu", MEMBER_NUMBER},  {"rate", MEMBER_SIZE}, {"pps", MEMBER_NUMBER},
	{"fwd", MEMBER_TEXTS},   {"ip", MEMBER_TEXT},   {"gw", MEMBER_TEXT},
	{"dns", MEMBER_TEXT}};
static const struct member vsock_members[] = {{"path", MEMBER_TEXT}, {"cid", MEMBER_NUMBER}};
#define MANY "an array of objects or strings"
static const struct list lists[] = {
	{"disks", "disk", "path, ro, direct, serial, engine", MANY, disk_members,
	 ARRAY_LEN(disk_members)},
	{"nets", "net", "tap, fd, user, socket, mac, queues, mtu, rate, pps, fwd, ip, gw, dns",
	 MANY, net_members, ARRAY_LEN(net_members)},
	{"vsock", "vsock", "path, cid", "an object or a string", vsock_members,
	 ARRAY_LEN(vsock_members)},
};
static int add_item(struct text *t, const char *key, const char *value, struct err *e)
{
	int rc = t->len ? text_add(t, ",", false) : 0;

	if (!rc)
		rc = text_add(t, key, false);
	if (!rc && value)
		rc = text_add(t, "=", false);
	if (!rc && value)
		rc = text_add(t, value, true);
	return rc ? err_set(e, rc, "out of memory") : 0;
}

static int add_texts(struct text *t, const char *key, json_object *v, struct err *e)
{
	int rc = 0;

	if (clean_string(v))
		return add_item(t, key, json_object_get_string(v), e);
	if (!json_object_is_type(v, json_type_array))
		return wrong_type(key, "a string or an array of strings", e);
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		rc = clean_string(one) ? add_item(t, key, json_object_get_string(one), e)
				       : wrong_type(key, "a string or an array of strings", e);
	}
	return rc;
}

static int add_member(struct text *t, const struct member *m, json_object *v, struct err *e)
{
	switch (m->kind) {
	case MEMBER_FLAG:
		if (!json_object_is_type(v, json_type_boolean))
			return wrong_type(m->key, "true or false", e);
		return json_object_get_boolean(v) ? add_item(t, m->key, NULL, e) : 0;
	case MEMBER_TEXTS:
		return add_texts(t, m->key, v, e);
	case MEMBER_NUMBER:
		if (!json_object_is_type(v, json_type_int))
			return wrong_type(m->key, "a whole number", e);
		break;
	case MEMBER_SIZE:
		if (!json_object_is_type(v, json_type_int) && !clean_string(v))
			return wrong_type(m->key, "a string or a whole number", e);
		break;
	case MEMBER_TEXT:
		if (!clean_string(v))
			return wrong_type(m->key, "a string", e);
		break;
	}
	return add_item(t, m->key, json_object_get_string(v), e);
}

/* An unknown key of the outermost object, or of one below its key `above`. */
static int unknown_key(const struct json_source *src, const char *above, const char *key,
		       const char *expected, const char *near, struct err *e)
{
	char place[128] = "json";

	if (src->name)
		json_place(src, json_place_of_key(src->text, src->len, above, key), place,
			   sizeof(place));
	return err_set(e, -EINVAL, "%s: %s%sunknown key '%.40s'%s%s%s%s%s", place,
		       above ? above : "", above ? ": " : "", key, near ? "; did you mean '" : "",
		       near ? near : "", near ? "'?" : "", expected ? "; expected " : "",
		       expected ? expected : "");
}

#define MAX_MEMBERS 16

static int one_member(struct text *t, const struct list *l, const struct json_source *src,
		      const char *key, json_object *v, struct err *e)
{
	const char *known[MAX_MEMBERS];

	for (size_t i = 0; i < l->n; i++) {
		known[i] = l->member[i].key;
		if (!strcmp(known[i], key))
			return add_member(t, &l->member[i], v, e);
	}
	return unknown_key(src, l->key, key, l->members,
			   strlen(key) > 2 ? nearest(key, known, l->n) : NULL, e);
}

static int set_one(struct vm_config *c, const struct list *l, const struct json_source *src,
		   json_object *v, struct err *e)
{
	struct text t = {0};
	char where[24];
	int rc = 0;

	snprintf(where, sizeof(where), "json: %s", l->key);
	if (clean_string(v))
		return config_set(c, where, l->setting, json_object_get_string(v), e);
	if (!json_object_is_type(v, json_type_object))
		return wrong_type(l->key, l->expected, e);
	json_object_object_foreach(v, key, member)
	{
		if (!rc)
			rc = one_member(&t, l, src, key, member, e);
	}
	if (!rc)
		rc = config_set(c, where, l->setting, t.s ? t.s : "", e);
	free(t.s);
	return rc;
}

static bool is_many(const struct list *l)
{
	return strcmp(l->key, l->setting) != 0;
}

static int set_list(struct vm_config *c, const struct list *l, const struct json_source *src,
		    json_object *v, struct err *e)
{
	int rc = 0;

	if (!is_many(l))
		return set_one(c, l, src, v, e);
	if (!json_object_is_type(v, json_type_array))
		return wrong_type(l->key, l->expected, e);
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++)
		rc = set_one(c, l, src, json_object_array_get_idx(v, i), e);
	return rc;
}

static int set_command(struct vm_config *c, json_object *v, struct err *e)
{
	char *argv[CONFIG_MAX_ARGS];
	size_t n;

	if (!json_object_is_type(v, json_type_array))
		return wrong_type("command", "an array of strings", e);
	n = json_object_array_length(v);
	if (n > CONFIG_MAX_ARGS)
		return err_set(e, -EINVAL, "json: command: %zu arguments; expected at most %d", n,
			       CONFIG_MAX_ARGS);
	for (size_t i = 0; i < n; i++) {
		json_object *a = json_object_array_get_idx(v, i);
		if (!clean_string(a))
			return wrong_type("command", "an array of strings", e);
		/* config_set_command() copies and does not write. */
		argv[i] = (char *)(uintptr_t)json_object_get_string(a);
	}
	return config_set_command(c, argv, (unsigned)n, e);
}

/* An array of texts, each as after the flag. */
static int set_each(struct vm_config *c, const char *key, const char *setting, json_object *v,
		    struct err *e)
{
	char where[80];
	int rc = 0;

	snprintf(where, sizeof(where), "json: %.60s", key);
	if (!json_object_is_type(v, json_type_array))
		return wrong_type(key, "an array of strings", e);
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++) {
		json_object *item = json_object_array_get_idx(v, i);

		rc = clean_string(item)
			     ? config_set(c, where, setting, json_object_get_string(item), e)
			     : wrong_type(key, "an array of strings", e);
	}
	return rc;
}

static int set_boolean(struct vm_config *c, const char *key, json_object *v, struct err *e)
{
	if (!json_object_is_type(v, json_type_boolean))
		return wrong_type(key, "true or false", e);
	return config_set(c, key, key, json_object_get_boolean(v) ? "on" : "off", e);
}

static const char *nearest_key(const char *key)
{
	const char *known[SETTINGS + 1];

	for (size_t i = 0; i < SETTINGS; i++)
		known[i] = settings[i].many ? settings[i].many : settings[i].name;
	known[SETTINGS] = "command";
	return nearest(key, known, SETTINGS + 1);
}

static int set_key(struct vm_config *c, const struct json_source *src, const char *key,
		   json_object *v, struct err *e)
{
	const struct setting *s = setting_of_key(key);

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		if (!strcmp(key, lists[i].key))
			return set_list(c, &lists[i], src, v, e);
	}
	if (!strcmp(key, "command"))
		return set_command(c, v, e);
	if (!s)
		return unknown_key(src, NULL, key, NULL, nearest_key(key), e);
	if (s->many)
		return set_each(c, key, s->name, v, e);
	return s->on ? set_boolean(c, key, v, e) : set_scalar(c, key, v, e);
}

/* The text is not one well-formed object: what is wrong at this byte. */
static int malformed(const struct json_source *src, size_t at, const char *what, struct err *e)
{
	char place[128];

	snprintf(place, sizeof(place), "json: byte %zu", at);
	if (src->name)
		json_place(src, at, place, sizeof(place));
	return err_set(e, -EINVAL, "%s: %s", place, what);
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
		rc = err_set(e, -EINVAL, "%s: the text ends inside a value; expected one object",
			     src->name ? src->name : "json");
	else if (what != json_tokener_success)
		rc = malformed(src, end, json_tokener_error_desc(what), e);
	else if (!json_object_is_type(root, json_type_object))
		rc = err_set(e, -EINVAL, "%s: expected one object", src->name ? src->name : "json");
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
			rc = set_key(c, &src, key, v, e);
	}
	json_object_put(root);
	return rc;
}
