/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings of a module, as its manifest declares them: the members of each, and whether a value is
 * one of a setting's. The default in the manifest and what a user says are judged by the same
 * function. See manifest.h.
 */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "manifest_take.h"

#define HOST_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:/+_"

static const char types_expected[] = "\"text\", \"number\", \"choice\", \"file\" or \"hosts\"";

static int setting_type(const struct manifest_place *p, const char *member, json_object *v)
{
	static const struct {
		const char *name;
		enum manifest_type type;
	} types[] = {{"text", MANIFEST_TEXT_TYPE},
		     {"number", MANIFEST_NUMBER},
		     {"choice", MANIFEST_CHOICE},
		     {"file", MANIFEST_FILE},
		     {"hosts", MANIFEST_HOSTS}};

	for (size_t i = 0; i < ARRAY_LEN(types) && manifest_is_text(v, 8); i++) {
		if (!strcmp(types[i].name, json_object_get_string(v))) {
			p->setting->type = types[i].type;
			return 0;
		}
	}
	return manifest_wrong(p, member, v, types_expected);
}

static int setting_min(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_whole(p, member, v, 0, INT64_MAX, &p->setting->min);
}

static int setting_max(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_whole(p, member, v, 0, INT64_MAX, &p->setting->max);
}

static int setting_choices(const struct manifest_place *p, const char *member, json_object *v)
{
	struct manifest_setting *s = p->setting;
	size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;
	int rc = 0;

	if (!n || n > MANIFEST_CHOICES)
		return manifest_wrong(p, member, v, "an array of 1 to 8 words");
	for (size_t i = 0; i < n && !rc; i++)
		rc = manifest_take_word(p, member, json_object_array_get_idx(v, i), s->choice[i]);
	s->nchoices = (unsigned)n;
	return rc;
}

static int setting_default(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_line(p, member, v, p->setting->value);
}

static int setting_help(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_line(p, member, v, p->setting->help);
}

static int setting_write(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_bool(p, member, v, &p->setting->write);
}

static int setting_line_of_user(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_bool(p, member, v, &p->setting->line_of_user);
}

static int setting_required(const struct manifest_place *p, const char *member, json_object *v)
{
	return manifest_take_bool(p, member, v, &p->setting->required);
}

/* They are one path, or one is a directory above the other. */
static bool paths_meet(const char *a, const char *b)
{
	const size_t x = strlen(a), y = strlen(b), n = x < y ? x : y;
	const char next = x < y ? b[n] : a[n];

	return !strncmp(a, b, n) && (!next || next == '/');
}

/* The jail makes it itself, or something above or below it (confine_root.c). */
static bool made_by_jail(const char *path)
{
	static const char *const made[] = {"/usr",   "/lib",       "/lib64",
					   "/dev",   "/proc",      "/share",
					   "/files", "/etc/hosts", "/etc/ld.so.cache"};

	for (size_t i = 0; i < ARRAY_LEN(made); i++) {
		if (paths_meet(path, made[i]))
			return true;
	}
	return false;
}

/* A path in the program's jail, where the directories above it are made. */
static int setting_at(const struct manifest_place *p, const char *member, json_object *v)
{
	const char *path = manifest_is_text(v, MANIFEST_AT - 1) ? json_object_get_string(v) : "";
	char whole[MANIFEST_AT + 1];

	snprintf(whole, sizeof(whole), "%s/", path);
	if (*path != '/' || strstr(whole, "//") || strstr(whole, "/../") || strstr(whole, "/./") ||
	    made_by_jail(path))
		return manifest_wrong(p, member, v,
				      "an absolute path of at most 63 characters without . and .., "
				      "and not where the jail has something of its own");
	strcpy(p->setting->at, path);
	return 0;
}

static const struct manifest_member setting_members[] = {
	{"at", setting_at},
	{"parts", manifest_take_parts},
	{"type", setting_type},
	{"min", setting_min},
	{"max", setting_max},
	{"choices", setting_choices},
	{"default", setting_default},
	{"help", setting_help},
	{"write", setting_write},
	{"required", setting_required},
	{"line-of-user", setting_line_of_user},
};

const char *manifest_unfit(const struct manifest_setting *s, const char *value,
			   char room[MANIFEST_UNFIT])
{
	const size_t size = MANIFEST_UNFIT;
	unsigned long long n = 0;
	size_t len = strlen(value), used = 0;

	if (s->type == MANIFEST_NUMBER) {
		if (len && len < 19 && strspn(value, "0123456789") == len)
			sscanf(value, "%llu", &n);
		else
			n = UINT64_MAX;
		snprintf(room, size, "a whole number from %llu to %llu", (unsigned long long)s->min,
			 (unsigned long long)s->max);
		return n >= s->min && n <= s->max ? NULL : room;
	}
	if (s->type == MANIFEST_FILE) {
		snprintf(room, size, "an absolute path");
		return *value == '/' ? NULL : room;
	}
	if (s->type == MANIFEST_HOSTS) {
		snprintf(room, size, "names or addresses, + between them");
		return len && strspn(value, HOST_LETTERS) == len ? NULL : room;
	}
	if (s->type == MANIFEST_TEXT_TYPE) {
		snprintf(room, size, "%llu to %llu characters", (unsigned long long)s->min,
			 (unsigned long long)s->max);
		return len >= s->min && len <= s->max ? NULL : room;
	}
	for (unsigned i = 0; i < s->nchoices; i++) {
		if (!strcmp(s->choice[i], value))
			return NULL;
		used += (size_t)snprintf(room + used, size - used, "%s%s", i ? " or " : "",
					 s->choice[i]);
	}
	return room;
}

/* The members of one, into *s. */
static int read_setting(const struct manifest_place *in, struct manifest_setting *s, json_object *v)
{
	char room[MANIFEST_UNFIT];
	const char *expected;
	int rc = manifest_take_members(in, v, setting_members, ARRAY_LEN(setting_members));

	if (rc)
		return rc;
	if (!s->type)
		return manifest_wrong(in, "type", NULL, types_expected);
	if ((s->type == MANIFEST_CHOICE) != (s->nchoices != 0))
		return manifest_wrong(in, "choices", NULL, "them with \"choice\", and there alone");
	if (s->write && s->type != MANIFEST_FILE)
		return manifest_wrong(in, "write", NULL, "it with \"file\" alone");
	if (s->at[0] && s->type != MANIFEST_FILE)
		return manifest_wrong(in, "at", NULL, "it with \"file\" alone");
	if (s->line_of_user && (s->type != MANIFEST_FILE || s->write))
		return manifest_wrong(in, "line-of-user", NULL, "it with \"file\" alone");
	if (s->type == MANIFEST_FILE && s->max > MANIFEST_FILE_MAX)
		return manifest_wrong(in, "max", NULL, "at most 262144 bytes of a file");
	if (s->min > s->max)
		return manifest_wrong(in, "max", NULL, "no less than min");
	expected = s->value[0] ? manifest_unfit(s, s->value, room) : NULL;
	if (expected)
		return manifest_wrong(in, "default", json_object_object_get(v, "default"),
				      expected);
	return 0;
}

static int take_setting(const struct manifest_place *p, const char *key, json_object *v)
{
	struct manifest_setting *s = &p->m->setting[p->m->nsettings];
	char where[64];
	const struct manifest_place in = {p->m, p->name, where, p->e, s};
	int rc;

	snprintf(where, sizeof(where), "settings.%.40s", key);
	if (p->m->nsettings == MANIFEST_SETTINGS || !manifest_is_word(key) ||
	    !json_object_is_type(v, json_type_object))
		return manifest_wrong(&in, "", v, "at most 16 settings, each an object");
	*s = (struct manifest_setting){.max = MANIFEST_TEXT - 1};
	strcpy(s->key, key);
	rc = read_setting(&in, s, v);
	p->m->nsettings += !rc;
	return rc;
}

int manifest_take_target(const struct manifest_place *p, const char *member, json_object *v)
{
	struct manifest_setting *s = &p->m->target;
	const struct manifest_place in = {p->m, p->name, MANIFEST_TARGET, p->e, s};

	if (!json_object_is_type(v, json_type_object))
		return manifest_wrong(p, member, v, "an object, as a setting is");
	*s = (struct manifest_setting){.key = MANIFEST_TARGET, .max = MANIFEST_TEXT - 1};
	p->m->has_target = true;
	return read_setting(&in, s, v);
}

int manifest_take_settings(const struct manifest_place *p, const char *member, json_object *v)
{
	int rc = 0;

	if (!json_object_is_type(v, json_type_object))
		return manifest_wrong(p, member, v, "an object of settings");
	json_object_object_foreach(v, key, one)
	{
		rc = take_setting(p, key, one);
		if (rc)
			return rc;
	}
	return rc;
}

/* The i-th of the settings, and then the target. */
static const struct manifest_setting *nth(const struct manifest *m, unsigned i)
{
	return i < m->nsettings ? &m->setting[i] : &m->target;
}

static int meets(const struct manifest_place *p, const struct manifest_setting *s)
{
	char where[64];
	const struct manifest_place in = {p->m, p->name, where, p->e, NULL};
	json_object *at = json_object_new_string(s->at);
	int rc;

	snprintf(where, sizeof(where), "%s%.40s", s == &p->m->target ? "" : "settings.", s->key);
	rc = manifest_wrong(&in, "at", at,
			    "a place that is no other file's, nor below or above it");
	json_object_put(at);
	return rc;
}

int manifest_check_places(const struct manifest_place *p)
{
	for (unsigned i = 0; i <= p->m->nsettings; i++) {
		for (unsigned j = 0; j < i; j++) {
			const char *a = nth(p->m, i)->at, *b = nth(p->m, j)->at;

			if (*a && *b && paths_meet(a, b))
				return meets(p, nth(p->m, i));
		}
	}
	return 0;
}

const struct manifest_setting *manifest_setting(const struct manifest *m, const char *key,
						size_t len)
{
	for (unsigned i = 0; i < m->nsettings; i++) {
		if (strlen(m->setting[i].key) == len && !strncmp(m->setting[i].key, key, len))
			return &m->setting[i];
	}
	return NULL;
}
