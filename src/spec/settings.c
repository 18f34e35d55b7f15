/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of settings. See settings.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "settings.h"

const struct setting settings[SETTINGS] = {
	{.name = "kernel", .path = ""},
	{.name = "initrd", .path = ""},
	{.name = "append"},
	{.name = "cpus"},
	{.name = "mem"},
	{.name = "disk", .many = "disks", .path = "path=", .items = true, .bare = " ro direct "},
	{.name = "rootfs", .path = ""},
	{.name = "share", .many = "shares", .path = ""},
	{.name = "console", .path = "file="},
	{.name = "net", .many = "nets", .path = "socket=", .items = true},
	{.name = "rng"},
	{.name = "vsock", .path = "path=", .items = true, .bare = " "},
	{.name = "metrics", .path = ""},
	{.name = "timeout"},
	{.name = "interactive", .letter = 'i', .on = true},
	{.name = "tty", .letter = 't', .on = true},
	{.name = "env", .many = "env", .letter = 'e'},
	{.name = "cwd", .letter = 'w'},
	{.name = "user", .letter = 'u'},
};

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
		if (!strcmp(settings[i].many ? settings[i].many : settings[i].name, key))
			return &settings[i];
	}
	return NULL;
}

/* ---- flags ---- */

size_t settings_longopts(struct option *out)
{
	size_t n = 0;

	for (int i = 0; i < SETTINGS; i++) {
		if (!settings[i].letter)
			out[n++] = (struct option){settings[i].name, required_argument, NULL,
						   SETTING_FLAG + i};
	}
	return n;
}

void settings_letters(char *out)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!settings[i].letter)
			continue;
		*out++ = settings[i].letter;
		if (!settings[i].on)
			*out++ = ':';
	}
	*out = 0;
}

const struct setting *setting_of_flag(int flag)
{
	if (flag >= SETTING_FLAG && flag < SETTING_FLAG + SETTINGS)
		return &settings[flag - SETTING_FLAG];
	for (size_t i = 0; i < SETTINGS; i++) {
		if (settings[i].letter && settings[i].letter == flag)
			return &settings[i];
	}
	return NULL;
}

/* ---- paths ---- */

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

/* Where the path begins; NULL: there is none. */
static const char *find_path(const struct setting *s, const char *text)
{
	size_t n = s->path ? strlen(s->path) : 0;

	if (setting_is_bare(s, text))
		return text;
	while (s->path && strncmp(text, s->path, n) != 0) {
		text = s->items ? next_item(text) : "";
		if (!*text)
			return NULL;
	}
	return s->path ? text + n : NULL;
}

bool setting_is_relative(const struct setting *s, const char *text)
{
	const char *at = find_path(s, text);

	return at && path_is_relative(at);
}

char *setting_absolute(const struct setting *s, const char *text, const char *cwd)
{
	size_t head = setting_is_relative(s, text) ? (size_t)(find_path(s, text) - text) : 0;
	char *out = malloc(strlen(text) + 2 * strlen(cwd) + 2), *p = out;

	if (!out || !setting_is_relative(s, text))
		return out ? strcpy(out, text) : NULL;
	memcpy(p, text, head);
	p += head;
	for (const char *c = cwd; *c; c++) {
		if (s->items && *c == ',')
			*p++ = ',';
		*p++ = *c;
	}
	*p++ = '/';
	strcpy(p, text + head);
	return out;
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
