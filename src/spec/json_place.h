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

/* The offset of a key of the outermost object that is spelled so, without escapes; with `index`
 * from 0 on, of that element of the array that is its value; with `member`, of that key of the
 * object there. What is not found is looked for one less deep; the end of the text: nothing is. The
 * text has been parsed and is well formed. */
size_t json_place_of(const struct json_source *s, const char *key, int index, const char *member);

/* "NAME:LINE:COLUMN", both from 1 on; a column is a character. */
void json_place(const struct json_source *s, size_t at, char *out, size_t size);

#endif
