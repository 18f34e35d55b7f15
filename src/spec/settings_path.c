/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paths of the host in the texts of settings, made absolute: what a user says to insulactl means the
 * user's directory, and is opened by another process. Where the paths are is said in the table
 * (`path`, `paths`, `bare`, items of type SETTING_PATH). See settings.h.
 */
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "config.h"
#include "settings.h"

/* The item after this one; "" at the end. */
static const char *next_item(const char *p)
{
	while (*p && (*p != ',' || p[1] == ','))
		p += *p == ',' ? 2 : 1;
	return *p ? p + 1 : p;
}

bool setting_is_bare(const struct setting *s, const char *text)
{
	size_t n = strcspn(text, ",");
	const char *equals = memchr(text, '=', n), *slash = memchr(text, '/', n), *at;

	if (!s->bare || !n || (equals && (!slash || equals < slash)))
		return false;
	for (at = s->bare; (at = strchr(at, ' ')); at++) {
		if (!strncmp(at + 1, text, n) && at[1 + n] == ' ')
			return false;
	}
	return true;
}

/* What follows the word of `words` that the text begins with; NULL: it begins with none. */
static const char *behind_word(const char *words, const char *text)
{
	while (*(words += strspn(words, " "))) {
		size_t n = strcspn(words, " ");

		if (!strncmp(text, words, n))
			return text + n;
		words += n;
	}
	return NULL;
}

/* Where the path begins, of a setting without items; NULL: there is none. */
static const char *find_path(const struct setting *s, const char *text)
{
	size_t n = s->path ? strlen(s->path) : 0, before = s->before ? strlen(s->before) : 0;

	if (before && !strncmp(text, s->before, before))
		text += before;
	if (s->paths)
		return behind_word(s->paths, text);
	return s->path && !strncmp(text, s->path, n) ? text + n : NULL;
}

/* Is the item's value this word? */
static bool is_word(const char *value, const char *word)
{
	size_t n = word ? strlen(word) : 0;

	return word && !strncmp(value, word, n) &&
	       (!value[n] || (value[n] == ',' && value[n + 1] != ','));
}

/* The path that an item has; NULL: it has none. */
static const char *path_of_item(const struct setting *s, const char *text)
{
	size_t key = strcspn(text, "=,");
	const struct setting_item *i = setting_item_find(s, text, key);
	const char *value = text + key + 1;

	if (!i || i->type != SETTING_PATH || text[key] != '=')
		return NULL;
	return is_word(value, i->word) ? NULL : value;
}

/* The path in the item that begins at `at`, if it is relative; NULL: there is none. */
static const char *relative_path(const struct setting *s, const char *text, const char *at)
{
	const char *path;

	if (!s->items)
		path = find_path(s, text);
	else if (at == text && setting_is_bare(s, text))
		path = text;
	else
		path = path_of_item(s, at);
	if (path && !strcmp(s->name, "disk") && config_module(path))
		return NULL; /* MODULE:TARGET; a file of that name is ./MODULE:... */
	return path && path_is_relative(path) ? path : NULL;
}

/* Where the item that begins there ends, its comma included. */
static const char *end_of_item(const struct setting *s, const char *at)
{
	return s->items ? next_item(at) : at + strlen(at);
}

static size_t relative_paths(const struct setting *s, const char *text)
{
	size_t n = 0;

	for (const char *at = text; *at; at = end_of_item(s, at))
		n += relative_path(s, text, at) != NULL;
	return n;
}

bool setting_is_relative(const struct setting *s, const char *text)
{
	return relative_paths(s, text) != 0;
}

/* The directory and a slash, as they are written in the setting. */
static char *put_directory(const struct setting *s, char *p, const char *cwd)
{
	for (const char *c = cwd; *c; c++) {
		if (s->items && *c == ',')
			*p++ = ',';
		*p++ = *c;
	}
	*p++ = '/';
	return p;
}

char *setting_absolute(const struct setting *s, const char *text, const char *cwd)
{
	char *out = malloc(strlen(text) + relative_paths(s, text) * (2 * strlen(cwd) + 1) + 1);
	char *p = out;

	if (!out)
		return NULL;
	for (const char *at = text, *end; *at; at = end) {
		const char *path = relative_path(s, text, at);
		size_t head = path ? (size_t)(path - at) : 0;

		end = end_of_item(s, at);
		memcpy(p, at, head);
		p += head;
		if (path)
			p = put_directory(s, p, cwd);
		memcpy(p, at + head, (size_t)(end - at) - head);
		p += (size_t)(end - at) - head;
	}
	*p = 0;
	return out;
}
