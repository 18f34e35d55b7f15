/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A container's configuration -> records. See record.h.
 *
 * A field of the specification is obeyed, or refused by name, or one of these: rdma, network,
 * intelRdt, mountLabel, which concern what a VM has not got, and do nothing (docs/containers.md).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include <insula/base.h>

#include "assign.h"
#include "cgline.h"
#include "field.h"
#include "hook.h"
#include "mountopt.h"
#include "record.h"
#include "spec/json.h"

#define LINUX "linux"

/* ---- namespaces ---- */

static const struct {
	const char *spec, *record; /* NULL: not made in the guest */
} ns_types[] = {
	{"mount", "mount"},   {"pid", "pid"},   {"uts", "uts"},    {"ipc", "ipc"},
	{"cgroup", "cgroup"}, {"user", "user"}, {"network", NULL},
};

static int ns_type(const char *type)
{
	for (size_t i = 0; type && i < ARRAY_LEN(ns_types); i++) {
		if (!strcmp(ns_types[i].spec, type))
			return (int)i;
	}
	return -1;
}

static int ns_record(const struct record_container *c, const char *type, const char *path,
		     const char *at, struct rec *r, struct err *e)
{
	const char *owner;

	if (!path || !path[0]) {
		rec_add(r, "ns", type);
		return 0;
	}
	owner = c->ns_owner ? c->ns_owner(c->ctx, path) : NULL;
	if (!owner)
		return err_set(e, -EINVAL,
			       "%s.path: %.80s; expected a namespace of a container of this VM", at,
			       path);
	rec_addf(r, "ns", "%s:%s", type, owner);
	return 0;
}

static int one_namespace(const struct record_container *c, json_object *ns, const char *at,
			 unsigned *seen, struct rec *r, struct err *e)
{
	const char *type, *path;
	int i, rc = field_text(ns, at, "type", &type, e);

	if (!rc)
		rc = field_text(ns, at, "path", &path, e);
	if (rc)
		return rc;
	i = ns_type(type);
	if (i < 0)
		return field_wrong(at, "type", j_get(ns, "type"),
				   "mount, pid, uts, ipc, cgroup, user or network", e);
	if (*seen & 1u << i)
		return field_wrong(at, "type", j_get(ns, "type"), "each type once", e);
	*seen |= 1u << i;
	return ns_types[i].record ? ns_record(c, ns_types[i].record, path, at, r, e) : 0;
}

static int one_mapping(json_object *m, const char *key, const char *at, struct rec *r,
		       struct err *e)
{
	int64_t inside = 0, outside = 0, size = 0;
	int rc = field_int(m, at, "containerID", 0, UINT32_MAX, &inside, e);

	if (rc >= 0)
		rc = field_int(m, at, "hostID", 0, UINT32_MAX, &outside, e);
	if (rc >= 0)
		rc = field_int(m, at, "size", 1, UINT32_MAX, &size, e);
	if (rc < 0)
		return rc;
	if (!size)
		return field_wrong(at, "size", NULL, "how many ids", e);
	rec_addf(r, key, "%lld %lld %lld", (long long)inside, (long long)outside, (long long)size);
	return 0;
}

static int id_mappings(json_object *lin, const char *member, const char *key, struct rec *r,
		       struct err *e)
{
	char in[FIELD_WHERE_MAX], at[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(lin, LINUX, member, &list, e);

	field_in(in, LINUX, member);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, in, i, at, &one, e);
		if (!rc)
			rc = one_mapping(one, key, at, r, e);
	}
	return rc;
}

static int container_namespaces(const struct record_container *c, json_object *lin, struct rec *r,
				struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	unsigned seen = 0, user = 1u << ns_type("user");
	int rc = field_array(lin, LINUX, "namespaces", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, "linux.namespaces", i, at, &one, e);
		if (!rc)
			rc = one_namespace(c, one, at, &seen, r, e);
	}
	if (rc || !(seen & user))
		return rc;
	rc = id_mappings(lin, "uidMappings", "uidmap", r, e);
	return rc ? rc : id_mappings(lin, "gidMappings", "gidmap", r, e);
}

/* ---- devices ---- */

static int device_numbers(json_object *d, const char *at, bool pipe, struct rec *r, struct err *e)
{
	int64_t major = 0, minor = 0;
	int rc = field_int(d, at, "major", 0, 0xfff, &major, e), rc2;

	if (rc < 0)
		return rc;
	rc2 = field_int(d, at, "minor", 0, 0xfffff, &minor, e);
	if (rc2 < 0)
		return rc2;
	if (!pipe && (!rc || !rc2))
		return field_wrong(at, rc ? "minor" : "major", NULL, "a device's number", e);
	rec_addf(r, "device.major", "%lld", (long long)major);
	rec_addf(r, "device.minor", "%lld", (long long)minor);
	return 0;
}

static int one_device(json_object *d, const char *at, struct rec *r, struct err *e)
{
	int64_t mode = 0666, uid = 0, gid = 0;
	const char *path, *type;
	int rc = field_text(d, at, "path", &path, e);

	if (!rc)
		rc = field_text(d, at, "type", &type, e);
	if (rc)
		return rc;
	if (!path || path[0] != '/')
		return field_wrong(at, "path", j_get(d, "path"), "an absolute path", e);
	if (!type || !type[0] || type[1] || !strchr("bcup", type[0]))
		return field_wrong(at, "type", j_get(d, "type"), "b, c, u or p", e);
	rec_add(r, "device", path);
	rec_add(r, "device.type", type[0] == 'u' ? "c" : type);
	rc = device_numbers(d, at, type[0] == 'p', r, e);
	/* Go's FileMode: of the type's bits some callers send S_IFCHR with it. */
	if (!rc)
		rc = field_int(d, at, "fileMode", 0, UINT32_MAX, &mode, e);
	if (rc >= 0)
		rc = field_int(d, at, "uid", 0, UINT32_MAX - 1, &uid, e);
	if (rc >= 0)
		rc = field_int(d, at, "gid", 0, UINT32_MAX - 1, &gid, e);
	if (rc < 0)
		return rc;
	rec_addf(r, "device.mode", "%o", (unsigned)mode & 0777u);
	rec_addf(r, "device.uid", "%lld", (long long)uid);
	rec_addf(r, "device.gid", "%lld", (long long)gid);
	return 0;
}

/* What VFIO's nodes name is assigned to the VM, by assign.c. */
static int container_devices(const char *sys, json_object *lin, struct rec *r, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(lin, LINUX, "devices", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, "linux.devices", i, at, &one, e);
		if (!rc && !(sys && assign_takes(sys, one)))
			rc = one_device(one, at, r, e);
	}
	return rc;
}

static int one_devrule(json_object *d, const char *at, struct rec *r, struct err *e)
{
	int64_t major = -1, minor = -1;
	const char *type, *access;
	bool allow = false;
	int rc = field_bool(d, at, "allow", &allow, e);

	if (rc >= 0)
		rc = field_text(d, at, "type", &type, e);
	if (rc >= 0)
		rc = field_text(d, at, "access", &access, e);
	if (rc >= 0)
		rc = field_int(d, at, "major", -1, 0xfff, &major, e);
	if (rc >= 0)
		rc = field_int(d, at, "minor", -1, 0xfffff, &minor, e);
	if (rc < 0)
		return rc;
	if (!type || !type[0])
		type = "a";
	if (!access || !access[0])
		access = "rwm";
	if (type[1] || !strchr("abc", type[0]))
		return field_wrong(at, "type", j_get(d, "type"), "a, b or c", e);
	if (strlen(access) > 3 || strspn(access, "rwm") != strlen(access))
		return field_wrong(at, "access", j_get(d, "access"), "letters of rwm", e);
	rec_addf(r, "devrule", "%s %s %lld %lld %s", allow ? "allow" : "deny", type,
		 (long long)major, (long long)minor, access);
	return 0;
}

/* The rules of config-linux.md's "Default Devices" the guest adds by itself. */
static int container_devrules(const char *sys, json_object *resources, struct rec *r, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(resources, "linux.resources", "devices", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, "linux.resources.devices", i, at, &one, e);
		if (!rc && !(sys && assign_takes_rule(sys, one)))
			rc = one_devrule(one, at, r, e);
	}
	return rc;
}

/* ---- sysctls ---- */

/* Of a namespace that a container may have of its own (sysctl(5), ipc_namespaces(7),
 * uts_namespaces(7)). */
static bool sysctl_of_container(const char *key)
{
	static const char *const exact[] = {
		"kernel.msgmax",     "kernel.msgmnb",   "kernel.msgmni", "kernel.sem",
		"kernel.shmall",     "kernel.shmmax",   "kernel.shmmni", "kernel.shm_rmid_forced",
		"kernel.domainname", "kernel.hostname",
	};

	for (size_t i = 0; i < ARRAY_LEN(exact); i++) {
		if (!strcmp(exact[i], key))
			return true;
	}
	return !strncmp(key, "fs.mqueue.", 10);
}

/* Its way below /proc/sys has no empty part and none upward. */
static bool sysctl_is_name(const char *key)
{
	const char *p = key;

	if (!key[0] || strlen(key) > 255)
		return false;
	for (; *p; p++) {
		bool part = *p != '.' && *p != '/';

		if ((unsigned char)*p <= 0x20 || *p == '=' || *p == 0x7f)
			return false;
		if (!part && (p == key || !p[1] || p[1] == '.' || p[1] == '/'))
			return false;
	}
	return true;
}

enum sysctl_whose { SYSCTL_ALL, SYSCTL_CONTAINER, SYSCTL_MACHINE };

static int container_sysctls(json_object *lin, enum sysctl_whose whose, struct rec *r,
			     struct err *e)
{
	json_object *map;
	int rc = field_object(lin, LINUX, "sysctl", &map, e);

	if (rc || !map)
		return rc;
	json_object_object_foreach(map, key, v)
	{
		const char *text;

		if (!sysctl_is_name(key))
			return err_set(e, -EINVAL,
				       "linux.sysctl: '%.60s'; expected a name such as "
				       "net.ipv4.ip_forward",
				       key);
		if (!json_object_is_type(v, json_type_string))
			return field_wrong("linux.sysctl", key, v, "a string", e);
		rc = field_text(map, "linux.sysctl", key, &text, e);
		if (rc)
			return rc;
		if (whose == SYSCTL_ALL || (whose == SYSCTL_CONTAINER) == sysctl_of_container(key))
			rec_addf(r, "sysctl", "%s=%s", key, text);
	}
	return 0;
}

/* ---- hooks ---- */

static int one_hook(json_object *h, const char *input, const char *at, struct rec *r, struct err *e)
{
	const char *path;
	int64_t timeout = 0;
	int rc = field_text(h, at, "path", &path, e);

	if (rc)
		return rc;
	if (!path || path[0] != '/')
		return field_wrong(at, "path", j_get(h, "path"), "an absolute path", e);
	rec_add(r, "hook", path);
	rc = record_texts(r, "hook.arg", h, at, "args", e);
	if (!rc)
		rc = record_texts(r, "hook.env", h, at, "env", e);
	if (!rc && input)
		rec_add(r, "hook.input", input);
	if (!rc)
		rc = field_int(h, at, "timeout", 1, HOOK_TIMEOUT_MAX, &timeout, e);
	if (rc > 0)
		rec_addf(r, "hook.timeout", "%lld", (long long)timeout);
	return rc < 0 ? rc : 0;
}

static int container_hooks(json_object *hooks, const char *input, struct rec *r, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(hooks, "hooks", "startContainer", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, "hooks.startContainer", i, at, &one, e);
		if (!rc)
			rc = one_hook(one, input, at, r, e);
	}
	return rc;
}

/* ---- all ---- */

static int container_root(const struct record_container *c, json_object *lin, struct rec *r,
			  struct err *e)
{
	json_object *root;
	const char *propagation;
	bool readonly = false;
	int rc = field_object(c->bundle->spec, "", "root", &root, e);

	if (!rc)
		rc = field_bool(root, "root", "readonly", &readonly, e);
	if (rc >= 0)
		rc = field_text(lin, LINUX, "rootfsPropagation", &propagation, e);
	if (rc)
		return rc;
	rec_addf(r, "rootfs", "%s/%s/rootfs", CT_SHARE, c->id);
	if (readonly)
		rec_add(r, "readonly", "1");
	if (!propagation || !propagation[0])
		return 0;
	if (!mountopt_propagation(propagation))
		return field_wrong(LINUX, "rootfsPropagation", j_get(lin, "rootfsPropagation"),
				   "shared, slave, private, unbindable or one with an r", e);
	rec_addf(r, "propagation", "%lu", mountopt_propagation(propagation));
	return 0;
}

/* Without a new namespace for them they would be another container's, or the machine's, which has
 * them by record_machine(). */
static bool has_own_names(json_object *lin)
{
	json_object *list = j_get(lin, "namespaces");
	bool own = false;

	if (!json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *ns = json_object_array_get_idx(list, i);

		own |= !strcmp(j_get_str(ns, "type", ""), "uts") && !j_get_str(ns, "path", "")[0];
	}
	return own;
}

static int container_names(json_object *spec, json_object *lin, struct rec *r, struct err *e)
{
	const char *host, *domain;
	int rc = field_text(spec, "", "hostname", &host, e);

	if (!rc)
		rc = field_text(spec, "", "domainname", &domain, e);
	if (rc || !has_own_names(lin))
		return rc;
	if (host && host[0])
		rec_add(r, "hostname", host);
	if (domain && domain[0])
		rec_add(r, "domainname", domain);
	return 0;
}

static int container_paths(json_object *lin, const char *member, const char *key, struct rec *r,
			   struct err *e)
{
	char in[FIELD_WHERE_MAX];
	json_object *list;
	const char *path;
	int rc = field_array(lin, LINUX, member, &list, e);

	field_in(in, LINUX, member);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_path_at(list, in, i, &path, e);
		if (!rc)
			rec_add(r, key, path);
	}
	return rc;
}

/* A kernel of 64 bits that pretends to be one of 32 could be asked for; nobody does. */
static int container_cannot(json_object *lin, struct err *e)
{
	json_object *personality;
	const char *domain;
	int rc = field_object(lin, LINUX, "personality", &personality, e);

	if (!rc)
		rc = field_text(personality, "linux.personality", "domain", &domain, e);
	if (!rc && domain && strcmp(domain, "LINUX") != 0)
		rc = field_wrong("linux.personality", "domain", j_get(personality, "domain"),
				 "LINUX", e);
	if (!rc && j_get(lin, "timeOffsets"))
		rc = err_set(e, -EOPNOTSUPP,
			     "linux.timeOffsets: a container has no clock of its own here");
	return rc;
}

int record_container(const struct record_container *c, struct rec *r, struct err *e)
{
	json_object *lin = c->bundle->linux_, *resources = NULL;
	int rc = container_cannot(lin, e);

	rec_add(r, "id", c->id);
	if (!rc)
		rc = container_root(c, lin, r, e);
	if (!rc)
		rc = container_names(c->bundle->spec, lin, r, e);
	if (!rc)
		rc = container_namespaces(c, lin, r, e);
	if (!rc)
		rc = record_mounts(c, r, e);
	if (!rc)
		rc = container_devices(c->sys, lin, r, e);
	if (!rc)
		rc = field_object(lin, LINUX, "resources", &resources, e);
	if (!rc)
		rc = container_devrules(c->sys, resources, r, e);
	if (!rc)
		rc = container_paths(lin, "maskedPaths", "masked", r, e);
	if (!rc)
		rc = container_paths(lin, "readonlyPaths", "ro_path", r, e);
	if (!rc)
		rc = container_sysctls(lin, c->machine ? SYSCTL_CONTAINER : SYSCTL_ALL, r, e);
	if (!rc)
		rc = record_resources(resources, r, e);
	if (!rc)
		rc = container_hooks(c->bundle->hooks, c->hook_input, r, e);
	return rc;
}

int record_machine(const struct bundle *b, struct rec *r, struct err *e)
{
	const char *host;
	int rc = field_text(b->spec, "", "hostname", &host, e);

	if (!rc && host && host[0])
		rec_add(r, "hostname", host);
	return rc ? rc : container_sysctls(b->linux_, SYSCTL_MACHINE, r, e);
}

int record_resources(json_object *resources, struct rec *r, struct err *e)
{
	struct cglines *l = malloc(sizeof(*l));
	int rc;

	if (!l)
		return err_set(e, -ENOMEM, "out of memory");
	rc = cgline_make(resources, CGLINE_GUEST, l, e);
	for (unsigned i = 0; i < l->n && !rc; i++)
		rec_addf(r, "cgroup", "%s=%s", l->line[i].file, l->line[i].value);
	free(l);
	return rc;
}
