/* SPDX-License-Identifier: BSD-2-Clause */
/* Records as text. See record.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "spec/json.h"
#include "record.h"

#define VERSION 1
#define DEPTH 16
#define RESULT_DEPTH (DEPTH - 1) /* it stands in a record */

const char *const vm_state_names[VM_STATES] = {"created",  "starting", "running", "paused",
					       "stopping", "ended",    "broken"};

bool id_is_valid(const char *id)
{
	return strlen(id) == ID_LEN && strspn(id, "0123456789abcdef") == ID_LEN;
}

/* As a host name's label, with dots and underscores: it goes into file names and tables. */
bool name_is_valid(const char *name)
{
	static const char first[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t n = strlen(name);

	return n >= 1 && n <= NAME_MAX_LEN && strchr(first, name[0]) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		       n;
}

static json_object *record_to_json(const struct record *r)
{
	json_object *o = json_object_new_object(), *groups = json_object_new_array();

	for (unsigned i = 0; i < r->owner.ngroups; i++)
		json_object_array_add(groups, json_object_new_int64(r->owner.groups[i]));
	j_int(o, "version", VERSION);
	j_str(o, "id", r->id);
	j_str(o, "name", r->name);
	j_int(o, "uid", r->owner.uid);
	j_int(o, "gid", r->owner.gid);
	j_obj(o, "groups", groups);
	if (r->owner.sid[0])
		j_str(o, "sid", r->owner.sid);
	j_str(o, "state", vm_state_names[r->state]);
	j_bool(o, "transient", r->transient);
	j_int(o, "created_ms", r->created_ms);
	j_int(o, "started_ms", r->started_ms);
	j_int(o, "ended_ms", r->ended_ms);
	j_int(o, "cpus", r->cpus);
	if (r->cpus_max)
		j_int(o, "cpus_max", r->cpus_max);
	j_int(o, "mem", (int64_t)r->mem);
	if (r->mem_max) {
		j_int(o, "mem_start", (int64_t)r->mem_start);
		j_int(o, "mem_boot", (int64_t)r->mem_boot);
		j_int(o, "mem_max", (int64_t)r->mem_max);
	}
	j_int(o, "pid", r->pid);
	j_int(o, "start_time", (int64_t)r->start_time);
	j_str(o, "boot_id", r->boot_id);
	j_str(o, "token", r->token);
	if (r->group[0])
		j_str(o, "group", r->group);
	if (r->pool[0])
		j_str(o, "pool", r->pool);
	j_obj(o, "config", json_tokener_parse(r->config));
	if (r->result)
		j_obj(o, "result", json_tokener_parse(r->result));
	return o;
}

char *record_print(const struct record *r)
{
	json_object *o = record_to_json(r);
	char *text = strdup(j_text(o));

	json_object_put(o);
	return text;
}

static int copy_text(json_object *o, const char *key, char *out, size_t size, struct err *e)
{
	const char *s = j_get_str(o, key, NULL);

	if (!s || strlen(s) >= size)
		return err_set(e, -EINVAL, "record: %s: missing or too long", key);
	strcpy(out, s);
	return 0;
}

static int take_number(json_object *o, const char *key, int64_t max, int64_t *out, struct err *e)
{
	*out = j_get_int(o, key, -1);
	if (*out < 0 || *out > max)
		return err_set(e, -EINVAL, "record: %s: missing or out of range", key);
	return 0;
}

/* It goes into a path. */
static bool group_is_valid(const struct record *r)
{
	const size_t head = 3 + ID_LEN;
	const char *g = r->group;

	return !strncmp(g, "vm-", 3) && !strncmp(g + 3, r->id, ID_LEN) &&
	       (!g[head] || (g[head] == '-' && strspn(g + head + 1, "0123456789abcdef") == 8 &&
			     strlen(g) == GROUP_LEN - 1));
}

static int take_names(struct record *r, json_object *o, struct err *e)
{
	const char *state = j_get_str(o, "state", "");
	unsigned s = 0;
	int rc = copy_text(o, "id", r->id, sizeof(r->id), e);

	if (!rc)
		rc = copy_text(o, "name", r->name, sizeof(r->name), e);
	if (!rc)
		rc = copy_text(o, "boot_id", r->boot_id, sizeof(r->boot_id), e);
	if (!rc)
		rc = copy_text(o, "token", r->token, sizeof(r->token), e);
	while (s < VM_BROKEN && strcmp(vm_state_names[s], state) != 0)
		s++;
	if (!rc && j_get(o, "sid"))
		rc = copy_text(o, "sid", r->owner.sid, sizeof(r->owner.sid), e);
	if (!rc && j_get(o, "group"))
		rc = copy_text(o, "group", r->group, sizeof(r->group), e);
	if (!rc && j_get(o, "pool"))
		rc = copy_text(o, "pool", r->pool, sizeof(r->pool), e);
	if (!rc && r->pool[0] && !id_is_valid(r->pool))
		rc = err_set(e, -EINVAL, "record: pool is malformed");
	if (!rc && r->group[0] && !group_is_valid(r))
		rc = err_set(e, -EINVAL, "record: group is malformed");
	if (!rc && (!id_is_valid(r->id) || !name_is_valid(r->name) || s == VM_BROKEN ||
		    strlen(r->token) != TOKEN_LEN))
		rc = err_set(e, -EINVAL, "record: id, name, state or token is malformed");
	r->state = (enum vm_state)s;
	r->transient = j_get_bool(o, "transient", false);
	return rc;
}

/* Of a VM that can be resized. */
static int take_sizes(struct record *r, json_object *o, struct err *e)
{
	int64_t start = (int64_t)r->mem, boot = start, max = 0;
	int rc = 0;

	if (j_get(o, "mem_max")) {
		rc = take_number(o, "mem_start", INT64_MAX, &start, e);
		if (!rc)
			rc = take_number(o, "mem_boot", INT64_MAX, &boot, e);
		if (!rc)
			rc = take_number(o, "mem_max", INT64_MAX, &max, e);
	}
	r->mem_start = (uint64_t)start;
	r->mem_boot = (uint64_t)boot;
	r->mem_max = (uint64_t)max;
	return rc;
}

static int take_numbers(struct record *r, json_object *o, struct err *e)
{
	int64_t uid, gid, cpus, max = 0, mem, pid, start;
	int rc = take_number(o, "uid", UINT32_MAX - 1, &uid, e);

	if (!rc)
		rc = take_number(o, "gid", UINT32_MAX - 1, &gid, e);
	if (!rc)
		rc = take_number(o, "cpus", 1024, &cpus, e);
	if (!rc && j_get(o, "cpus_max"))
		rc = take_number(o, "cpus_max", 1024, &max, e);
	if (!rc)
		rc = take_number(o, "mem", INT64_MAX, &mem, e);
	if (!rc)
		rc = take_number(o, "pid", INT32_MAX, &pid, e);
	if (!rc)
		rc = take_number(o, "start_time", INT64_MAX, &start, e);
	if (!rc)
		rc = take_number(o, "created_ms", INT64_MAX, &r->created_ms, e);
	if (!rc)
		rc = take_number(o, "started_ms", INT64_MAX, &r->started_ms, e);
	if (!rc)
		rc = take_number(o, "ended_ms", INT64_MAX, &r->ended_ms, e);
	if (rc)
		return rc;
	r->owner.uid = (uint32_t)uid;
	r->owner.gid = (uint32_t)gid;
	r->cpus = (unsigned)cpus;
	r->cpus_max = (unsigned)max;
	r->mem = (uint64_t)mem;
	r->pid = (int)pid;
	r->start_time = (uint64_t)start;
	return take_sizes(r, o, e);
}

static int take_groups(struct record *r, json_object *list, struct err *e)
{
	if (!json_object_is_type(list, json_type_array) ||
	    json_object_array_length(list) > MAX_GROUPS)
		return err_set(e, -EINVAL, "record: groups: expected at most %d", MAX_GROUPS);
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *v = json_object_array_get_idx(list, i);
		int64_t n = json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : -1;

		if (n < 0 || n >= UINT32_MAX)
			return err_set(e, -EINVAL, "record: groups: not a group id");
		r->owner.groups[r->owner.ngroups++] = (uint32_t)n;
	}
	return 0;
}

static int take_objects(struct record *r, json_object *o, struct err *e)
{
	json_object *config = j_get(o, "config"), *result = j_get(o, "result");

	if (!json_object_is_type(config, json_type_object) ||
	    (result && !json_object_is_type(result, json_type_object)))
		return err_set(e, -EINVAL, "record: config or result is not an object");
	r->config = strdup(j_text(config));
	if (result)
		r->result = strdup(j_text(result));
	return !r->config || (result && !r->result) ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int record_parse(struct record *r, const char *text, size_t len, struct err *e)
{
	const char *why;
	json_object *o = j_parse(text, len, DEPTH, &why);
	int rc;

	memset(r, 0, sizeof(*r));
	if (!o)
		return err_set(e, -EINVAL, "record: %s", why);
	if (j_get_int(o, "version", 0) > VERSION)
		rc = err_set(e, -EPROTONOSUPPORT,
			     "record: version %lld, of a newer insulad; this one reads version %d",
			     (long long)j_get_int(o, "version", 0), VERSION);
	else if (j_get_int(o, "version", 0) != VERSION)
		rc = err_set(e, -EINVAL, "record: version: expected %d", VERSION);
	else
		rc = take_names(r, o, e);
	if (!rc)
		rc = take_numbers(r, o, e);
	if (!rc)
		rc = take_groups(r, j_get(o, "groups"), e);
	if (!rc)
		rc = take_objects(r, o, e);
	json_object_put(o);
	if (rc)
		record_free(r);
	return rc;
}

int record_config(struct record *r, json_object *config)
{
	char *text = config ? strdup(j_text(config)) : NULL;

	json_object_put(config);
	if (!text)
		return -ENOMEM;
	free(r->config);
	r->config = text;
	return 0;
}

void record_free(struct record *r)
{
	free(r->config);
	free(r->result);
	r->config = r->result = NULL;
}

/* As the record will be read: with the same limits, once it has been printed. */
static bool is_readable(const char *text)
{
	const char *why;
	size_t len = strlen(text);
	json_object *o = len <= RESULT_MAX ? j_parse(text, len, RESULT_DEPTH, &why) : NULL;

	json_object_put(o);
	return o != NULL;
}

char *result_parse(const char *text, size_t len, const char *token)
{
	const char *why;
	json_object *o;
	char *copy = NULL;

	if (!len || len > RESULT_MAX || text[len - 1] != '\n')
		return NULL;
	o = j_clean(j_parse(text, len, RESULT_DEPTH, &why));
	if (!strcmp(j_get_str(o, "token", ""), token) && j_get_str(o, "reason", NULL)) {
		json_object_object_del(o, "token");
		copy = is_readable(j_text(o)) ? strdup(j_text(o)) : NULL;
	}
	json_object_put(o);
	return copy;
}
