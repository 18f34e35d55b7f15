/* SPDX-License-Identifier: BSD-2-Clause */
/* mounts[] (runtime-spec, config.md "Mounts") -> records. See record.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include <insula/base.h>

#include "field.h"
#include "mountopt.h"
#include "record.h"
#include "spec/json.h"

/* What the guest's own kernel makes. Anything else has its source on the host: share.c. */
static const char *const guest_types[] = {
	"proc",    "sysfs",   "tmpfs",       "ramfs",  "devpts",     "mqueue",
	"cgroup",  "cgroup2", "devtmpfs",    "bpf",    "securityfs", "debugfs",
	"tracefs", "fusectl", "binfmt_misc", "pstore", "configfs",   "hugetlbfs",
};

static bool is_guest_type(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(guest_types); i++) {
		if (!strcmp(guest_types[i], type))
			return true;
	}
	return false;
}

static void mount_records(struct rec *r, const struct mountopt *o, unsigned long flags)
{
	rec_addf(r, "mount.flags", "%lu", flags);
	if (o->clear)
		rec_addf(r, "mount.clear", "%lu", o->clear);
	if (o->prop)
		rec_addf(r, "mount.prop", "%lu", o->prop);
}

static void bind_record(struct rec *r, const char *dest, const char *source,
			const struct mountopt *o)
{
	rec_add(r, "mount", dest);
	rec_add(r, "mount.type", "bind");
	rec_add(r, "mount.source", source);
	/* The host has made one tree of it. */
	mount_records(r, o, o->flags | MS_BIND | MS_REC);
}

/* A guest has control groups of version 2 alone, whatever the host's caller thinks; and of their
 * mount only flags can be asked for. */
static void guest_record(struct rec *r, const char *dest, const char *type, const char *source,
			 const struct mountopt *o)
{
	bool cgroup = !strcmp(type, "cgroup") || !strcmp(type, "cgroup2");

	rec_add(r, "mount", dest);
	rec_add(r, "mount.type", cgroup ? "cgroup2" : type);
	rec_add(r, "mount.source", cgroup ? "cgroup2" : source && source[0] ? source : type);
	mount_records(r, o, o->flags);
	if (o->data && !cgroup)
		rec_add(r, "mount.data", o->data);
	if (o->copyup && !strcmp(type, "tmpfs"))
		rec_add(r, "mount.copyup", "1");
}

struct mount_texts {
	const char *dest, *type, *source;
	json_object *options;
};

static int read_mount(json_object *m, const char *at, struct mount_texts *t, struct err *e)
{
	int rc = field_text(m, at, "destination", &t->dest, e);

	if (!rc && (!t->dest || !t->dest[0]))
		rc = field_wrong(at, "destination", j_get(m, "destination"), "a path", e);
	if (!rc)
		rc = field_text(m, at, "type", &t->type, e);
	if (!rc)
		rc = field_text(m, at, "source", &t->source, e);
	if (!rc)
		rc = field_array(m, at, "options", &t->options, e);
	t->type = t->type ? t->type : "";
	return rc;
}

static int one_mount(json_object *m, const char *at, const char *shared, struct rec *r,
		     struct err *e)
{
	struct mount_texts t;
	struct mountopt o;
	char dest[PATH_MAX];
	int rc = read_mount(m, at, &t, e);

	if (!rc)
		rc = mountopt_parse(&o, t.options, t.type, at, e);
	if (rc)
		return rc;
	/* Earlier versions of the specification let it be relative to the root. */
	if (snprintf(dest, sizeof(dest), "%s%s", t.dest[0] == '/' ? "" : "/", t.dest) >=
	    (int)sizeof(dest))
		rc = err_set(e, -ENAMETOOLONG, "%s.destination: longer than %u bytes", at,
			     PATH_MAX - 1);
	else if (shared[0])
		bind_record(r, dest, shared, &o);
	else if (o.flags & MS_BIND)
		rc = field_wrong(at, "source", j_get(m, "source"), "a source that the VM was given",
				 e);
	else if (is_guest_type(t.type))
		guest_record(r, dest, t.type, t.source, &o);
	else
		rc = field_wrong(at, "type", j_get(m, "type"),
				 "bind, overlay or a file system of the kernel's own such as tmpfs",
				 e);
	mountopt_free(&o);
	return rc;
}

int record_mounts(const struct record_container *c, struct rec *r, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *one;
	int rc = 0;

	for (size_t i = 0; i < field_count(c->bundle->mounts) && !rc; i++) {
		rc = field_object_at(c->bundle->mounts, "mounts", i, at, &one, e);
		if (!rc)
			rc = one_mount(one, at, i < c->nsources ? c->source[i] : "", r, e);
	}
	return rc;
}
