/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of JSON Schema (draft 7) that the methods' tables use: type, properties, required,
 * additionalProperties (true or false), items, enum, minimum, maximum, minLength, maxLength,
 * maxItems. A type may be an array of types, one of which it must be. A word that it does not know
 * is an error of the schema, found by schema_check().
 */
#ifndef DAEMON_SCHEMA_H
#define DAEMON_SCHEMA_H

#include <json-c/json.h>

struct problem {
	const char *reason; /* stable: "missing", "unknown", "type", "value"; static */
	char field[128];    /* "config.cpus", "groups[3]" */
	char value[128];    /* what was there, shortened */
	char expected[256];
};

/* 0, or -1 with the first problem. */
int schema_validate(json_object *schema, json_object *value, struct problem *p);
/* 0 if the schema uses known words only, as they must be used; else -1 and the path of the word. */
int schema_check(json_object *schema, struct problem *p);

#endif
