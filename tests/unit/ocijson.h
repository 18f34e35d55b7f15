/* SPDX-License-Identifier: BSD-2-Clause */
/* OCI configurations in tests: JSON with ' for ". */
#ifndef TESTS_OCIJSON_H
#define TESTS_OCIJSON_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "oci/bundle.h"
#include "spec/json.h"

/* The caller's. */
static inline char *quoted(const char *text)
{
	char *copy = strdup(text);

	for (char *p = copy; *p; p++) {
		if (*p == '\'')
			*p = '"';
	}
	return copy;
}

/* The caller's; it is valid. */
static inline json_object *json(const char *text)
{
	char *copy = quoted(text);
	const char *why;
	json_object *o = j_parse(copy, strlen(copy), BUNDLE_DEPTH, &why);

	ck_assert_msg(o != NULL, "%s: %s", copy, why);
	free(copy);
	return o;
}

/* A bundle that has read it; nothing is checked. The caller's: bundle_free(). */
static inline void bundle_from(struct bundle *b, const char *text)
{
	*b = (struct bundle){.spec = json(text)};
	b->process = j_get(b->spec, "process");
	b->linux_ = j_get(b->spec, "linux");
	b->mounts = j_get(b->spec, "mounts");
	b->hooks = j_get(b->spec, "hooks");
	b->annotations = j_get(b->spec, "annotations");
}

#endif
