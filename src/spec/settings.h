/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The settings of a VM by their names: what they are called as a flag and in JSON, whether they
 * come once or several times, and where in their text a path of the host stands.
 *
 * insula-run makes its flags of this table, config_json() its keys, and insulactl turns the one
 * into the other. What the values mean is in config.c alone. Nothing here has state.
 */
#ifndef SPEC_SETTINGS_H
#define SPEC_SETTINGS_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

struct setting {
	const char *name; /* config_set(); --NAME unless it has a letter */
	const char
		*many; /* its key in JSON where it is an array; NULL: it comes once, under NAME */
	const char *path; /* what stands before a path of the host: "", or "KEY="; NULL: no path */
	bool items;       /* a text of items between commas, ",," standing for one */
	const char *bare; /* the first item may be the path alone, unless it is one of these words,
			     each between blanks; NULL: it may not */
	char letter;      /* the short flag; 0: none */
	bool on;          /* without a value: "on", and true in JSON */
};

#define SETTINGS 19
extern const struct setting settings[SETTINGS];

/* By config_set()'s name; by the key in JSON. NULL: there is none. */
const struct setting *setting_find(const char *name);
const struct setting *setting_of_key(const char *key);

/* For getopt_long(): what settings_longopts() adds has the values SETTING_FLAG + index, which are
 * above every character; SETTINGS entries are room enough. Its result: how many there are. */
#define SETTING_FLAG 1000
size_t settings_longopts(struct option *out);
/* Their letters, each with a colon if it takes a value; `out` has 2 * SETTINGS + 1 bytes. */
void settings_letters(char *out);
/* The setting of what getopt_long() returned; NULL: another flag. */
const struct setting *setting_of_flag(int flag);

/* Is the text's first item the path alone, without its key? So it is unless it is a word of the
 * setting's own, or has a '=' before the first '/': "a=b" is written "./a=b" or "path=a=b". */
bool setting_is_bare(const struct setting *s, const char *text);

/* The setting's text with the path in it made absolute, from `cwd` on; the caller's. NULL: out of
 * memory. A text that is malformed is copied: whoever reads it will say so. */
char *setting_absolute(const struct setting *s, const char *text, const char *cwd);
/* Has it a path that becomes absolute so? */
bool setting_is_relative(const struct setting *s, const char *text);

/* "-e NAME": 1 and NAME=VALUE, the caller's, from `text` itself or else from our own environment;
 * 0: it is not there; -ENOMEM. */
int setting_env(const char *text, char **out);

#endif
