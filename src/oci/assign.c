/* SPDX-License-Identifier: BSD-2-Clause */
/* PCI functions of the host. See assign.h. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "assign.h"
#include "field.h"
#include "spec/json.h"

#define DEVICES "linux.devices"
#define VFIO_DIR "/dev/vfio/"

/* ---- sysfs ---- */

/* Of a link of a PCI function. */
static void function_link(const char *sys, const char *address, const char *name, char *out,
			  size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%.40s/%s", sys, address, name);
	link_name(path, out, size);
}

/* All of it is a number. */
static bool take_number(const char *text, unsigned *out)
{
	size_t n = strlen(text);

	if (!n || n > 9 || strspn(text, "0123456789") != n)
		return false;
	*out = (unsigned)strtoul(text, NULL, 10);
	return true;
}

/* ---- nodes ---- */

enum node {
	NODE_OTHER,   /* not of VFIO */
	NODE_VFIO,    /* the container's, or iommufd: it names no function */
	NODE_GROUP,   /* *group */
	NODE_MISSING, /* by its path that of *group, but the host has none of this number */
	NODE_CDEV,    /* of one function, for iommufd */
	NODE_NOIOMMU
};

/* By its number, for a container's path may be any. */
static enum node node_of_host(const char *sys, int64_t major, int64_t minor, unsigned *group)
{
	char path[PATH_MAX], kind[32], name[32];

	snprintf(path, sizeof(path), "%s/dev/char/%lld:%lld", sys, (long long)major,
		 (long long)minor);
	link_name(path, name, sizeof(name));
	snprintf(path, sizeof(path), "%s/dev/char/%lld:%lld/subsystem", sys, (long long)major,
		 (long long)minor);
	link_name(path, kind, sizeof(kind));
	if (!strcmp(kind, "vfio"))
		return take_number(name, group) ? NODE_GROUP : NODE_NOIOMMU;
	if (!strcmp(kind, "vfio-dev"))
		return NODE_CDEV;
	if (!strcmp(kind, "misc") && (!strcmp(name, "vfio") || !strcmp(name, "iommu")))
		return NODE_VFIO;
	return NODE_OTHER;
}

/* Where the host knows nothing of its number. */
static enum node node_by_path(const char *path, unsigned *group)
{
	const char *rest = path + strlen(VFIO_DIR);

	if (!strcmp(path, "/dev/iommu"))
		return NODE_VFIO;
	if (strncmp(path, VFIO_DIR, strlen(VFIO_DIR)) != 0)
		return NODE_OTHER;
	if (!strncmp(rest, "devices/", 8))
		return NODE_CDEV;
	if (!strncmp(rest, "noiommu-", 8))
		return NODE_NOIOMMU;
	if (!strcmp(rest, "vfio"))
		return NODE_VFIO;
	return take_number(rest, group) ? NODE_MISSING : NODE_OTHER;
}

static enum node node_kind(const char *sys, json_object *d, unsigned *group)
{
	const char *type = j_get_str(d, "type", "");
	enum node n;

	if (strcmp(type, "c") != 0 && strcmp(type, "u") != 0)
		return NODE_OTHER;
	n = node_of_host(sys, j_get_int(d, "major", -1), j_get_int(d, "minor", -1), group);
	return n == NODE_OTHER ? node_by_path(j_get_str(d, "path", ""), group) : n;
}

bool assign_takes(const char *sys, json_object *device)
{
	unsigned group;

	return node_kind(sys, device, &group) != NODE_OTHER;
}

bool assign_takes_rule(const char *sys, json_object *rule)
{
	int64_t major = j_get_int(rule, "major", -1), minor = j_get_int(rule, "minor", -1);
	unsigned group;

	return !strcmp(j_get_str(rule, "type", ""), "c") && major >= 0 && minor >= 0 &&
	       node_of_host(sys, major, minor, &group) != NODE_OTHER;
}

/* ---- what a group is ---- */

static bool is_pci(const char *sys, const char *member)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%.40s", sys, member);
	return strlen(member) == CONFIG_VFIO_LEN && !access(path, F_OK);
}

/* A driver that gives its device to whoever opens the group. */
static bool on_vfio(const char *driver)
{
	return strstr(driver, "vfio") != NULL;
}

static int by_address(const void *a, const void *b)
{
	return strcmp(((const struct assign_function *)a)->address,
		      ((const struct assign_function *)b)->address);
}

static int one_function(struct assign *a, const struct assign_group *g, const char *address,
			struct err *e)
{
	struct assign_function *f = &a->function[a->nfunctions];

	if (a->nfunctions == ASSIGN_MAX)
		return err_set(e, -EINVAL,
			       "%s: more than %d functions of the host; expected at most so many "
			       "in a VM",
			       g->where, ASSIGN_MAX);
	f->group = g->number;
	snprintf(f->address, sizeof(f->address), "%.*s", CONFIG_VFIO_LEN, address);
	a->nfunctions++;
	return 0;
}

/* Those on another driver go into `others`, for a message. */
static int group_functions(const char *sys, DIR *d, struct assign *a, const struct assign_group *g,
			   char others[96], struct err *e)
{
	struct dirent *m;
	char driver[32];
	int rc = 0;

	while (!rc && (m = readdir(d))) {
		size_t n = strlen(others);

		if (m->d_name[0] == '.')
			continue;
		function_link(sys, m->d_name, "driver", driver, sizeof(driver));
		if (is_pci(sys, m->d_name) && on_vfio(driver))
			rc = one_function(a, g, m->d_name, e);
		else if (n < 64)
			snprintf(others + n, 96 - n, "%s%.36s: %.20s", n ? ", " : "", m->d_name,
				 driver[0] ? driver : "no driver");
	}
	return rc;
}

static int functions_of(const char *sys, struct assign *a, const struct assign_group *g,
			struct err *e)
{
	unsigned before = a->nfunctions;
	char path[PATH_MAX], others[96] = "";
	DIR *d;
	int rc;

	snprintf(path, sizeof(path), "%s/kernel/iommu_groups/%u/devices", sys, g->number);
	d = opendir(path);
	if (!d)
		return err_set(e, -EINVAL, "%s: the host has no IOMMU group %u", g->where,
			       g->number);
	rc = group_functions(sys, d, a, g, others, e);
	closedir(d);
	if (!rc && a->nfunctions == before)
		rc = err_set(e, -EINVAL,
			     "%s: IOMMU group %u has no function on vfio-pci (%s); expected one, "
			     "bound before",
			     g->where, g->number, others[0] ? others : "it is empty");
	qsort(&a->function[before], a->nfunctions - before, sizeof(a->function[0]), by_address);
	return rc;
}

int assign_functions(const char *sys, struct assign *a, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < a->ngroups && !rc; i++)
		rc = functions_of(sys, a, &a->group[i], e);
	return rc;
}

/* ---- what is asked for ---- */

static int add_group(struct assign *a, unsigned number, const char *where, struct assign_group **g,
		     struct err *e)
{
	for (unsigned i = 0; i < a->ngroups; i++) {
		*g = &a->group[i];
		if ((*g)->number == number)
			return 0;
	}
	if (a->ngroups == ASSIGN_MAX)
		return err_set(e, -EINVAL,
			       "%s: more than %d IOMMU groups; expected at most so many in a VM",
			       where, ASSIGN_MAX);
	*g = &a->group[a->ngroups++];
	**g = (struct assign_group){.number = number, .mode = 0600};
	snprintf((*g)->where, sizeof((*g)->where), "%s", where);
	return 0;
}

/* The node of a group that vfio-pci has not got, or of another number than it has. */
static int missing_group(const char *sys, unsigned group, const char *where, struct err *e)
{
	struct assign_group g = {.number = group};
	struct assign a = {.nfunctions = 0};
	int rc;

	snprintf(g.where, sizeof(g.where), "%s", where);
	rc = functions_of(sys, &a, &g, e);
	return rc ? rc
		  : err_set(e, -EINVAL,
			    "%s: its number is not that of " VFIO_DIR "%u; expected the host's",
			    where, group);
}

static int wanted_node(const char *sys, json_object *d, const char *at, struct assign *a,
		       struct err *e)
{
	const char *path = j_get_str(d, "path", "");
	enum node kind;
	struct assign_group *g;
	unsigned group = 0;
	char where[64];
	int rc;

	kind = node_kind(sys, d, &group);
	snprintf(where, sizeof(where), "%.20s: %.40s", at, path);
	if (kind == NODE_CDEV)
		return err_set(e, -EOPNOTSUPP,
			       "%s: a node of one function, for iommufd; expected that of its "
			       "group, " VFIO_DIR "N",
			       where);
	if (kind == NODE_NOIOMMU)
		return err_set(
			e, -EINVAL,
			"%s: it is behind no IOMMU; expected one: a guest would reach all of "
			"the host's memory",
			where);
	if (kind == NODE_MISSING)
		return missing_group(sys, group, where, e);
	if (kind != NODE_GROUP)
		return 0;
	rc = add_group(a, group, where, &g, e);
	if (!rc)
		rc = field_int(d, at, "fileMode", 0, UINT32_MAX, &g->mode, e);
	if (rc >= 0)
		rc = field_int(d, at, "uid", 0, UINT32_MAX - 1, &g->uid, e);
	if (rc >= 0)
		rc = field_int(d, at, "gid", 0, UINT32_MAX - 1, &g->gid, e);
	return rc < 0 ? rc : 0;
}

/* ---- what is not: a privileged container ---- */

static bool rule_is_of_all(json_object *rule)
{
	const char *type = j_get_str(rule, "type", "");

	return (!type[0] || !strcmp(type, "a")) && j_get_int(rule, "major", -1) < 0 &&
	       j_get_int(rule, "minor", -1) < 0;
}

/* Of the rules that speak of all devices, the last one allows them. */
static bool may_use_all(json_object *rules)
{
	bool all = false;

	for (size_t i = 0; i < field_count(rules); i++) {
		json_object *rule = json_object_array_get_idx(rules, i);

		if (rule_is_of_all(rule))
			all = j_get_bool(rule, "allow", false);
	}
	return all;
}

static bool has_rule(json_object *rules, json_object *d)
{
	for (size_t i = 0; i < field_count(rules); i++) {
		json_object *rule = json_object_array_get_idx(rules, i);

		if (j_get_bool(rule, "allow", false) && !strcmp(j_get_str(rule, "type", ""), "c") &&
		    j_get_int(rule, "major", -1) == j_get_int(d, "major", -2) &&
		    j_get_int(rule, "minor", -1) == j_get_int(d, "minor", -2))
			return true;
	}
	return false;
}

/* What the container may do with it: everything, but for rules that say something else, in their
 * order. */
static void access_of(json_object *rules, json_object *d, bool *read, bool *write)
{
	*read = *write = true;
	for (size_t i = 0; i < field_count(rules); i++) {
		json_object *rule = json_object_array_get_idx(rules, i);
		const char *type = j_get_str(rule, "type", "");
		const char *access = j_get_str(rule, "access", "");
		int64_t major = j_get_int(rule, "major", -1), minor = j_get_int(rule, "minor", -1);
		bool allow = j_get_bool(rule, "allow", false);

		if ((type[0] && strcmp(type, "a") != 0 && strcmp(type, "c") != 0) ||
		    (major >= 0 && major != j_get_int(d, "major", -2)) ||
		    (minor >= 0 && minor != j_get_int(d, "minor", -2)))
			continue;
		if (!access[0] || strchr(access, 'r'))
			*read = allow;
		if (!access[0] || strchr(access, 'w'))
			*write = allow;
	}
}

/* A group is of use for reading and writing alone. */
static int allowed_node(const char *sys, json_object *rules, json_object *d, const char *at,
			struct assign *a, struct err *e)
{
	bool read, write;
	unsigned group;

	access_of(rules, d, &read, &write);
	if ((read && write) || node_kind(sys, d, &group) != NODE_GROUP)
		return wanted_node(sys, d, at, a, e);
	return err_set(e, -EINVAL, "%.20s: %.40s: its device rules allow '%s%s'; expected 'rw'", at,
		       j_get_str(d, "path", ""), read ? "r" : "", write ? "w" : "");
}

static int wanted_nodes(const char *sys, const struct bundle *b, struct assign *a, struct err *e)
{
	json_object *list, *resources, *rules = NULL, *one;
	int rc = field_array(b->linux_, "linux", "devices", &list, e);
	char at[FIELD_WHERE_MAX];
	bool all;

	if (!rc)
		rc = field_object(b->linux_, "linux", "resources", &resources, e);
	if (!rc)
		rc = field_array(resources, "linux.resources", "devices", &rules, e);
	if (rc)
		return rc;
	all = may_use_all(rules);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, DEVICES, i, at, &one, e);
		if (!rc && (!all || has_rule(rules, one)))
			rc = allowed_node(sys, rules, one, at, a, e);
	}
	return rc;
}

/* ---- the annotation ---- */

static int annotation_wrong(const char *text, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "annotations." ASSIGN_ANNOTATION ": '%.60s'; expected %s", text,
		       expected);
}

static int wanted_address(const char *sys, const char *address, struct assign *a, struct err *e)
{
	char group[32], where[64];
	struct assign_group *g;
	unsigned number;

	if (strlen(address) != CONFIG_VFIO_LEN ||
	    strspn(address, "0123456789abcdef:.") != CONFIG_VFIO_LEN)
		return annotation_wrong(address,
					"addresses of PCI functions, such as 0000:01:00.0, with "
					"commas between them",
					e);
	if (!is_pci(sys, address))
		return annotation_wrong(address, "a PCI function that the host has", e);
	function_link(sys, address, "iommu_group", group, sizeof(group));
	if (!take_number(group, &number))
		return annotation_wrong(address, "a function behind an IOMMU", e);
	snprintf(where, sizeof(where), "annotations." ASSIGN_ANNOTATION ": %.*s", CONFIG_VFIO_LEN,
		 address);
	return add_group(a, number, where, &g, e);
}

static int wanted_annotation(const char *sys, const struct bundle *b, bool allowed,
			     struct assign *a, struct err *e)
{
	char one[32];
	const char *text;
	int rc = field_text(b->annotations, "annotations", ASSIGN_ANNOTATION, &text, e);

	if (rc || !text)
		return rc;
	if (!allowed)
		return annotation_wrong(
			text, "none, for vfio_annotation is false in the configuration", e);
	for (const char *p = text; p && !rc; p = strchr(p, ',')) {
		p += p != text;
		snprintf(one, sizeof(one), "%.*s", (int)strcspn(p, ","), p);
		rc = wanted_address(sys, one, a, e);
	}
	return rc;
}

int assign_wanted(const char *sys, const struct bundle *b, bool annotation, struct assign *a,
		  struct err *e)
{
	int rc;

	*a = (struct assign){.ngroups = 0};
	rc = wanted_nodes(sys, b, a, e);
	return rc ? rc : wanted_annotation(sys, b, annotation, a, e);
}

/* ---- what a VM has ---- */

json_object *assign_json(const struct assign *a)
{
	json_object *list = a->nfunctions ? json_object_new_array() : NULL;

	for (unsigned i = 0; i < a->nfunctions; i++) {
		json_object *o = json_object_new_object();

		j_int(o, "group", a->function[i].group);
		j_str(o, "function", a->function[i].address);
		json_object_array_add(list, o);
	}
	return list;
}

json_object *assign_config(json_object *had)
{
	json_object *list = had ? json_object_new_array() : NULL;

	for (size_t i = 0; i < field_count(had); i++)
		json_object_array_add(
			list, json_object_new_string(j_get_str(json_object_array_get_idx(had, i),
							       "function", "")));
	return list;
}

static bool has_group(const struct assign *a, unsigned number)
{
	for (unsigned i = 0; i < a->nfunctions; i++) {
		if (a->function[i].group == number)
			return true;
	}
	return false;
}

int assign_join(struct assign *a, json_object *had, const char *sandbox, struct err *e)
{
	for (size_t i = 0; i < field_count(had) && i < ASSIGN_MAX; i++) {
		json_object *o = json_object_array_get_idx(had, i);
		struct assign_function *f = &a->function[a->nfunctions++];

		f->group = (unsigned)j_get_int(o, "group", 0);
		snprintf(f->address, sizeof(f->address), "%.*s", CONFIG_VFIO_LEN,
			 j_get_str(o, "function", ""));
	}
	for (unsigned i = 0; i < a->ngroups; i++) {
		if (!has_group(a, a->group[i].number))
			return err_set(
				e, -EOPNOTSUPP,
				"%s: the VM of sandbox \"%.20s\" has not got IOMMU group "
				"%u; expected it from its start: annotation " ASSIGN_ANNOTATION
				" of the sandbox",
				a->group[i].where, sandbox, a->group[i].number);
	}
	return 0;
}

/* ---- for the guest ---- */

static void function_record(const struct assign *a, const struct assign_group *g, struct rec *r)
{
	for (unsigned i = 0; i < a->nfunctions; i++) {
		if (a->function[i].group != g->number)
			continue;
		rec_addf(r, "pci", "0000:00:%02x.0", 1 + i);
		rec_addf(r, "pci.mode", "%o", (unsigned)g->mode & 0777u);
		rec_addf(r, "pci.uid", "%lld", (long long)g->uid);
		rec_addf(r, "pci.gid", "%lld", (long long)g->gid);
	}
}

void assign_records(const struct assign *a, struct rec *r)
{
	for (unsigned i = 0; i < a->ngroups; i++)
		function_record(a, &a->group[i], r);
}
