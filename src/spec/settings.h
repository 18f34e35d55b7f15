/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The settings of a VM: one table of their names, types, ranges and words. Everything that names a
 * setting is made from it:
 *
 *   flags of insula-run, insulactl run and create   settings_longopts(), settings_letters()
 *   keys of JSON, and what type they have           config_json.c
 *   the ranges that are checked, and their words    config_set.c, config_items.c, config_net.c
 *   the schema of a configuration (rpc.discover)    describe.c
 *   --help                                          describe.c
 *   completion in bash, zsh and fish                tools/insula-spec.c
 *   the table of keys in insula-run(1)              tools/insula-spec.c, checked by tests/api-doc
 *
 * A new setting is one row here, and one function that takes its value (config.h). Nothing here has
 * state.
 */
#ifndef SPEC_SETTINGS_H
#define SPEC_SETTINGS_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum setting_type {
	SETTING_TEXT,   /* in JSON a string; of a whole setting a whole number, too */
	SETTING_TEXTS,  /* of an item: one or several, a string or an array of strings */
	SETTING_PATH,   /* of the host */
	SETTING_NUMBER, /* in JSON a whole number */
	SETTING_SIZE,   /* "64M"; in JSON also a whole number of bytes */
	SETTING_FLAG,   /* without a value; in JSON true or false */
};

/* Part of a setting: "KEY=VALUE" or "KEY" between its commas, a member of its object in JSON. */
struct setting_item {
	const char *key;
	enum setting_type type;
	uint64_t min, max;  /* of NUMBER and SIZE; of TEXT: of its length, 0: any */
	const char *value;  /* how it is written in --help */
	const char *choice; /* words that it may be, between blanks; NULL: any text */
	const char *word;   /* of a PATH: what is no path; NULL: nothing */
	const char *help;
};

/* What one system lacks is refused there, in words, and not offered. */
enum setting_system { ON_LINUX = 1, ON_WINDOWS = 2, ON_BOTH = 3 };

struct setting {
	const char *name; /* config_set(); --NAME unless it has a letter */
	const char *many; /* its key in JSON where it is an array; NULL: it comes once, as NAME */
	const char *path; /* what stands before a path of the host: "", or "KEY="; NULL: no path */
	const char *before; /* a word that may stand before that; NULL: none */
	const char *paths;  /* words, between blanks, one of which stands before a path, or none;
			       NULL: see `path` */
	bool items;         /* a text of items between commas, ",," standing for one */
	const char *bare; /* the first item may be the path alone, unless it is one of these words,
			     each between blanks; NULL: it may not */
	char letter;      /* the short flag; 0: none */
	enum setting_type type;
	uint64_t min, max; /* as an item's */
	const char *unit;  /* of a number; NULL: none, or bytes */
	const char *value; /* how it is written in --help; NULL: it has none */
	const char *words; /* what its text may begin with, between blanks, for completion */
	const char *help;
	/* Where they differ on Windows; NULL: they do not. */
	const char *value_windows, *help_windows;
	enum setting_system on;
	const struct setting_item *item;
	size_t nitems;
};

#define SETTINGS 36
extern const struct setting settings[SETTINGS];
/* settings_linux.c, settings_win.c: where this program runs. */
extern const enum setting_system settings_here;

/* By config_set()'s name; by the key in JSON. NULL: there is none. */
const struct setting *setting_find(const char *name);
const struct setting *setting_of_key(const char *key);
/* Its key in JSON. */
const char *setting_key(const struct setting *s);
/* By the first `len` bytes of a text; NULL: there is none. */
const struct setting_item *setting_item_find(const struct setting *s, const char *key, size_t len);
/* An item whose key is near; NULL: none is. */
const char *setting_item_meant(const struct setting *s, const char *key);
/* "a, b, c": the keys of its items. */
void setting_item_keys(const struct setting *s, char *out, size_t size);

/* For getopt_long(): what settings_longopts() adds has the values SETTING_FLAG_BASE + index, which
 * are above every character; SETTINGS entries are room enough. Its result: how many there are. */
#define SETTING_FLAG_BASE 1000
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
