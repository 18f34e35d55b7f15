/* SPDX-License-Identifier: BSD-2-Clause */
/* json-c in short. See json.h. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/err.h>

#include "json.h"

void j_str(json_object *o, const char *key, const char *value)
{
	if (value)
		json_object_object_add(o, key, json_object_new_string(value));
}

void j_int(json_object *o, const char *key, int64_t value)
{
	json_object_object_add(o, key, json_object_new_int64(value));
}

void j_bool(json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

void j_obj(json_object *o, const char *key, json_object *value)
{
	json_object_object_add(o, key, value);
}

json_object *j_get(json_object *o, const char *key)
{
	json_object *v;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v))
		return NULL;
	return v;
}

const char *j_get_str(json_object *o, const char *key, const char *otherwise)
{
	json_object *v = j_get(o, key);

	if (!v || !json_object_is_type(v, json_type_string) ||
	    strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
		return otherwise;
	return json_object_get_string(v);
}

int64_t j_get_int(json_object *o, const char *key, int64_t otherwise)
{
	json_object *v = j_get(o, key);

	return v && json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : otherwise;
}

bool j_get_bool(json_object *o, const char *key, bool otherwise)
{
	json_object *v = j_get(o, key);

	return v && json_object_is_type(v, json_type_boolean) ? json_object_get_boolean(v)
							      : otherwise;
}

json_object *j_parse(const char *text, size_t len, int depth, const char **why)
{
	json_tokener *tok = json_tokener_new_ex(depth);
	json_object *o = NULL;
	enum json_tokener_error rc;
	size_t end = 0;

	*why = "out of memory";
	if (!tok || len > INT_MAX - 1) {
		if (tok)
			json_tokener_free(tok);
		return NULL;
	}
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tok, text, (int)len);
	rc = json_tokener_get_error(tok);
	/* A number at the end of the text may go on, as far as the tokener knows. */
	if (rc == json_tokener_continue && memchr(text, 0, len) == NULL) {
		o = json_tokener_parse_ex(tok, "", 1);
		rc = json_tokener_get_error(tok);
		end = len;
	} else {
		end = json_tokener_get_parse_end(tok);
	}
	*why = rc == json_tokener_continue ? "the text ends inside a value"
					   : json_tokener_error_desc(rc);
	while (rc == json_tokener_success && end < len && memchr(" \t\r\n", text[end], 4))
		end++;
	json_tokener_free(tok);
	if (rc == json_tokener_success && end < len) {
		*why = "text after the value";
		rc = json_tokener_error_parse_unexpected;
	}
	if (rc != json_tokener_success) {
		json_object_put(o);
		return NULL;
	}
	if (!o)
		*why = "null"; /* valid, but nothing that we take anywhere */
	return o;
}

static json_object *clean_string(const char *text, size_t len)
{
	char *copy = malloc(len + 1);
	json_object *o;

	if (!copy)
		panic("out of memory");
	for (size_t i = 0; i < len; i++)
		copy[i] = text[i] ? text[i] : '?';
	copy[len] = 0;
	err_clean(copy);
	o = json_object_new_string(copy);
	free(copy);
	return o;
}

static json_object *cleaned(json_object *o)
{
	json_object *copy, *name;

	switch (json_object_get_type(o)) {
	case json_type_string:
		return clean_string(json_object_get_string(o),
				    (size_t)json_object_get_string_len(o));
	case json_type_array:
		copy = json_object_new_array();
		for (size_t i = 0; i < json_object_array_length(o); i++)
			json_object_array_add(copy, cleaned(json_object_array_get_idx(o, i)));
		return copy;
	case json_type_object:
		copy = json_object_new_object();
		json_object_object_foreach(o, key, v)
		{
			name = clean_string(key, strlen(key));
			j_obj(copy, json_object_get_string(name), cleaned(v));
			json_object_put(name);
		}
		return copy;
	default:
		return json_object_get(o);
	}
}

json_object *j_clean(json_object *o)
{
	json_object *copy = cleaned(o);

	json_object_put(o);
	return copy;
}

const char *j_text(json_object *o)
{
	return json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
							 JSON_C_TO_STRING_NOSLASHESCAPE);
}
