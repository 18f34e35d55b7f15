/* SPDX-License-Identifier: BSD-2-Clause */
/* What methods have in common (method.c). */
#ifndef DAEMON_METHOD_H
#define DAEMON_METHOD_H

#include <stdint.h>

#include <json-c/json.h>

#include "request.h"

/* The VM that the parameter "id" names; NULL: refused. */
struct machine *method_named(struct daemon *d, struct request *r);
/* The same, and it has processes. */
struct machine *method_active(struct daemon *d, struct request *r);
/* The same, and it is the client's to use: it does not stand in a pool. */
struct machine *method_machine(struct daemon *d, struct request *r);
/* How many streams came with the request, as descriptors or as names of pipes; negative: it is
 * refused. */
int method_streams(struct request *r);
/* Whose such pipes must be; NULL: anybody's. */
const char *method_owner(const struct request *r);
void method_refuse_field(struct request *r, enum rpc_code code, const char *reason,
			 const char *field, const char *value, const char *expected);
void method_refuse(struct request *r, enum rpc_code code, const char *reason, const char *text);
/* A supervisor's error. */
void method_refuse_as(struct request *r, json_object *error);
/* reply_fn: what the supervisor said, as it is. */
void method_pass_on(struct machine *m, struct request *r, json_object *result, json_object *error,
		    int fd);

#endif
