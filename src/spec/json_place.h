/* SPDX-License-Identifier: BSD-2-Clause */
/* Where in a JSON text something stands, for a message about it: json-c does not keep that. Pure.
 */
#ifndef SPEC_JSON_PLACE_H
#define SPEC_JSON_PLACE_H

#include <stddef.h>

struct json_source {
	const char *name; /* of the file; NULL: the text was not written by a person */
	const char *text;
	size_t len;
};

/* The offset of a key that is spelled so, without escapes: of the outermost object if `above` is
 * NULL, else anywhere below the key `above` of that object. `len`: it is not there. The text has
 * been parsed and is well formed. */
size_t json_place_of_key(const char *text, size_t len, const char *above, const char *key);

/* "NAME:LINE:COLUMN", both from 1 on; a column is a character. */
void json_place(const struct json_source *s, size_t at, char *out, size_t size);

#endif
