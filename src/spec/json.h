/* SPDX-License-Identifier: BSD-2-Clause */
/* Short names for what supervisor, daemon and insulactl do with json-c all the time. One thread per
 * object. */
#ifndef SPEC_JSON_H
#define SPEC_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

/* Add a member; a NULL string adds nothing. */
void j_str(json_object *o, const char *key, const char *value);
void j_int(json_object *o, const char *key, int64_t value);
void j_bool(json_object *o, const char *key, bool value);
/* Takes over `value`. */
void j_obj(json_object *o, const char *key, json_object *value);

/* A member of this type, or the default. Strings with a NUL inside are no strings here. */
const char *j_get_str(json_object *o, const char *key, const char *otherwise);
int64_t j_get_int(json_object *o, const char *key, int64_t otherwise);
bool j_get_bool(json_object *o, const char *key, bool otherwise);
json_object *j_get(json_object *o, const char *key); /* NULL: none; borrowed */

/* One whole JSON value, strictly, at most `depth` deep; NULL and a static reason. */
json_object *j_parse(const char *text, size_t len, int depth, const char **why);
/* A copy in which no name and no string has what err_clean() replaces, or a NUL; takes `o`, which
 * may be NULL, over. As deep as `o` is, so of one that j_parse() has bounded. */
json_object *j_clean(json_object *o);
/* The text of an object on one line; owned by the object. */
const char *j_text(json_object *o);

#endif
