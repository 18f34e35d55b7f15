/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Manifests of the second kind: what the program may connect to (`network`, `connect`), and targets
 * that consist of parts. See manifest.h.
 *
 * Destinations are settings, and what a URI names: no manifest has one of its own, so a program
 * reaches what the user has said and nothing else.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "manifest_take.h"

static const char *const uri_keys[] = {"scheme", "host", "port", "user", "path"};

bool manifest_has_network(const struct manifest *m)
{
	return m->serves && (m->nschemes || m->nreaches);
}

bool manifest_takes_query(const struct manifest *m)
{
	for (unsigned i = 0; i < m->narguments; i++) {
		if (strstr(m->argument[i].text, "${" MANIFEST_TARGET "}"))
			return true;
	}
	return false;
}

/* ---- network ---- */

static struct manifest_reach *last_reach(const struct manifest_place *p)
{
	return &p->m->reach[p->m->nreaches];
}

static int reach_when(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_when(p, member, v, last_reach(p)->when);
}

static int reach_to(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_word(p, member, v, last_reach(p)->to);
}

static int reach_ports(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_word(p, member, v, last_reach(p)->ports);
}

static const struct manifest_member reach_members[] = {
	{"if", reach_when}, {"to", reach_to}, {"ports", reach_ports}};

int manifest_take_network(const struct manifest_place *p, const char *member, json_object *v)
{
	const struct manifest_place in = {p->m, p->name, member, p->e, NULL};
	size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;
	int rc = 0;

	if (!n || n > MANIFEST_REACHES)
		return manifest_wrong(p, member, v, "an array of 1 to 8 objects");
	for (size_t i = 0; i < n && !rc; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		if (!json_object_is_type(one, json_type_object))
			return manifest_wrong(p, member, one, "an object");
		*last_reach(p) = (struct manifest_reach){0};
		rc = manifest_take_members(&in, one, reach_members, ARRAY_LEN(reach_members));
		p->m->nreaches++;
	}
	return rc;
}

int manifest_take_reconnects(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_bool(p, member, v, &p->m->reconnects);
}

static bool is_setting(const struct manifest *m, const char *key, enum manifest_type a,
		       enum manifest_type b)
{
	const struct manifest_setting *s = manifest_setting(m, key, strlen(key));

	return s && (s->type == a || s->type == b);
}

int manifest_check_network(const struct manifest_place *p)
{
	const struct manifest *m = p->m;

	for (unsigned i = 0; i < m->nschemes; i++) {
		if (m->scheme[i].over != MANIFEST_TCP || m->target.type != MANIFEST_TEXT_TYPE)
			return manifest_wrong(
				p, "connect", NULL,
				"\"tcp\" alone with \"serves\", and a text as target");
	}
	for (unsigned i = 0; i < m->nreaches; i++) {
		const struct manifest_reach *r = &m->reach[i];

		if (!manifest_when_is_known(m, r->when))
			return manifest_wrong(p, "network.if", NULL,
					      "keys of settings, ro or target");
		if (!is_setting(m, r->to, MANIFEST_HOSTS, MANIFEST_HOSTS))
			return manifest_wrong(p, "network.to", NULL, "the key of hosts");
		if (!is_setting(m, r->ports, MANIFEST_NUMBER, MANIFEST_TEXT_TYPE))
			return manifest_wrong(p, "network.ports", NULL,
					      "the key of a number or a text");
	}
	if (m->reconnects && !manifest_has_network(m))
		return manifest_wrong(p, "reconnects", NULL, "it with connect or network alone");
	return 0;
}

/* ---- parts of a target ---- */

int manifest_take_parts(const struct manifest_place *p, const char *member, json_object *v)
{
	size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;

	if (p->setting != &p->m->target || !n || n > MANIFEST_PARTS)
		return manifest_wrong(p, member, v, "an array of 1 to 8 texts, of a target");
	for (size_t i = 0; i < n; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		if (!manifest_is_text(one, MANIFEST_WHEN - 1))
			return manifest_wrong(p, member, one, "at most 63 characters");
		strcpy(p->m->part[i], json_object_get_string(one));
	}
	p->m->nparts = (unsigned)n;
	return 0;
}

bool manifest_part_is_known(const struct manifest *m, const char *key, size_t len)
{
	const char *k;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(uri_keys) && m->serves && m->nschemes; i++) {
		if (strlen(uri_keys[i]) == len && !strncmp(key, uri_keys[i], len))
			return true;
	}
	for (unsigned i = 0; i < m->nparts; i++) {
		k = m->part[i];
		while ((k = manifest_next_value(k, &n))) {
			if (n == len && !strncmp(k, key, n))
				return true;
		}
	}
	return false;
}

/* Where its parts are put; NULL: does it fit at all? */
struct parts_out {
	char *out;
	size_t size, *n;
};

/* A part ends at a slash or an @. */
static bool take_part(const char *pattern, const char *text, const struct parts_out *o)
{
	while (*pattern) {
		char key[MANIFEST_WORD], value[MANIFEST_TEXT];
		size_t len, keylen = strcspn(pattern, "}");

		if (strncmp(pattern, "${", 2) != 0 || !pattern[keylen]) {
			if (*pattern++ != *text++)
				return false;
			continue;
		}
		len = strcspn(text, "/@");
		if (!len || len >= sizeof(value))
			return false;
		snprintf(key, sizeof(key), "%.*s", (int)keylen - 2, pattern + 2);
		snprintf(value, sizeof(value), "%.*s", (int)len, text);
		if (o && manifest_put(o->out, o->size, o->n, key, value))
			return false;
		pattern += keylen + 1;
		text += len;
	}
	return !*text;
}

int manifest_put_parts(const struct manifest *m, const char *target, char *out, size_t size,
		       size_t *n, struct err *e)
{
	const struct parts_out o = {out, size, n};

	for (unsigned i = 0; i < m->nparts; i++) {
		if (!take_part(m->part[i], target, NULL))
			continue;
		return take_part(m->part[i], target, &o) ? 0 : err_set(e, -EINVAL, "too long");
	}
	return m->nparts ? err_set(e, -EINVAL, "'%.60s'; expected %s", target, m->target.help) : 0;
}
