/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * update and events. The limits of a container are twice: in its control group of the host, where
 * the VM and the proxies are, and in its group of the guest, where its processes are.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

#include "bundle.h"
#include "commands.h"
#include "conf.h"
#include "record.h"
#include "report.h"
#include "spec/json.h"
#include "vm.h"

#define GUEST_MS 10000
#define INTERVAL_S 5

/* ---- update ---- */

static json_object *member(json_object *o, const char *key)
{
	json_object *m = j_get(o, key);

	if (!m) {
		m = json_object_new_object();
		j_obj(o, key, m);
	}
	return m;
}

struct limit {
	const char *flag, *value, *object, *key;
	bool text;
};

static int set_limit(json_object *o, const struct limit *l, struct err *e)
{
	char *end;
	int64_t n;

	if (!l->value)
		return 0;
	if (l->text) {
		j_str(member(o, l->object), l->key, l->value);
		return 0;
	}
	errno = 0;
	n = strtoll(l->value, &end, 10);
	if (errno || !*l->value || *end)
		return err_set(e, -EINVAL, "--%s: '%.40s'; expected a number", l->flag, l->value);
	j_int(member(o, l->object), l->key, n);
	return 0;
}

static int resources_of(const struct flags *f, json_object **out, struct err *e)
{
	const struct limit limits[] = {
		{"memory", f->memory, "memory", "limit", false},
		{"memory-swap", f->memory_swap, "memory", "swap", false},
		{"memory-reservation", f->memory_reservation, "memory", "reservation", false},
		{"cpu-quota", f->cpu_quota, "cpu", "quota", false},
		{"cpu-period", f->cpu_period, "cpu", "period", false},
		{"cpu-share", f->cpu_share, "cpu", "shares", false},
		{"cpuset-cpus", f->cpuset_cpus, "cpu", "cpus", true},
		{"cpuset-mems", f->cpuset_mems, "cpu", "mems", true},
		{"pids-limit", f->pids_limit, "pids", "limit", false},
		{"blkio-weight", f->blkio_weight, "blockIO", "weight", false},
	};
	int rc = 0;

	if (f->resources)
		return bundle_object(f->resources, "--resources", out, e);
	*out = json_object_new_object();
	for (size_t i = 0; i < ARRAY_LEN(limits) && !rc; i++)
		rc = set_limit(*out, &limits[i], e);
	if (!rc && !json_object_object_length(*out))
		rc = err_set(e, -EINVAL, "update: nothing to change; expected --resources FILE");
	if (rc)
		json_object_put(*out);
	return rc;
}

static int update_guest(const struct container *c, const char *root, const struct rec *r,
			struct err *e)
{
	int share = vm_share(c, root, e), rc;
	char name[32];

	snprintf(name, sizeof(name), "update-%d", getpid());
	if (share < 0)
		return share;
	rc = rec_write(r, share, name, e);
	if (!rc)
		rc = guest_says(ask_guest(c, root, "update", name, NULL, GUEST_MS, NULL, e),
				"update", e);
	unlinkat(share, name, 0);
	close(share);
	return rc;
}

/* A limit that the VM does not have would be none. */
static int within_vm(const struct container *c, const struct flags *f, json_object *resources,
		     struct err *e)
{
	struct container owner;
	struct oci_conf conf;
	uint64_t mem = c->vm_mem;
	int rc;

	if (!state_owns_vm(c)) {
		rc = container_state_open(&owner, f->root, c->sandbox, false, e);
		if (rc)
			return rc;
		mem = owner.vm_mem;
		state_close(&owner);
	}
	rc = conf_read(&conf, f->config, f->config_named, e);
	if (!rc && mem)
		rc = conf_fits(&conf, mem, resources, e);
	conf_free(&conf);
	return rc;
}

static int update(const struct container *c, const struct flags *f, json_object *resources,
		  struct err *e)
{
	enum status s = state_status(c);
	struct rec r;
	int rc;

	if (s == STATUS_STOPPED || s == STATUS_CREATING)
		return err_set(e, -ESRCH, "container not running");
	rec_init(&r);
	rc = record_resources(resources, &r, e);
	if (!rc)
		rc = within_vm(c, f, resources, e);
	if (!rc && c->group.path[0])
		rc = cgroup_update(&c->group, resources, c->overhead, e);
	/* Before the start there is no group in the guest yet. */
	if (!rc && s != STATUS_CREATED)
		rc = update_guest(c, f->root, &r, e);
	rec_free(&r);
	return rc;
}

int update_command(const struct flags *f, struct err *e)
{
	json_object *resources = NULL;
	struct container c;
	int rc = resources_of(f, &resources, e);

	if (rc)
		return rc;
	rc = container_state_open(&c, f->root, f->id, true, e);
	if (!rc) {
		rc = update(&c, f, resources, e);
		state_close(&c);
	}
	json_object_put(resources);
	return rc;
}

/* ---- events ---- */

/* What the guest says of a container: numbers in an object, or nothing. */
static json_object *guest_stats(const struct container *c, const char *root)
{
	char *text = NULL;
	const char *why;
	json_object *o = NULL;
	struct err e;

	if (!ask_guest(c, root, "stats", NULL, NULL, GUEST_MS, &text, &e) && text)
		o = j_parse(text, strlen(text), 8, &why);
	if (o && !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = NULL;
	}
	free(text);
	return j_clean(o);
}

static void emit(const char *type, const char *id, json_object *data)
{
	json_object *o = json_object_new_object();

	j_str(o, "type", type);
	j_str(o, "id", id);
	if (data)
		j_obj(o, "data", data);
	puts(j_text(o));
	fflush(stdout);
	json_object_put(o);
}

static void emit_stats(const struct container *c, const char *root, int64_t *ooms)
{
	json_object *data = c->group.path[0] ? cgroup_stats(&c->group) : json_object_new_object();
	json_object *guest = guest_stats(c, root);
	int64_t now = j_get_int(guest, "oom_kill", 0);

	if (guest)
		j_obj(data, "guest", guest);
	emit("stats", c->id, data);
	if (*ooms >= 0 && now > *ooms)
		emit("oom", c->id, NULL);
	*ooms = now;
}

/* "5", "5s", "1m" */
static int interval_of(const char *text, unsigned *out, struct err *e)
{
	char *end = NULL;
	unsigned long n = text ? strtoul(text, &end, 10) : INTERVAL_S;
	bool minutes = end && !strcmp(end, "m");

	if (text && (!end || end == text || (*end && strcmp(end, "s") != 0 && !minutes)))
		n = 0;
	if (!n || n > 3600)
		return err_set(e, -EINVAL, "--interval: '%.20s'; expected seconds, such as 5s",
			       text);
	*out = (unsigned)n * (minutes ? 60 : 1);
	return 0;
}

int events_command(const struct flags *f, struct err *e)
{
	struct container c;
	int64_t ooms = -1;
	unsigned interval = 0;
	int rc = interval_of(f->interval, &interval, e);

	if (!rc)
		rc = container_state_open(&c, f->root, f->id, false, e);
	if (rc)
		return rc;
	if (state_status(&c) == STATUS_STOPPED)
		rc = err_set(e, -ESRCH, "container not running");
	while (!rc && proc_alive(&c.proxy)) {
		emit_stats(&c, f->root, &ooms);
		if (f->stats || !proc_wait(&c.proxy, (int)interval * 1000))
			break;
	}
	state_close(&c);
	return rc;
}
