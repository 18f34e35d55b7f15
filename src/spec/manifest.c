/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Manifests: one function for each member, found through a table. See manifest.h.
 *
 *   manifest_setting.c   the settings that one declares, and which values fit them
 *   manifest_serve.c     the second kind: arguments and refusals
 *   manifest_network.c   the second kind: what it may connect to, and targets of parts
 *   manifest_open.c      the files: DIR/NAME.json and the program
 *   manifest_given.c     what a user says to the module
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>
#include <insula/module.h>
#include <insula/module_calls.h>

#include "config.h"
#include "manifest_take.h"

int manifest_wrong(const struct manifest_place *p, const char *member, json_object *v,
		   const char *expected)
{
	const char *text = v ? json_object_to_json_string_ext(
				       v, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
			     : "missing";

	err_set(p->e, -EINVAL, "manifest %s: %s%s%s: %.60s; expected %s", p->name, p->where,
		*p->where && *member ? "." : "", member, text, expected);
	if (p->e)
		err_clean(p->e->text);
	return -EINVAL;
}

/* ---- values ---- */

bool manifest_is_text(json_object *v, size_t most)
{
	const char *s;

	if (!json_object_is_type(v, json_type_string))
		return false;
	s = json_object_get_string(v);
	if (strlen(s) != (size_t)json_object_get_string_len(v) || strlen(s) > most)
		return false;
	for (; *s; s++) {
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return false;
	}
	return true;
}

bool manifest_is_word(const char *s)
{
	size_t n = strlen(s);

	return n && n < MANIFEST_WORD && strspn(s, MANIFEST_LETTERS) == n && *s != '-';
}

int manifest_take_word(const struct manifest_place *p, const char *member, json_object *v,
		       char *out)
{
	if (!manifest_is_text(v, MANIFEST_WORD - 1) || !manifest_is_word(json_object_get_string(v)))
		return manifest_wrong(p, member, v,
				      "a word of at most 31 small letters, digits, - and +");
	strcpy(out, json_object_get_string(v));
	return 0;
}

int manifest_take_line(const struct manifest_place *p, const char *member, json_object *v,
		       char *out)
{
	if (!manifest_is_text(v, MANIFEST_TEXT - 1))
		return manifest_wrong(p, member, v, "a line of at most 159 characters");
	strcpy(out, json_object_get_string(v));
	return 0;
}

int manifest_take_bool(const struct manifest_place *p, const char *member, json_object *v,
		       bool *out)
{
	if (!json_object_is_type(v, json_type_boolean))
		return manifest_wrong(p, member, v, "true or false");
	*out = json_object_get_boolean(v);
	return 0;
}

int manifest_take_whole(const struct manifest_place *p, const char *member, json_object *v,
			uint64_t min, uint64_t max, uint64_t *out)
{
	char expected[64];
	int64_t n = json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : -1;

	snprintf(expected, sizeof(expected), "a whole number from %llu to %llu",
		 (unsigned long long)min, (unsigned long long)max);
	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return manifest_wrong(p, member, v, expected);
	*out = (uint64_t)n;
	return 0;
}

/* ---- members, by a table for each object ---- */

int manifest_take_members(const struct manifest_place *p, json_object *o,
			  const struct manifest_member *list, size_t n)
{
	int rc = 0;

	json_object_object_foreach(o, key, v)
	{
		size_t i = 0;

		while (i < n && strcmp(list[i].key, key) != 0)
			i++;
		if (i == n)
			return manifest_wrong(p, key, v, "no such member");
		rc = list[i].take(p, key, v);
		if (rc)
			return rc;
	}
	return rc;
}

static int take_api(const struct manifest_place *p, const char *member, json_object *v)
{
	if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) != MODULE_API)
		return manifest_wrong(p, member, v, "1");
	return 0;
}

static int take_device(const struct manifest_place *p, const char *member, json_object *v)
{
	if (!manifest_is_text(v, 8) || strcmp(json_object_get_string(v), "disk") != 0)
		return manifest_wrong(p, member, v, "\"disk\"");
	return 0;
}

static int take_about(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_line(p, member, v, p->m->about);
}

static int take_package(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_word(p, member, v, p->m->package);
}

/* A file beside the manifest, and nowhere else; of the second kind an absolute path. */
static int take_program(const struct manifest_place *p, const char *member, json_object *v)
{
	if (manifest_is_text(v, MANIFEST_TEXT - 1) && *json_object_get_string(v) == '/')
		return manifest_take_path(p, member, v);
	if (!manifest_is_text(v, MANIFEST_WORD - 1) || strchr(json_object_get_string(v), '/') ||
	    *json_object_get_string(v) == '.')
		return manifest_wrong(p, member, v, "the name of a file beside it, without a path");
	return manifest_take_word(p, member, v, p->m->program);
}

/* ---- connect ---- */

static int take_scheme(const struct manifest_place *p, const char *name, json_object *v)
{
	struct manifest_scheme *s = &p->m->scheme[p->m->nschemes];
	json_object *over = NULL, *port = NULL;
	uint64_t n = 0;
	int rc = 0;

	if (p->m->nschemes == MANIFEST_SCHEMES || !manifest_is_word(name) ||
	    !json_object_is_type(v, json_type_object))
		return manifest_wrong(p, name, v, "at most 8 schemes, each an object");
	strcpy(s->name, name);
	json_object_object_foreach(v, key, member)
	{
		if (!strcmp(key, "over"))
			over = member;
		else if (!strcmp(key, "port"))
			port = member;
		else
			return manifest_wrong(p, key, member, "no such member");
	}
	if (over && manifest_is_text(over, 8) && !strcmp(json_object_get_string(over), "tcp"))
		s->over = MANIFEST_TCP;
	else if (over && manifest_is_text(over, 8) && !strcmp(json_object_get_string(over), "unix"))
		s->over = MANIFEST_UNIX;
	else
		return manifest_wrong(p, name, over, "over: \"tcp\" or \"unix\"");
	if (port || s->over == MANIFEST_TCP)
		rc = manifest_take_whole(p, "port", port, 1, UINT16_MAX, &n);
	s->port = (uint16_t)n;
	p->m->nschemes++;
	return rc;
}

static int take_connect(const struct manifest_place *p, const char *member, json_object *v)
{
	const struct manifest_place in = {p->m, p->name, "connect", p->e, NULL};
	int rc = 0;

	if (!json_object_is_type(v, json_type_object) || !json_object_object_length(v))
		return manifest_wrong(p, member, v, "an object of schemes");
	json_object_object_foreach(v, key, one)
	{
		rc = take_scheme(&in, key, one);
		if (rc)
			return rc;
	}
	return rc;
}

/* ---- jail, limits ---- */

static int take_calls(const struct manifest_place *p, const char *member, json_object *v)
{
	static const struct {
		const char *name;
		uint32_t bit;
	} groups[] = {{"memory", MODULE_CALLS_MEMORY},
		      {"socket", MODULE_CALLS_SOCKET},
		      {"threads", MODULE_CALLS_THREADS},
		      {"events", MODULE_CALLS_EVENTS}};
	static const char expected[] = "an array of memory, socket, threads, events";

	if (!json_object_is_type(v, json_type_array))
		return manifest_wrong(p, member, v, expected);
	for (size_t i = 0; i < json_object_array_length(v); i++) {
		json_object *one = json_object_array_get_idx(v, i);
		size_t k = 0;

		while (k < ARRAY_LEN(groups) &&
		       (!manifest_is_text(one, 16) ||
			strcmp(groups[k].name, json_object_get_string(one)) != 0))
			k++;
		if (k == ARRAY_LEN(groups))
			return manifest_wrong(p, member, one, expected);
		p->m->calls |= groups[k].bit;
	}
	return 0;
}

static int take_jail(const struct manifest_place *p, const char *member, json_object *v)
{
	static const struct manifest_member members[] = {{"calls", take_calls}};
	const struct manifest_place in = {p->m, p->name, "jail", p->e, NULL};

	if (!json_object_is_type(v, json_type_object))
		return manifest_wrong(p, member, v, "an object");
	return manifest_take_members(&in, v, members, ARRAY_LEN(members));
}

static int limit_memory(const struct manifest_place *p, const char *member, json_object *v)
{
	if (!manifest_is_text(v, 16) || !parse_size(json_object_get_string(v), &p->m->memory) ||
	    p->m->memory < (1u << 20) || p->m->memory > MANIFEST_MAX_MEMORY)
		return manifest_wrong(p, member, v, "a size from \"1M\" to \"64G\"");
	return 0;
}

static int limit_threads(const struct manifest_place *p, const char *member, json_object *v)
{
	uint64_t n = 0;
	int rc = manifest_take_whole(p, member, v, 0, 256, &n);

	p->m->threads = (uint32_t)n;
	return rc;
}

static int limit_descriptors(const struct manifest_place *p, const char *member, json_object *v)
{
	uint64_t n = 0;
	int rc = manifest_take_whole(p, member, v, 0, 1024, &n);

	p->m->descriptors = (uint32_t)n;
	return rc;
}

static int take_limits(const struct manifest_place *p, const char *member, json_object *v)
{
	static const struct manifest_member members[] = {{"memory", limit_memory},
							 {"threads", limit_threads},
							 {"descriptors", limit_descriptors}};
	const struct manifest_place in = {p->m, p->name, "limits", p->e, NULL};

	if (!json_object_is_type(v, json_type_object))
		return manifest_wrong(p, member, v, "an object");
	return manifest_take_members(&in, v, members, ARRAY_LEN(members));
}

/* ---- the whole ---- */

static const struct manifest_member manifest_members[] = {
	{"api", take_api},
	{"device", take_device},
	{"about", take_about},
	{"program", take_program},
	{"connect", take_connect},
	{"settings", manifest_take_settings},
	{"jail", take_jail},
	{"limits", take_limits},
	{"target", manifest_take_target},
	{"serves", manifest_take_serves},
	{"keeps-account", manifest_take_account},
	{"package", take_package},
	{"arguments", manifest_take_arguments},
	{"refuse", manifest_take_refusals},
	{"network", manifest_take_network},
	{"reconnects", manifest_take_reconnects},
};

static int take_manifest(const struct manifest_place *p, json_object *o)
{
	static const char *const needed[] = {"api", "device", "about"};
	int rc;

	if (!json_object_is_type(o, json_type_object))
		return manifest_wrong(p, "", o, "an object");
	rc = manifest_take_members(p, o, manifest_members, ARRAY_LEN(manifest_members));
	for (size_t i = 0; i < ARRAY_LEN(needed) && !rc; i++) {
		if (!json_object_object_get_ex(o, needed[i], NULL))
			rc = manifest_wrong(p, needed[i], NULL, "it");
	}
	return rc ? rc : manifest_check_serves(p, o);
}

int manifest_parse(struct manifest *m, const char *name, const char *text, size_t len,
		   struct err *e)
{
	const struct manifest_place p = {m, name, "", e, NULL};
	json_tokener *t = json_tokener_new_ex(6);
	json_object *o;
	int rc;

	*m = (struct manifest){.memory = 64u << 20, .descriptors = 8};
	snprintf(m->program, sizeof(m->program), "%s", name);
	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	o = len < MANIFEST_MAX ? json_tokener_parse_ex(t, text, (int)len) : NULL;
	if (!o || json_tokener_get_parse_end(t) != len)
		rc = err_set(e, -EINVAL, "manifest %s: no JSON, or more than one value", name);
	else
		rc = take_manifest(&p, o);
	json_object_put(o);
	json_tokener_free(t);
	return rc;
}

const struct manifest_scheme *manifest_scheme(const struct manifest *m, const char *name)
{
	for (unsigned i = 0; i < m->nschemes; i++) {
		if (!strcmp(m->scheme[i].name, name))
			return &m->scheme[i];
	}
	return NULL;
}
