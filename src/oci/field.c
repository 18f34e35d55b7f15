/* SPDX-License-Identifier: BSD-2-Clause */
/* Typed members of a configuration. See field.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "field.h"
#include "spec/json.h"

int field_wrong(const char *where, const char *key, json_object *v, const char *expected,
		struct err *e)
{
	return err_set(e, -EINVAL, "%s%s%s: %.60s; expected %s", where,
		       where[0] && key[0] && key[0] != '[' ? "." : "", key,
		       v ? j_text(v) : "nothing", expected);
}

static int field_typed(json_object *o, const char *where, const char *key, json_type type,
		       const char *expected, json_object **out, struct err *e)
{
	json_object *v = j_get(o, key);

	*out = NULL;
	if (!v)
		return 0;
	if (!json_object_is_type(v, type))
		return field_wrong(where, key, v, expected, e);
	*out = v;
	return 0;
}

int field_object(json_object *o, const char *where, const char *key, json_object **out,
		 struct err *e)
{
	return field_typed(o, where, key, json_type_object, "an object", out, e);
}

int field_array(json_object *o, const char *where, const char *key, json_object **out,
		struct err *e)
{
	return field_typed(o, where, key, json_type_array, "an array", out, e);
}

static bool is_text(json_object *v)
{
	return json_object_is_type(v, json_type_string) &&
	       strlen(json_object_get_string(v)) == (size_t)json_object_get_string_len(v);
}

int field_text(json_object *o, const char *where, const char *key, const char **out, struct err *e)
{
	json_object *v = j_get(o, key);

	*out = NULL;
	if (!v)
		return 0;
	if (!is_text(v))
		return field_wrong(where, key, v, "a string", e);
	*out = json_object_get_string(v);
	return 0;
}

int field_object_at(json_object *array, const char *where, size_t i, char at[FIELD_WHERE_MAX],
		    json_object **out, struct err *e)
{
	*out = json_object_array_get_idx(array, i);
	field_at(at, where, i);
	return json_object_is_type(*out, json_type_object)
		       ? 0
		       : field_wrong(at, "", *out, "an object", e);
}

int field_text_at(json_object *array, const char *where, size_t i, const char **out, struct err *e)
{
	json_object *v = json_object_array_get_idx(array, i);
	char key[32];

	if (!is_text(v)) {
		snprintf(key, sizeof(key), "[%zu]", i);
		return field_wrong(where, key, v, "a string", e);
	}
	*out = json_object_get_string(v);
	return 0;
}

int field_path_at(json_object *array, const char *where, size_t i, const char **out, struct err *e)
{
	char key[32];
	int rc = field_text_at(array, where, i, out, e);

	if (rc || (*out)[0] == '/')
		return rc;
	snprintf(key, sizeof(key), "[%zu]", i);
	return field_wrong(where, key, json_object_array_get_idx(array, i), "an absolute path", e);
}

int field_int(json_object *o, const char *where, const char *key, int64_t min, int64_t max,
	      int64_t *out, struct err *e)
{
	json_object *v = j_get(o, key);
	char expected[80];
	int64_t n;

	if (!v)
		return 0;
	n = json_object_get_int64(v);
	/* json-c clamps what is beyond 63 bits. */
	if (!json_object_is_type(v, json_type_int) || n < min || n > max ||
	    (n == INT64_MAX && json_object_get_uint64(v) > INT64_MAX)) {
		snprintf(expected, sizeof(expected), "a whole number from %lld to %lld",
			 (long long)min, (long long)max);
		return field_wrong(where, key, v, expected, e);
	}
	*out = n;
	return 1;
}

int field_u64(json_object *o, const char *where, const char *key, uint64_t *out, struct err *e)
{
	json_object *v = j_get(o, key);

	if (!v)
		return 0;
	if (!json_object_is_type(v, json_type_int) ||
	    (json_object_get_int64(v) < 0 && json_object_get_int64(v) != INT64_MAX))
		return field_wrong(where, key, v, "a whole number that is not negative", e);
	*out = json_object_get_uint64(v);
	return 1;
}

int field_bool(json_object *o, const char *where, const char *key, bool *out, struct err *e)
{
	json_object *v = j_get(o, key);

	if (!v)
		return 0;
	if (!json_object_is_type(v, json_type_boolean))
		return field_wrong(where, key, v, "true or false", e);
	*out = json_object_get_boolean(v);
	return 1;
}

void field_at(char out[FIELD_WHERE_MAX], const char *where, size_t i)
{
	snprintf(out, FIELD_WHERE_MAX, "%.64s[%zu]", where, i);
}

void field_in(char out[FIELD_WHERE_MAX], const char *where, const char *key)
{
	snprintf(out, FIELD_WHERE_MAX, "%.60s%s%.30s", where, where[0] ? "." : "", key);
}

size_t field_count(json_object *array)
{
	return array ? json_object_array_length(array) : 0;
}
