/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a user says to a module: `options=`, checked against the settings that its manifest
 * declares, and completed with their defaults. What comes out is the list of "KEY=VALUE" that the
 * module gets. See manifest.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "manifest_take.h"

#define VALUE_MAX 1024 /* of a file: its path */

static int unknown_setting(const struct manifest *m, const char *item, size_t len, struct err *e)
{
	char all[MANIFEST_SETTINGS * MANIFEST_WORD];
	size_t n = 0;

	all[0] = 0;
	for (unsigned i = 0; i < m->nsettings; i++)
		n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", i ? ", " : "",
				      m->setting[i].key);
	return err_set(e, -EINVAL, "options: '%.*s'; expected KEY=VALUE with a key of: %.150s",
		       (int)(len < 60 ? len : 60), item, *all ? all : "(it has none)");
}

int manifest_put(char *out, size_t size, size_t *n, const char *key, const char *value)
{
	int k = snprintf(out + *n, size - *n, "%s=%s", key, value);

	if (k < 0 || (size_t)k + 1 > size - *n)
		return -ENOSPC;
	*n += (size_t)k + 1;
	return 0;
}

/* Where the item ends: at a single colon. */
static size_t item_length(const char *item)
{
	size_t n = strcspn(item, ":");

	while (item[n] && item[n + 1] == ':')
		n += 2 + strcspn(item + n + 2, ":");
	return n;
}

/* Its value, with single colons. False: it is too long. */
static bool item_value(const char *from, size_t len, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (n + 1 == size)
			return false;
		out[n++] = from[i];
		i += from[i] == ':';
	}
	out[n] = 0;
	return true;
}

static int take_value(const struct manifest_setting *s, const char *value, char *out, size_t size,
		      size_t *n, struct err *e)
{
	char room[MANIFEST_UNFIT];
	const char *expected = manifest_unfit(s, value, room);

	if (expected)
		return err_set(e, -EINVAL, "options: %s '%.60s'; expected %.120s", s->key, value,
			       expected);
	return manifest_put(out, size, n, s->key, value) ? err_set(e, -EINVAL, "options: too long")
							 : 0;
}

/* One item: checked, and put. */
static int given_setting(const struct manifest *m, const char *item, size_t len, bool said[],
			 char *out, size_t size, size_t *n, struct err *e)
{
	size_t key = strcspn(item, "=:");
	const struct manifest_setting *s = key < len ? manifest_setting(m, item, key) : NULL;
	char value[VALUE_MAX];

	if (!s)
		return unknown_setting(m, item, len, e);
	len -= key + 1;
	if (!item_value(item + key + 1, len, value, sizeof(value)))
		return err_set(e, -EINVAL, "options: %s: %zu characters; expected at most %u",
			       s->key, len, VALUE_MAX - 1);
	if (said[s - m->setting])
		return err_set(e, -EINVAL, "options: %s: given twice; expected once", s->key);
	said[s - m->setting] = true;
	return take_value(s, value, out, size, n, e);
}

static int unsaid_setting(const struct manifest_setting *s, char *out, size_t size, size_t *n,
			  struct err *e)
{
	char room[MANIFEST_UNFIT];

	if (s->required)
		return err_set(e, -EINVAL, "options: %s: missing; expected %.120s", s->key,
			       manifest_unfit(s, "", room));
	if (s->value[0] && manifest_put(out, size, n, s->key, s->value))
		return err_set(e, -EINVAL, "options: too long");
	return 0;
}

int manifest_settings(const struct manifest *m, const char *given, char *out, size_t size,
		      struct err *e)
{
	bool said[MANIFEST_SETTINGS] = {false};
	size_t n = 0;
	int rc = 0;

	for (const char *p = given ? given : ""; *p && !rc;) {
		size_t len = item_length(p);

		rc = given_setting(m, p, len, said, out, size, &n, e);
		p += len + (p[len] == ':');
	}
	for (unsigned i = 0; i < m->nsettings && !rc; i++) {
		if (!said[i])
			rc = unsaid_setting(&m->setting[i], out, size, &n, e);
	}
	return rc ? rc : (int)n;
}

int manifest_target(const struct manifest *m, const char *target, char *out, size_t size,
		    struct err *e)
{
	char room[MANIFEST_UNFIT];
	const char *expected = manifest_unfit(&m->target, target, room);
	size_t n = 0;
	int rc;

	if (expected)
		return err_set(e, -EINVAL, "'%.60s'; expected %.120s", target, expected);
	if (manifest_put(out, size, &n, MANIFEST_TARGET, target))
		return err_set(e, -EINVAL, "too long");
	rc = manifest_put_parts(m, target, out, size, &n, e);
	return rc ? rc : (int)n;
}
