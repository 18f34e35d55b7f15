/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of methods as schemas, as an OpenRPC document and as Markdown (discover.c). */
#ifndef DAEMON_DISCOVER_H
#define DAEMON_DISCOVER_H

#include <json-c/json.h>

#include <insula/err.h>

/* The schemas as objects; owned by the daemon. */
struct schemas {
	json_object **params, **result;
};
int schemas_load(struct schemas *s, struct err *e);
void schemas_free(struct schemas *s);
json_object *discover_document(void); /* the caller's */
int discover_markdown(void);          /* to standard output */

#endif
