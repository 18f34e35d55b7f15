/* SPDX-License-Identifier: BSD-2-Clause */
/* Flags as users of other programs write them, as settings. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"
#include "spec/settings.h"

#define ENV_FILE_MAX (1u << 20)

/* ---- -p ---- */

/* What the user wrote must stay one item of the setting, whatever is in it. */
static char *double_commas(const char *before, const char *text, size_t len)
{
	char *out = malloc(strlen(before) + 2 * len + 1), *p = out;

	if (!out)
		return NULL;
	p += sprintf(p, "%s", before);
	for (size_t i = 0; i < len; i++) {
		if (text[i] == ',')
			*p++ = ',';
		*p++ = text[i];
	}
	*p = 0;
	return out;
}

char *alias_forward(const char *text)
{
	const char *slash = strrchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : 0;

	if (slash && !strcmp(slash, "/udp"))
		return double_commas("udp:", text, len);
	if (slash && !strcmp(slash, "/tcp"))
		return double_commas("tcp:", text, len);
	return double_commas("", text, strlen(text));
}

/* The first one that is "user": a text, or an object of --config. -1: there is none. */
static int find_user_net(json_object *nets)
{
	size_t n = json_object_is_type(nets, json_type_array) ? json_object_array_length(nets) : 0;

	for (size_t i = 0; i < n; i++) {
		json_object *one = json_object_array_get_idx(nets, i);
		const char *text = json_object_is_type(one, json_type_string)
					   ? json_object_get_string(one)
					   : NULL;

		if (text ? !strncmp(text, "user", 4) && (!text[4] || text[4] == ',')
			 : j_get_bool(one, "user", false))
			return (int)i;
	}
	return -1;
}

static int add_to_text(json_object *nets, int at, const char *net, json_object *forwards)
{
	char *all = strdup(net), *longer;
	int rc = all ? 0 : -ENOMEM;

	for (size_t i = 0; i < json_object_array_length(forwards) && !rc; i++) {
		rc = asprintf(&longer, "%s,fwd=%s", all,
			      json_object_get_string(json_object_array_get_idx(forwards, i))) < 0
			     ? -ENOMEM
			     : 0;
		if (rc)
			break;
		free(all);
		all = longer;
	}
	if (!rc && at < 0)
		json_object_array_add(nets, json_object_new_string(all));
	else if (!rc)
		json_object_array_put_idx(nets, (size_t)at, json_object_new_string(all));
	free(all);
	return rc;
}

/* "fwd" of an object is one text or several; in JSON a comma is no more than that. */
static void add_to_object(json_object *net, json_object *forwards)
{
	json_object *old = j_get(net, "fwd"), *list = json_object_new_array();

	if (json_object_is_type(old, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(old); i++)
			json_object_array_add(list,
					      json_object_get(json_object_array_get_idx(old, i)));
	} else if (old) {
		json_object_array_add(list, json_object_get(old));
	}
	for (size_t i = 0; i < json_object_array_length(forwards); i++)
		json_object_array_add(list,
				      json_object_get(json_object_array_get_idx(forwards, i)));
	j_obj(net, "fwd", list);
}

int alias_publish(json_object *config, json_object *forwards)
{
	json_object *nets = j_get(config, "nets"), *one;
	int at;

	if (!forwards)
		return 0;
	if (!json_object_is_type(nets, json_type_array))
		j_obj(config, "nets", nets = json_object_new_array());
	at = find_user_net(nets);
	one = at < 0 ? NULL : json_object_array_get_idx(nets, (size_t)at);
	if (json_object_is_type(one, json_type_object)) {
		add_to_object(one, forwards);
		return 0;
	}
	return add_to_text(nets, at, one ? json_object_get_string(one) : "user", forwards);
}

/* ---- --env-file ---- */

static int add_env_line(json_object *config, const char *line)
{
	json_object *list = j_get(config, "env");
	char *whole;
	int rc;

	if (!line[strspn(line, " \t")] || line[0] == '#')
		return 0;
	rc = setting_env(line, &whole);
	if (rc <= 0)
		return rc;
	if (!json_object_is_type(list, json_type_array))
		j_obj(config, "env", list = json_object_new_array());
	json_object_array_add(list, json_object_new_string(whole));
	free(whole);
	return 0;
}

int alias_env_file(json_object *config, const char *path, struct err *e)
{
	char *text, *line;
	size_t len;
	int rc = text_read(path, true, ENV_FILE_MAX, &text, &len);

	if (rc)
		return err_set(e, -EINVAL, "--env-file: %s: %s", path, strerror(-rc));
	if (strlen(text) != len)
		rc = err_set(e, -EINVAL, "--env-file: %s: a NUL; expected text", path);
	for (line = text; !rc && *line;) {
		size_t n = strcspn(line, "\n"), end = n;
		bool last = !line[n];

		line[n] = 0;
		if (end && line[end - 1] == '\r')
			line[end - 1] = 0;
		if (add_env_line(config, line))
			rc = err_set(e, -ENOMEM, "out of memory");
		line += n + !last;
	}
	free(text);
	return rc;
}
