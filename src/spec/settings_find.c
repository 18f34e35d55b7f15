/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is in the table of settings: a row by its name, its key or its flag; items of a row; and the
 * flags of all rows, as getopt_long() wants them. See settings.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "settings.h"

#define ITEMS_MAX 24

const struct setting *setting_find(const char *name)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!strcmp(settings[i].name, name))
			return &settings[i];
	}
	return NULL;
}

const struct setting *setting_of_key(const char *key)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!strcmp(setting_key(&settings[i]), key))
			return &settings[i];
	}
	return NULL;
}

const char *setting_key(const struct setting *s)
{
	return s->many ? s->many : s->name;
}

const struct setting_item *setting_item_find(const struct setting *s, const char *key, size_t len)
{
	for (size_t i = 0; i < s->nitems; i++) {
		if (strlen(s->item[i].key) == len && !strncmp(s->item[i].key, key, len))
			return &s->item[i];
	}
	return NULL;
}

const char *setting_item_meant(const struct setting *s, const char *key)
{
	const char *known[ITEMS_MAX];

	for (size_t i = 0; i < s->nitems && i < ITEMS_MAX; i++)
		known[i] = s->item[i].key;
	return strlen(key) > 2 ? nearest(key, known, s->nitems < ITEMS_MAX ? s->nitems : ITEMS_MAX)
			       : NULL;
}

void setting_item_keys(const struct setting *s, char *out, size_t size)
{
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < s->nitems && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", s->item[i].key);
}

/* ---- flags ---- */

size_t settings_longopts(struct option *out)
{
	size_t n = 0;

	for (int i = 0; i < SETTINGS; i++) {
		if (!settings[i].letter)
			out[n++] = (struct option){
				settings[i].name,
				settings[i].type == SETTING_FLAG ? no_argument : required_argument,
				NULL, SETTING_FLAG_BASE + i};
	}
	return n;
}

void settings_letters(char *out)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!settings[i].letter)
			continue;
		*out++ = settings[i].letter;
		if (settings[i].type != SETTING_FLAG)
			*out++ = ':';
	}
	*out = 0;
}

const struct setting *setting_of_flag(int flag)
{
	if (flag >= SETTING_FLAG_BASE && flag < SETTING_FLAG_BASE + SETTINGS)
		return &settings[flag - SETTING_FLAG_BASE];
	for (size_t i = 0; i < SETTINGS; i++) {
		if (settings[i].letter && settings[i].letter == flag)
			return &settings[i];
	}
	return NULL;
}

/* ---- environment ---- */

int setting_env(const char *text, char **out)
{
	const char *value = strchr(text, '=') ? "" : getenv(text);

	*out = NULL;
	if (!value)
		return 0;
	if (asprintf(out, "%s%s%s", text, strchr(text, '=') ? "" : "=", value) < 0) {
		*out = NULL;
		return -ENOMEM;
	}
	return 1;
}
