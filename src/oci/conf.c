/* SPDX-License-Identifier: BSD-2-Clause */
/* The runtime's configuration: one table of its members. See conf.h. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>

#include "oci/conf.h"
#include "spec/config.h"
#include "spec/json.h"

#define DEPTH 16
#define MIB (1ull << 20)

static void conf_defaults(struct oci_conf *c)
{
	*c = (struct oci_conf){.mem = 1024 * MIB,
			       .mem_min = 128 * MIB,
			       .mem_overhead = 96 * MIB,
			       .overhead = 64 * MIB,
			       .cpus = 2,
			       .cpus_max = BOARD_MAX_CPUS,
			       .port_forward = true,
			       .hook_timeout = 60,
			       .boot_timeout = 60};
	strcpy(c->net_host, "refuse");
	strcpy(c->net_mode, "tc");
	strcpy(c->share_cache, "auto");
	strcpy(c->templates, CONF_TEMPLATES);
}

/* ---- one parser per kind of value ---- */

struct oci_setting {
	const char *name;
	int (*parse)(const struct oci_setting *s, struct oci_conf *c, json_object *v,
		     struct err *e);
	size_t offset, size;
	uint64_t min, max;
	const char *words; /* between blanks */
};

static int setting_wrong(const struct oci_setting *s, json_object *v, const char *expected,
			 struct err *e)
{
	return err_set(e, -EINVAL, "%s: %.60s; expected %s", s->name, v ? j_text(v) : "null",
		       expected);
}

static int parse_bytes(const struct oci_setting *s, struct oci_conf *c, json_object *v,
		       struct err *e)
{
	char expected[80];
	uint64_t n = 0;
	bool ok = false;

	if (json_object_is_type(v, json_type_string))
		ok = parse_size(json_object_get_string(v), &n);
	else if (json_object_is_type(v, json_type_int) && json_object_get_int64(v) >= 0)
		ok = (n = json_object_get_uint64(v), true);
	snprintf(expected, sizeof(expected), "a size from %lluM to %lluM",
		 (unsigned long long)(s->min / MIB), (unsigned long long)(s->max / MIB));
	if (!ok || n < s->min || n > s->max)
		return setting_wrong(s, v, expected, e);
	memcpy((char *)c + s->offset, &n, sizeof(n));
	return 0;
}

static int parse_count(const struct oci_setting *s, struct oci_conf *c, json_object *v,
		       struct err *e)
{
	char expected[64];
	unsigned n;

	snprintf(expected, sizeof(expected), "a number from %llu to %llu",
		 (unsigned long long)s->min, (unsigned long long)s->max);
	if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0 ||
	    json_object_get_uint64(v) < s->min || json_object_get_uint64(v) > s->max)
		return setting_wrong(s, v, expected, e);
	n = (unsigned)json_object_get_int64(v);
	memcpy((char *)c + s->offset, &n, sizeof(n));
	return 0;
}

static bool is_word(const char *words, const char *text)
{
	size_t n = strlen(text);

	if (strchr(text, ' '))
		return false;
	for (const char *p = words; n && (p = strstr(p, text)); p++) {
		if ((p == words || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	}
	return false;
}

static int parse_text(const struct oci_setting *s, struct oci_conf *c, json_object *v,
		      struct err *e)
{
	const char *text = json_object_get_string(v);
	char expected[64];

	if (!json_object_is_type(v, json_type_string) ||
	    strlen(text) != (size_t)json_object_get_string_len(v))
		return setting_wrong(s, v, "a string", e);
	snprintf(expected, sizeof(expected), "one of: %.48s", s->words ? s->words : "");
	if (s->words && !is_word(s->words, text))
		return setting_wrong(s, v, expected, e);
	if (strlen(text) >= s->size || (!s->words && text[0] && text[0] != '/'))
		return setting_wrong(s, v, "an absolute path", e);
	strcpy((char *)c + s->offset, text);
	return 0;
}

static int parse_switch(const struct oci_setting *s, struct oci_conf *c, json_object *v,
			struct err *e)
{
	bool on = json_object_get_boolean(v);

	if (!json_object_is_type(v, json_type_boolean))
		return setting_wrong(s, v, "true or false", e);
	memcpy((char *)c + s->offset, &on, sizeof(on));
	return 0;
}

/* Members of the VM's configuration; insula-run knows them. What a container's VM is made of is not
 * to be replaced so. */
static int parse_vm(const struct oci_setting *s, struct oci_conf *c, json_object *v, struct err *e)
{
	static const char *const ours[] = {"command", "initrd", "share",   "shares",
					   "rootfs",  "image",  "mem",     "cpus",
					   "vfio",    "vfios",  "restore", "template"};

	if (!json_object_is_type(v, json_type_object))
		return setting_wrong(s, v, "an object", e);
	for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
		if (json_object_object_get_ex(v, ours[i], NULL))
			return err_set(e, -EINVAL, "vm.%s: it is the container's", ours[i]);
	}
	json_object_put(c->vm);
	c->vm = json_object_get(v);
	return 0;
}

#define AT(field) offsetof(struct oci_conf, field), sizeof(((struct oci_conf *)0)->field)

static const struct oci_setting oci_settings[] = {
	{"memory", parse_bytes, AT(mem), BOARD_MIN_MEM, BOARD_MAX_MEM, NULL},
	{"memory_min", parse_bytes, AT(mem_min), BOARD_MIN_MEM, BOARD_MAX_MEM, NULL},
	{"guest_overhead", parse_bytes, AT(mem_overhead), 0, 1ull << 40, NULL},
	{"host_overhead", parse_bytes, AT(overhead), 16 * MIB, 1ull << 40, NULL},
	{"cpus", parse_count, AT(cpus), 1, BOARD_MAX_CPUS, NULL},
	{"cpus_max", parse_count, AT(cpus_max), 1, BOARD_MAX_CPUS, NULL},
	{"kernel", parse_text, AT(kernel), 0, 0, NULL},
	{"initrd", parse_text, AT(initrd), 0, 0, NULL},
	{"supervisor", parse_text, AT(supervisor), 0, 0, NULL},
	{"templates", parse_text, AT(templates), 0, 0, NULL},
	{"log_guest", parse_switch, AT(log_guest), 0, 0, NULL},
	{"vm", parse_vm, 0, 0, 0, 0, NULL},
	{"network", parse_text, AT(net_mode), 0, 0, "tc macvtap none"},
	{"host_network", parse_text, AT(net_host), 0, 0, "refuse none user"},
	{"port_forward", parse_switch, AT(port_forward), 0, 0, NULL},
	{"share_cache", parse_text, AT(share_cache), 0, 0, "auto always none"},
	{"hook_timeout", parse_count, AT(hook_timeout), 0, 86400, NULL},
	{"boot_timeout", parse_count, AT(boot_timeout), 1, 3600, NULL},
	{"kernel_annotation", parse_switch, AT(kernel_annotation), 0, 0, NULL},
	{"vfio_annotation", parse_switch, AT(vfio_annotation), 0, 0, NULL},
};

/* ---- the file ---- */

static int unknown_setting(const char *key, struct err *e)
{
	const char *known[ARRAY_LEN(oci_settings)], *near;

	for (size_t i = 0; i < ARRAY_LEN(oci_settings); i++)
		known[i] = oci_settings[i].name;
	near = nearest(key, known, ARRAY_LEN(known));
	return err_set(e, -EINVAL, "unknown setting '%.60s'%s%s%s; see insula-oci.json(5)", key,
		       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int apply_settings(struct oci_conf *c, json_object *root, struct err *e)
{
	json_object_object_foreach(root, key, v)
	{
		size_t i = 0;
		int rc;

		while (i < ARRAY_LEN(oci_settings) && strcmp(oci_settings[i].name, key) != 0)
			i++;
		if (i == ARRAY_LEN(oci_settings))
			return unknown_setting(key, e);
		rc = oci_settings[i].parse(&oci_settings[i], c, v, e);
		if (rc)
			return rc;
	}
	if (c->mem < c->mem_min)
		return err_set(e, -EINVAL, "memory: %lluM; expected at least memory_min, %lluM",
			       (unsigned long long)(c->mem / MIB),
			       (unsigned long long)(c->mem_min / MIB));
	if (c->cpus > c->cpus_max)
		return err_set(e, -EINVAL, "cpus: %u; expected at most cpus_max, %u", c->cpus,
			       c->cpus_max);
	return 0;
}

int conf_text(struct oci_conf *c, const char *text, size_t len, struct err *e)
{
	json_object *root;
	const char *why;
	int rc;

	conf_defaults(c);
	root = j_parse(text, len, DEPTH, &why);
	if (!root)
		return err_set(e, -EINVAL, "not JSON: %s", why);
	if (json_object_is_type(root, json_type_object))
		rc = apply_settings(c, root, e);
	else
		rc = err_set(e, -EINVAL, "%.60s; expected an object", j_text(root));
	json_object_put(root);
	if (rc)
		conf_free(c);
	return rc;
}

int conf_read(struct oci_conf *c, const char *path, bool must_exist, struct err *e)
{
	struct err why;
	char *text;
	size_t len;
	int rc = text_read(path, false, CONF_FILE_MAX, &text, &len);

	conf_defaults(c);
	if (rc == -ENOENT && !must_exist)
		return 0;
	if (rc == -EFBIG || rc == -EINVAL)
		return err_set(e, -EINVAL, "%.100s: expected a file of at most %u bytes", path,
			       CONF_FILE_MAX);
	if (rc)
		return err_sys(e, rc, "%.100s", path);
	rc = conf_text(c, text, len, &why);
	free(text);
	return rc ? err_set(e, -EINVAL, "%.100s: %s", path, why.text) : 0;
}

void conf_free(struct oci_conf *c)
{
	json_object_put(c->vm);
	c->vm = NULL;
}
