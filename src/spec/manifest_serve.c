/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Manifests of the second kind: a program of the host that serves a vhost-user device. What its
 * arguments are made of, and what is refused before it starts. See manifest.h.
 *
 * No text of a user gets into an argument as it is. Files have names of ours there, a choice is one
 * of the manifest's words, a number is digits, and a text consists of letters that mean nothing
 * to who splits arguments up (plain()). manifest_network.c has what such a program may connect to.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "manifest_take.h"

#define PLAIN_LETTERS                                                         \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:" \
	"/?#[]@!&()*+;=%"

/* ---- conditions ---- */

static const char *const own_keys[] = {"ro", "write", "queues"};

const struct manifest_setting *manifest_setting_of(const struct manifest *m, const char *key,
						   size_t len)
{
	if (m->has_target && strlen(MANIFEST_TARGET) == len && !strncmp(key, MANIFEST_TARGET, len))
		return &m->target;
	return manifest_setting(m, key, len);
}

bool manifest_key_is_known(const struct manifest *m, const char *key, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(own_keys); i++) {
		if (strlen(own_keys[i]) == len && !strncmp(key, own_keys[i], len))
			return true;
	}
	return manifest_part_is_known(m, key, len) || manifest_setting_of(m, key, len);
}

const char *manifest_value(const struct manifest_values *v, const char *key)
{
	size_t n = strlen(key);

	if (!strcmp(key, "ro"))
		return v->ro ? "true" : "false";
	if (!strcmp(key, "write"))
		return v->ro ? "false" : "true";
	for (const char *p = v->text; p < v->text + v->len; p += strlen(p) + 1) {
		if (!strncmp(p, key, n) && p[n] == '=')
			return p + n + 1;
	}
	return NULL;
}

/* One word: "!KEY=VALUE". `ro` and `write` are true or false, and by themselves what they say. */
static bool word_holds(const struct manifest_values *v, const char *word, size_t len)
{
	bool not = *word == '!';
	char key[MANIFEST_WHEN];
	const char *value, *want;

	snprintf(key, sizeof(key), "%.*s", (int)len - not, word + not );
	want = strchr(key, '=');
	if (want)
		key[want++ - key] = 0;
	else if (!strcmp(key, "ro") || !strcmp(key, "write"))
		want = "true";
	value = manifest_value(v, key);
	return (value && (!want || !strcmp(value, want))) != not ;
}

bool manifest_holds(const struct manifest_values *v, const char *when)
{
	for (const char *p = when; *p;) {
		size_t n = strcspn(p, " ");

		if (n && !word_holds(v, p, n))
			return false;
		p += n + (p[n] == ' ');
	}
	return true;
}

bool manifest_when_is_known(const struct manifest *m, const char *when)
{
	for (const char *p = when; *p;) {
		size_t n = strcspn(p, " ");
		bool not = *p == '!';

		if (n && !manifest_key_is_known(m, p + not, strcspn(p, " =") - not ))
			return false;
		p += n + (p[n] == ' ');
	}
	return true;
}

/* ---- members ---- */

int manifest_take_path(const struct manifest_place *p, const char *member, json_object *v)
{
	static const char expected[] = "an absolute path without . and ..";
	const char *path = json_object_get_string(v);

	if (strstr(path, "/../") || strstr(path, "/./") || strstr(path, "//"))
		return manifest_wrong(p, member, v, expected);
	path = strrchr(path, '/');
	if (!path[1] || !strcmp(path, "/..") || !strcmp(path, "/."))
		return manifest_wrong(p, member, v, expected);
	return manifest_take_line(p, member, v, p->m->program);
}

int manifest_take_serves(const struct manifest_place *p, const char *member, json_object *v)
{
	if (!manifest_is_text(v, 16) || strcmp(json_object_get_string(v), "vhost-user") != 0)
		return manifest_wrong(p, member, v, "\"vhost-user\"");
	p->m->serves = true;
	return 0;
}

int manifest_take_account(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_bool(p, member, v, &p->m->keeps_account);
}

int manifest_take_when(const struct manifest_place *p, const char *member, json_object *v,
		       char *out)
{
	if (!manifest_is_text(v, MANIFEST_WHEN - 1))
		return manifest_wrong(p, member, v,
				      "at most 63 characters: KEY, KEY=VALUE, !KEY ...");
	strcpy(out, json_object_get_string(v));
	return 0;
}

static int take_argument(const struct manifest_place *p, const char *when, bool adds,
			 json_object *v)
{
	struct manifest_argument *a = &p->m->argument[p->m->narguments];

	if (p->m->narguments == MANIFEST_ARGUMENTS || !manifest_is_text(v, MANIFEST_ARGUMENT - 1))
		return manifest_wrong(p, "", v, "at most 48 texts of at most 511 characters");
	strcpy(a->when, when);
	a->adds = adds;
	strcpy(a->text, json_object_get_string(v));
	p->m->narguments++;
	return 0;
}

static int take_texts(const struct manifest_place *p, const char *when, bool adds,
		      json_object *list)
{
	int rc = 0;

	for (size_t i = 0; i < json_object_array_length(list) && !rc; i++)
		rc = take_argument(p, when, adds, json_object_array_get_idx(list, i));
	return rc;
}

/* {"if": "KEY", "then": [TEXT, ...]}, or "add" in place of "then" */
static int take_some(const struct manifest_place *p, json_object *o)
{
	json_object *list = NULL;
	char when[MANIFEST_WHEN] = "";
	bool adds = false;
	int rc = 0;

	json_object_object_foreach(o, key, v)
	{
		const bool add = !strcmp(key, "add");

		if (!strcmp(key, "if")) {
			rc = manifest_take_when(p, key, v, when);
		} else if ((add || !strcmp(key, "then")) && !list &&
			   json_object_is_type(v, json_type_array)) {
			list = v;
			adds = add;
		} else {
			rc = manifest_wrong(
				p, key, v, "\"if\" with a text, \"then\" or \"add\" with an array");
		}
		if (rc)
			return rc;
	}
	if (!list || !when[0])
		return manifest_wrong(p, "", o, "\"if\" and \"then\"");
	if (adds && !p->m->narguments)
		return manifest_wrong(p, "add", NULL, "an argument before it");
	return take_texts(p, when, adds, list);
}

int manifest_take_arguments(const struct manifest_place *p, const char *member, json_object *v)
{
	const struct manifest_place in = {p->m, p->name, member, p->e, NULL};
	int rc = 0;

	if (!json_object_is_type(v, json_type_array))
		return manifest_wrong(p, member, v, "an array");
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++) {
		json_object *one = json_object_array_get_idx(v, i);

		rc = json_object_is_type(one, json_type_object)
			     ? take_some(&in, one)
			     : take_argument(&in, "", false, one);
	}
	return rc;
}

/* ---- refusals ---- */

static struct manifest_refusal *last_refusal(const struct manifest_place *p)
{
	return &p->m->refusal[p->m->nrefusals];
}

static int refusal_when(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_when(p, member, v, last_refusal(p)->when);
}

static int refusal_says(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_line(p, member, v, last_refusal(p)->says);
}

static int refusal_file(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_word(p, member, v, last_refusal(p)->file);
}

static int refusal_at(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_whole(p, member, v, 0, 1u << 30, &last_refusal(p)->at);
}

static int refusal_multiple(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_whole(p, member, v, 2, 1u << 30, &last_refusal(p)->multiple);
}

static int take_bytes(const struct manifest_place *p, const char *member, json_object *v,
		      uint8_t out[MANIFEST_BYTES], unsigned *n)
{
	const char *s = manifest_is_text(v, 2 * MANIFEST_BYTES) ? json_object_get_string(v) : "x";
	size_t len = strlen(s);

	if (!len || len % 2 || strspn(s, "0123456789abcdef") != len)
		return manifest_wrong(p, member, v, "1 to 16 bytes in hexadecimal");
	*n = (unsigned)len / 2;
	for (unsigned i = 0; i < *n; i++) {
		unsigned byte;

		sscanf(s + (size_t)2 * i, "%2x", &byte);
		out[i] = (uint8_t)byte;
	}
	return 0;
}

static int refusal_bits(const struct manifest_place *p, const char *member, json_object *v)
{
	return take_bytes(p, member, v, last_refusal(p)->bits, &last_refusal(p)->nbits);
}

static int refusal_bytes(const struct manifest_place *p, const char *member, json_object *v)
{
	return take_bytes(p, member, v, last_refusal(p)->bytes, &last_refusal(p)->nbytes);
}

static const struct manifest_member refusal_members[] = {
	{"if", refusal_when},     {"says", refusal_says},         {"file", refusal_file},
	{"at", refusal_at},       {"multiple", refusal_multiple}, {"bits", refusal_bits},
	{"unless", refusal_bytes}};

static int take_refusal(const struct manifest_place *p, json_object *v)
{
	struct manifest_refusal *r = last_refusal(p);
	int rc;

	if (p->m->nrefusals == MANIFEST_REFUSALS || !json_object_is_type(v, json_type_object))
		return manifest_wrong(p, "", v, "at most 24 objects");
	*r = (struct manifest_refusal){0};
	rc = manifest_take_members(p, v, refusal_members, ARRAY_LEN(refusal_members));
	if (rc)
		return rc;
	if (!r->says[0])
		return manifest_wrong(p, "says", NULL, "a line for people");
	if (!r->file[0] == (r->nbits || r->nbytes || r->multiple))
		return manifest_wrong(p, "file", NULL, "it with bits, unless or multiple");
	p->m->nrefusals++;
	return 0;
}

int manifest_take_refusals(const struct manifest_place *p, const char *member, json_object *v)
{
	const struct manifest_place in = {p->m, p->name, member, p->e, NULL};
	int rc = 0;

	if (!json_object_is_type(v, json_type_array))
		return manifest_wrong(p, member, v, "an array of objects");
	for (size_t i = 0; i < json_object_array_length(v) && !rc; i++)
		rc = take_refusal(&in, json_object_array_get_idx(v, i));
	return rc;
}

/* ---- the whole ---- */

const char *manifest_next_value(const char *text, size_t *n)
{
	const char *p = strstr(text, "${");

	if (!p)
		return NULL;
	*n = strspn(p + 2, MANIFEST_LETTERS);
	return p + 2;
}

static int check_argument(const struct manifest_place *p, const struct manifest_argument *a)
{
	char what[MANIFEST_WHEN + 32];
	const char *k = a->text;
	size_t n;

	if (!manifest_when_is_known(p->m, a->when)) {
		snprintf(what, sizeof(what), "arguments: if '%s'", a->when);
		return manifest_wrong(p, what, NULL, "keys of settings, ro or target");
	}
	while ((k = manifest_next_value(k, &n))) {
		if (k[n] == '}' && manifest_key_is_known(p->m, k, n))
			continue;
		snprintf(what, sizeof(what), "arguments: '${%.*s'", (int)(n < 60 ? n : 60), k);
		return manifest_wrong(p, what, NULL,
				      "the key of a setting, ro, write, queues or target");
	}
	return 0;
}

static int check_refusal(const struct manifest_place *p, const struct manifest_refusal *r)
{
	const struct manifest_setting *s = manifest_setting_of(p->m, r->file, strlen(r->file));

	if (!manifest_when_is_known(p->m, r->when))
		return manifest_wrong(p, "refuse.if", NULL, "keys of settings, ro or target");
	if (r->file[0] && (!s || s->type != MANIFEST_FILE))
		return manifest_wrong(p, "refuse.file", NULL, "the key of a file");
	return 0;
}

/* A module of the first kind has nothing of this, and one of the second nothing of the other. */
static int check_kind(const struct manifest_place *p, json_object *o)
{
	static const char *const second[] = {"arguments",     "refuse",  "target",    "package",
					     "keeps-account", "network", "reconnects"};
	static const char *const first[] = {"jail"};
	const char *const *list = p->m->serves ? first : second;
	size_t n = p->m->serves ? ARRAY_LEN(first) : ARRAY_LEN(second);

	for (size_t i = 0; i < n; i++) {
		if (json_object_object_get_ex(o, list[i], NULL))
			return manifest_wrong(p, list[i], json_object_object_get(o, list[i]),
					      p->m->serves ? "it without \"serves\""
							   : "it with \"serves\" alone");
	}
	if (p->m->serves == (*p->m->program != '/'))
		return manifest_wrong(p, "program", json_object_object_get(o, "program"),
				      p->m->serves
					      ? "an absolute path"
					      : "the name of a file beside it, without a path");
	for (unsigned i = 0; i < p->m->nsettings && !p->m->serves; i++) {
		if (p->m->setting[i].write)
			return manifest_wrong(p, "settings", NULL,
					      "files that are written with \"serves\" alone");
		if (p->m->setting[i].at[0] || p->m->setting[i].type == MANIFEST_HOSTS)
			return manifest_wrong(p, "settings", NULL,
					      "\"at\" and \"hosts\" with \"serves\" alone");
	}
	return 0;
}

int manifest_check_serves(const struct manifest_place *p, json_object *o)
{
	int rc = check_kind(p, o);

	if (rc || !p->m->serves)
		return rc;
	if (!p->m->has_target)
		return manifest_wrong(p, MANIFEST_TARGET, NULL, "what follows its name");
	for (unsigned i = 0; i < p->m->narguments && !rc; i++)
		rc = check_argument(p, &p->m->argument[i]);
	for (unsigned i = 0; i < p->m->nrefusals && !rc; i++)
		rc = check_refusal(p, &p->m->refusal[i]);
	rc = rc ? rc : manifest_check_places(p);
	return rc ? rc : manifest_check_network(p);
}

/* ---- what is refused ---- */

/* Beyond its end there is nothing: no bits, and no bytes that there must be. */
static int file_holds(const struct manifest_refusal *r, int fd, bool *holds)
{
	uint8_t at[MANIFEST_BYTES] = {0};
	uint64_t size = 0, n;
	int rc = file_size(fd, &size);

	n = size > r->at ? size - r->at : 0;
	if (n > sizeof(at))
		n = sizeof(at);
	if (!rc && n)
		rc = read_full(fd, at, (size_t)n, r->at);
	if (rc)
		return rc;
	*holds = (r->nbytes && (n < r->nbytes || memcmp(at, r->bytes, r->nbytes) != 0)) ||
		 (r->multiple && size % r->multiple);
	for (unsigned i = 0; i < r->nbits; i++)
		*holds |= (at[i] & r->bits[i]) != 0;
	return 0;
}

int manifest_refuses(const struct manifest *m, const struct manifest_values *v, const char *file,
		     int fd, struct err *e)
{
	for (unsigned i = 0; i < m->nrefusals; i++) {
		const struct manifest_refusal *r = &m->refusal[i];
		bool holds = true;
		int rc = 0;

		if (strcmp(r->file, file ? file : "") != 0 || !manifest_holds(v, r->when))
			continue;
		if (file)
			rc = file_holds(r, fd, &holds);
		if (rc)
			return err_sys(e, rc, "%s", file);
		if (holds)
			return err_set(e, -EINVAL, "%s", r->says);
	}
	return 0;
}

/* ---- arguments ---- */

/* What has been written so far, and how much room there is. */
struct writing {
	char *at, *end;
};

static bool write_text(struct writing *w, const char *text, size_t n)
{
	if (n >= (size_t)(w->end - w->at))
		return false;
	memcpy(w->at, text, n);
	w->at += n;
	return true;
}

static bool plain(const char *text)
{
	return !text[strspn(text, PLAIN_LETTERS)];
}

static int write_value(const struct manifest *m, const struct manifest_values *v, const char *key,
		       struct writing *w, struct err *e)
{
	const struct manifest_setting *s = manifest_setting_of(m, key, strlen(key));
	const char *value = manifest_value(v, key);
	char text[64];

	if (!strcmp(key, "queues")) {
		snprintf(text, sizeof(text), "%u", v->queues);
		value = text;
	} else if (value && s && s->type == MANIFEST_FILE) {
		snprintf(text, sizeof(text), "/files/%s", key);
		value = s->at[0] ? s->at : text;
	} else if (value && s && s->type == MANIFEST_HOSTS) {
		value = key; /* /etc/hosts has their addresses under this name */
	}
	if (!value)
		return err_set(e, -EINVAL, "%s: missing; the module %s needs it", key, m->about);
	if (!plain(value))
		return err_set(e, -EINVAL, "%s '%.60s'; expected letters, digits and %s", key,
			       value, "-._~:/?#[]@!&()*+;=%");
	return write_text(w, value, strlen(value)) ? 0 : err_set(e, -ENOSPC, "too many arguments");
}

static int write_argument(const struct manifest *m, const struct manifest_values *v,
			  const char *text, struct writing *w, struct err *e)
{
	const char *from = text, *key;
	size_t n;
	int rc = 0;

	while (!rc && (key = manifest_next_value(from, &n))) {
		char name[MANIFEST_WORD];

		snprintf(name, sizeof(name), "%.*s", (int)n, key);
		if (!write_text(w, from, (size_t)(key - 2 - from)))
			return err_set(e, -ENOSPC, "too many arguments");
		rc = write_value(m, v, name, w, e);
		from = key + n + 1;
	}
	if (!rc && !write_text(w, from, strlen(from)))
		rc = err_set(e, -ENOSPC, "too many arguments");
	if (!rc)
		*w->at++ = 0;
	return rc;
}

int manifest_argv(const struct manifest *m, const struct manifest_values *v,
		  const char *argv[MANIFEST_ARGUMENTS + 2], char *room, size_t size, struct err *e)
{
	struct writing w = {room, room + size};
	unsigned n = 0;
	int rc = 0;

	argv[n++] = strrchr(m->program, '/') + 1;
	for (unsigned i = 0; i < m->narguments && !rc; i++) {
		if (!manifest_holds(v, m->argument[i].when))
			continue;
		if (m->argument[i].adds && n > 1)
			w.at--; /* over the end of the one before */
		else
			argv[n++] = w.at;
		rc = write_argument(m, v, m->argument[i].text, &w, e);
	}
	argv[n] = NULL;
	return rc;
}
