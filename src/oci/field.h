/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Members of an OCI configuration, with their types. `where` is the path of the object, for
 * messages: "linux.resources", "mounts[3]"; "" is the outermost. A member that is absent or null is
 * absent. What is wrong is -EINVAL: "linux.resources.memory: \"x\"; expected an object". What comes
 * out is borrowed from the object.
 */
#ifndef OCI_FIELD_H
#define OCI_FIELD_H

#include "oci.h"

#define FIELD_WHERE_MAX 96 /* bytes of a path of names; longer ones are cut in messages */

/* -EINVAL: "WHERE.KEY: VALUE; expected EXPECTED". An empty key: WHERE itself. */
int field_wrong(const char *where, const char *key, json_object *v, const char *expected,
		struct err *e);
/* *out NULL: absent. */
int field_object(json_object *o, const char *where, const char *key, json_object **out,
		 struct err *e);
int field_array(json_object *o, const char *where, const char *key, json_object **out,
		struct err *e);
/* Without a NUL inside. *out NULL: absent. */
int field_text(json_object *o, const char *where, const char *key, const char **out, struct err *e);
/* An array's element, which is an object; and where it is: "mounts[3]". */
int field_object_at(json_object *array, const char *where, size_t i, char at[FIELD_WHERE_MAX],
		    json_object **out, struct err *e);
/* The same, of an array's element. */
int field_text_at(json_object *array, const char *where, size_t i, const char **out, struct err *e);
/* An absolute path. */
int field_path_at(json_object *array, const char *where, size_t i, const char **out, struct err *e);
/* 1: *out is set; 0: absent, *out is as it was. */
int field_int(json_object *o, const char *where, const char *key, int64_t min, int64_t max,
	      int64_t *out, struct err *e);
int field_u64(json_object *o, const char *where, const char *key, uint64_t *out, struct err *e);
int field_bool(json_object *o, const char *where, const char *key, bool *out, struct err *e);
/* The path of an array's element, or of a member: "mounts[3]", "linux.seccomp". */
void field_at(char out[FIELD_WHERE_MAX], const char *where, size_t i);
void field_in(char out[FIELD_WHERE_MAX], const char *where, const char *key);
/* How many elements; NULL has none. */
size_t field_count(json_object *array);

#endif
