/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of settings in words: --help, completion, the schema of a configuration. Only what this
 * system has is described. */
#ifndef SPEC_DESCRIBE_H
#define SPEC_DESCRIBE_H

#include <stdbool.h>
#include <stddef.h>

#include <json-c/json.h>

#include "settings.h"

/* A flag of a program, also one that is no setting. */
struct flag_words {
	const char *name;  /* without dashes; NULL: it has a letter only */
	char letter;       /* 0: none */
	const char *value; /* how its value is written; NULL: it has none */
	const char *words; /* what that may begin with, between blanks; NULL: anything */
	bool path;         /* it is, or may have in it, a path of the host */
	const char *help;
};

#define FLAG_WIDTH 80

/* Words in lines of FLAG_WIDTH, from `column` on; further lines begin at `indent`. No line end. */
void print_words(const char *text, size_t column, size_t indent);
/* A flag in --help, to standard output: no line is wider than FLAG_WIDTH. */
void flag_print(const struct flag_words *f);
/* What this system has of the settings; SETTINGS entries are room enough. How many there are. */
size_t settings_flags(struct flag_words *out);
/* JSON Schema (draft 7) of a configuration, what insula-run --json takes; the caller's. */
json_object *settings_schema(void);

#endif
