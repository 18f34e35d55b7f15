/* SPDX-License-Identifier: BSD-2-Clause */
/* Between the files that read a manifest; manifest.h is for everybody else. */
#ifndef SPEC_MANIFEST_TAKE_H
#define SPEC_MANIFEST_TAKE_H

#include "manifest.h"

struct json_object;

#define MANIFEST_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789-+_" /* of a word */
#define MANIFEST_UNFIT (MANIFEST_CHOICES * (MANIFEST_WORD + 4))

/* What is being read: "manifest nbd: settings.timeout". */
struct manifest_place {
	struct manifest *m;
	const char *name, *where;
	struct err *e;
	struct manifest_setting *setting; /* NULL: none */
};

/* The members of an object, by name. */
struct manifest_member {
	const char *key;
	int (*take)(const struct manifest_place *p, const char *member, struct json_object *v);
};

/* "MEMBER: VALUE; expected ...". -EINVAL. */
int manifest_wrong(const struct manifest_place *p, const char *member, struct json_object *v,
		   const char *expected);
/* A text without control characters, of at most so many bytes. */
bool manifest_is_text(struct json_object *v, size_t most);
int manifest_take_word(const struct manifest_place *p, const char *member, struct json_object *v,
		       char *out);
int manifest_take_line(const struct manifest_place *p, const char *member, struct json_object *v,
		       char *out);
int manifest_take_bool(const struct manifest_place *p, const char *member, struct json_object *v,
		       bool *out);
int manifest_take_whole(const struct manifest_place *p, const char *member, struct json_object *v,
			uint64_t min, uint64_t max, uint64_t *out);
int manifest_take_members(const struct manifest_place *p, struct json_object *o,
			  const struct manifest_member *list, size_t n);

bool manifest_is_word(const char *s);

/* ---- manifest_setting.c ---- */

int manifest_take_target(const struct manifest_place *p, const char *member, struct json_object *v);
int manifest_take_settings(const struct manifest_place *p, const char *member,
			   struct json_object *v);
/* What was expected, perhaps written in `room`. NULL: the value is one of the setting's. */
const char *manifest_unfit(const struct manifest_setting *s, const char *value,
			   char room[MANIFEST_UNFIT]);

/* ---- manifest_serve.c: members of the second kind ---- */

int manifest_take_path(const struct manifest_place *p, const char *member, struct json_object *v);
int manifest_take_serves(const struct manifest_place *p, const char *member, struct json_object *v);
int manifest_take_account(const struct manifest_place *p, const char *member,
			  struct json_object *v);
int manifest_take_arguments(const struct manifest_place *p, const char *member,
			    struct json_object *v);
int manifest_take_refusals(const struct manifest_place *p, const char *member,
			   struct json_object *v);
int manifest_take_when(const struct manifest_place *p, const char *member, struct json_object *v,
		       char *out);
bool manifest_key_is_known(const struct manifest *m, const char *key, size_t len);
/* Are all of its keys there? */
bool manifest_when_is_known(const struct manifest *m, const char *when);
/* NULL: there is none of that name; MANIFEST_TARGET is one. */
const struct manifest_setting *manifest_setting_of(const struct manifest *m, const char *key,
						   size_t len);
/* The next ${KEY} of a text, behind the "${"; *n is how long the key is. NULL: there is none. */
const char *manifest_next_value(const char *text, size_t *n);

/* ---- manifest_network.c ---- */

int manifest_take_network(const struct manifest_place *p, const char *member,
			  struct json_object *v);
int manifest_take_reconnects(const struct manifest_place *p, const char *member,
			     struct json_object *v);
int manifest_take_parts(const struct manifest_place *p, const char *member, struct json_object *v);
int manifest_check_network(const struct manifest_place *p);
/* No two files where the program would see one (`at`). */
int manifest_check_places(const struct manifest_place *p);
/* Is it a key of a URI's part, or of `parts`? */
bool manifest_part_is_known(const struct manifest *m, const char *key, size_t len);
/* The parts of a target, as manifest_put() puts them. -EINVAL: it does not look like that. */
int manifest_put_parts(const struct manifest *m, const char *target, char *out, size_t size,
		       size_t *n, struct err *e);
/* All members are there: do they fit its kind, and name what there is? */
int manifest_check_serves(const struct manifest_place *p, struct json_object *o);

#endif
