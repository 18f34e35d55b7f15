/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods that make and start VMs. A configuration is checked with insula-run's own code; what
 * the record and the limits need of it is taken from there. See methods.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "client.h"
#include "conf.h"
#include "daemon.h"
#include "event.h"
#include "foreign.h"
#include "host.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "pool.h"
#include "record.h"
#include "request.h"
#include "spec/json.h"
#include "state.h"
#include "spec/config.h"
#include "spec/settings.h"

/* ---- making ---- */

/* As insula-run says it, and in its parts. */
void method_refuse_config(struct request *r, const struct mistake *m, const char *text)
{
	char field[sizeof(m->field) + 8];
	struct refusal why = {.code = RPC_BAD_PARAMS, .reason = "config", .text = text};

	snprintf(field, sizeof(field), "config%s%s", m->field[0] ? "." : "", m->field);
	why.field = field;
	why.value = m->has_value ? m->value : NULL;
	why.expected = m->expected[0] ? m->expected : NULL;
	request_refuse(r, &why);
}

/* Of the configuration's members: `i` is the index, -1: in no array. */
static bool refuse_member(struct request *r, const char *key, int i, const char *value,
			  const char *expected)
{
	char field[CONFIG_FIELD_MAX], whole[sizeof(field) + 8];

	config_field(field, key, i, NULL);
	snprintf(whole, sizeof(whole), "config.%s", field);
	method_refuse_field(r, RPC_BAD_PARAMS, "config", whole, value, expected);
	return false;
}

/* A supervisor starts in "/" (Windows: in the system's directory): a path that means something else
 * there must not reach it. */
static bool absolute(struct request *r, const char *key, int i, const char *path)
{
	return !path || path_is_absolute(path) ||
	       refuse_member(r, key, i, path, "an absolute path");
}

static bool absolute_paths(struct request *r, const struct vm_config *c)
{
	const struct {
		const char *key, *path;
	} paths[] = {{"kernel", c->kernel},        {"initrd", c->initrd},
		     {"rootfs", c->rootfs},        {"metrics", c->metrics},
		     {"console", c->console_file}, {"vsock", c->vsock.path},
		     {"restore", c->restore}};
	bool ok = true;

	for (size_t i = 0; i < ARRAY_LEN(paths) && ok; i++)
		ok = absolute(r, paths[i].key, -1, paths[i].path);
	if (ok && c->image && setting_is_relative(setting_find("image"), c->image))
		ok = refuse_member(r, "image", -1, c->image, "an absolute path");
	for (unsigned i = 0; i < c->ndisks && ok; i++)
		ok = (config_module(c->disk[i].path) ||
		      absolute(r, "disks", (int)i, c->disk[i].path)) &&
		     (c->disk[i].thrown_away || absolute(r, "disks", (int)i, c->disk[i].overlay));
	for (unsigned i = 0; i < c->nshares && ok; i++)
		ok = absolute(r, "shares", (int)i, c->share[i].dir);
	for (unsigned i = 0; i < c->nnets && ok; i++) {
		if (c->net[i].kind == NET_ON_SOCKET)
			ok = absolute(r, "nets", (int)i, c->net[i].name);
	}
	return ok;
}

/* A descriptor is one of whoever starts insula-run, and that is insulad. */
static bool no_descriptors(struct request *r, const struct vm_config *c)
{
	for (unsigned i = 0; i < c->nnets; i++) {
		if (c->net[i].kind == NET_ON_FD)
			return refuse_member(r, "nets", (int)i, "fd", NET_NO_FD);
	}
	for (unsigned i = 0; i < c->nvfios; i++) {
		if (c->vfio[i].fd >= 0)
			return refuse_member(r, "vfios", (int)i, "fd", "a function without fd=N");
	}
	return true;
}

/* How much the guest of a snapshot has is known when it is there, so it counts with all that it may
 * have; or with `now`, if it is known after all. */
static void take_sizes(const struct vm_config *c, int64_t now, struct record *rec)
{
	bool known = now >= (int64_t)c->mem && now <= (int64_t)c->mem_max;

	rec->mem_boot = rec->mem_start = c->mem;
	rec->mem_max = c->mem_max;
	if (c->restore && c->mem_max)
		rec->mem_start = known ? (uint64_t)now : c->mem_max;
	rec->mem = rec->mem_start;
}

/* Validate with insula-run's own code; what the record needs of it goes into `rec`. */
bool vm_take_config(struct request *r, struct record *rec)
{
	struct vm_config *c = calloc(1, sizeof(*c));
	json_object *config = j_get(r->params, "config");
	const char *text = config ? j_text(config) : "{}";
	struct err e;
	bool ok = false;

	rec->config = strdup(text);
	if (!c || !rec->config) {
		free(c);
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return false;
	}
	config_init(c);
	if (strlen(text) > CONFIG_MAX) {
		method_refuse_field(r, RPC_BAD_PARAMS, "config", "config", NULL,
				    "at most 1 MiB, whatever max_line is");
	} else if (config_json(c, "", text, strlen(text), &e) || config_check(c, &e)) {
		method_refuse_config(r, &c->mistake, e.text);
	} else if (absolute_paths(r, c) && no_descriptors(r, c)) {
		rec->cpus = c->cpus;
		rec->cpus_max = c->cpus_max;
		take_sizes(c, j_get_int(r->params, "mem_now", 0), rec);
		ok = true;
	}
	config_free(c);
	free(c);
	return ok;
}

bool vm_config_is_good(struct request *r)
{
	struct record none = {.config = NULL};
	bool good = vm_take_config(r, &none);

	record_free(&none);
	return good;
}

static struct machine *same_name(struct daemon *d, const struct client *c, const char *name)
{
	for (struct machine *m = d->machines; m; m = m->next) {
		if (m->r.owner.uid == c->who.uid && !strcmp(m->r.name, name))
			return m;
	}
	return NULL;
}

bool vm_name_is_free(struct daemon *d, struct request *r, const char *name)
{
	if (!name || !same_name(d, r->client, name))
		return true;
	method_refuse_field(r, RPC_EXISTS, "exists", "name", name,
			    "a name that no other VM of this user has");
	return false;
}

static bool too_many(struct vm_shortage *s, const char *field, unsigned limit, const char *expected)
{
	s->field = field;
	snprintf(s->value, sizeof(s->value), "%u", limit);
	snprintf(s->expected, sizeof(s->expected), "%s", expected);
	return false;
}

static bool room_for_record(const struct daemon *d, uint32_t uid, struct vm_shortage *s)
{
	const struct limits *l = conf_limits(&d->conf, uid);
	unsigned mine = 0;

	for (const struct machine *m = d->machines; m; m = m->next)
		mine += m->r.owner.uid == uid;
	if (d->nmachines >= d->conf.max_vms)
		return too_many(s, "max_vms", d->conf.max_vms, "fewer VMs on this host");
	if (uid && mine >= l->vms)
		return too_many(s, "vms", l->vms, "fewer VMs of this user");
	return true;
}

void vm_refuse_shortage(struct request *r, const struct vm_shortage *s)
{
	method_refuse_field(r, RPC_LIMIT, "limit", s->field, s->value[0] ? s->value : NULL,
			    s->expected);
}

bool vm_name_is_good(struct request *r, const char *name)
{
	if (!name || name_is_valid(name))
		return true;
	method_refuse_field(r, RPC_BAD_PARAMS, "value", "name", name,
			    "1 to 63 letters, digits, dots, dashes and underscores, the first a "
			    "letter or digit");
	return false;
}

/* NULL: refused. */
static struct machine *vm_start_make(struct daemon *d, struct request *r, bool transient)
{
	const char *name = j_get_str(r->params, "name", NULL);
	struct machine *m = NULL;
	struct vm_shortage s;

	if (!vm_name_is_good(r, name))
		return NULL;
	if (!room_for_record(d, r->client->who.uid, &s)) {
		vm_refuse_shortage(r, &s);
		return NULL;
	}
	m = machine_new(d);
	if (!m) {
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return NULL;
	}
	m->r.owner = r->client->who;
	m->r.transient = transient;
	if (name)
		strcpy(m->r.name, name);
	else
		snprintf(m->r.name, sizeof(m->r.name), "vm-%.12s", m->r.id);
	if (!vm_take_config(r, &m->r)) {
		machine_forget(m);
		return NULL;
	}
	return m;
}

/* Asked for twice, it is there once. */
static void answer_existing(struct request *r, struct machine *m)
{
	json_object *old = json_tokener_parse(m->r.config), *o;
	json_object *new = j_get(r->params, "config");
	json_object *empty = json_object_new_object();
	bool equal = json_object_equal(old, new ? new : empty) && !m->r.transient;

	json_object_put(old);
	json_object_put(empty);
	if (!equal) {
		method_refuse_field(r, RPC_EXISTS, "exists", "name", m->r.name,
				    "a name that no other VM of this user has");
		return;
	}
	o = machine_json(m, false);
	j_bool(o, "existed", true);
	request_answer(r, o);
}

void method_vm_create(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", NULL);
	struct machine *m = name ? same_name(d, r->client, name) : NULL;
	struct err e;

	if (m) {
		answer_existing(r, m);
		return;
	}
	m = vm_start_make(d, r, false);
	if (!m)
		return;
	if (state_make(d->state, m->r.id, &e) || machine_save(m, &e)) {
		state_remove(d->state, m->r.id);
		machine_forget(m);
		method_refuse(r, RPC_INTERNAL, "state", e.text);
		return;
	}
	d->n.created++;
	event_emit(d, m, "created", NULL);
	request_answer(r, machine_json(m, false));
}

/* ---- starting ---- */

static bool within(struct vm_shortage *s, const char *what, uint64_t used, uint64_t more,
		   uint64_t limit)
{
	if (used <= limit && more <= limit - used)
		return true;
	s->field = what;
	snprintf(s->value, sizeof(s->value), "%llu in use, %llu more", (unsigned long long)used,
		 (unsigned long long)more);
	snprintf(s->expected, sizeof(s->expected), "at most %llu", (unsigned long long)limit);
	return false;
}

/* Of a VM with this record; those that run count. */
static bool room_in_limits(const struct daemon *d, const struct record *r, struct vm_shortage *s)
{
	const struct limits *l = conf_limits(&d->conf, r->owner.uid);
	uint64_t cpus = 0, mem = 0, all = 0;

	for (const struct machine *o = d->machines; o; o = o->next) {
		if (&o->r == r || !machine_active(o))
			continue;
		all += o->r.mem;
		if (o->r.owner.uid == r->owner.uid) {
			cpus += machine_cpus(o);
			mem += o->r.mem;
		}
	}
	if (r->owner.uid && (!within(s, "vcpus", cpus, r->cpus, l->vcpus) ||
			     !within(s, "memory", mem, r->mem, l->memory)))
		return false;
	return within(s, "overcommit_percent", all, r->mem,
		      host_memory() / 100 * d->conf.overcommit_percent);
}

static bool room_to_run(const struct daemon *d, uint32_t client, const struct record *r,
			struct vm_shortage *s)
{
	if (foreign_table_full(d, client)) {
		s->field = "descriptors";
		s->value[0] = 0;
		snprintf(s->expected, sizeof(s->expected),
			 "fewer VMs and connections: insulad has no descriptors left");
		return false;
	}
	return room_in_limits(d, r, s);
}

bool vm_room_to_grow(const struct daemon *d, struct machine *m, uint64_t mem, struct vm_shortage *s)
{
	uint64_t now = m->r.mem;
	bool room;

	m->r.mem = mem;
	room = room_in_limits(d, &m->r, s);
	m->r.mem = now;
	return room;
}

bool vm_room_for(const struct daemon *d, const struct record *r, struct vm_shortage *s)
{
	return room_for_record(d, r->owner.uid, s) && room_to_run(d, r->owner.uid, r, s);
}

bool vm_may_have_cpus(const struct machine *m, unsigned n, struct vm_shortage *s)
{
	const struct daemon *d = m->d;
	uint32_t uid = m->r.owner.uid;
	uint64_t others = 0;

	for (const struct machine *o = d->machines; o; o = o->next) {
		if (o != m && machine_active(o) && o->r.owner.uid == uid)
			others += machine_cpus(o);
	}
	return !uid || within(s, "vcpus", others, n, conf_limits(&d->conf, uid)->vcpus);
}

/* False: refused. */
static bool may_run(struct daemon *d, struct request *r, const struct machine *m)
{
	struct vm_shortage s;
	bool room = room_to_run(d, r->client->who.uid, &m->r, &s);

	if (!room)
		vm_refuse_shortage(r, &s);
	return room;
}

static const char *first_name(const struct request *r)
{
	json_object *names = j_get(r->params, "streams");

	return names ? json_object_get_string(json_object_array_get_idx(names, 0)) : NULL;
}

/* One for the console; on systems where they are descriptors also one for a command's errors. */
static bool are_streams(const struct request *r, int streams)
{
	if (r->more_fds || streams > (r->nfds ? 2 : 1))
		return false;
	for (unsigned i = 0; i < r->nfds; i++) {
		if (!host_is_stream(r->fd[i]))
			return false;
	}
	return true;
}

bool vm_streams_are_good(struct request *r)
{
	int streams = method_streams(r);

	if (streams < 0)
		return false;
	if (are_streams(r, streams))
		return true;
	method_refuse_field(r, RPC_BAD_PARAMS, "descriptor", "descriptors", NULL,
			    "none, one stream socket for the console, or another one for "
			    "the errors of a command");
	return false;
}

static bool vm_start_begin(struct daemon *d, struct request *r, struct machine *m)
{
	bool wait = j_get_bool(r->params, "wait", false);
	struct err e;
	int rc;

	if (!may_run(d, r, m) || !vm_streams_are_good(r))
		return false;
	/* With the rights that the owner has now, not with those of its creation. Root's
	 * start_for() has looked them up. */
	if (r->client->who.uid == m->r.owner.uid)
		m->r.owner = r->client->who;
	m->console = (struct console_of){
		.fd = r->fd[0],
		.errors = r->nfds > 1 ? r->fd[1] : -1,
		.name = r->nfds ? NULL : first_name(r),
		.owner = method_owner(r),
	};
	rc = machine_start(m, &e);
	m->console = (struct console_of){.fd = -1, .errors = -1};
	if (rc) {
		method_refuse(r, RPC_FAILED, "start-failed", e.text);
		return false;
	}
	if (wait) {
		machine_hold(m, r, 0);
	} else {
		r->machine = m;
		m->starting = r;
	}
	return true;
}

static bool may_start(struct request *r, const struct machine *m)
{
	if (!machine_active(m) && m->r.state != VM_BROKEN && !m->r.transient)
		return true;
	method_refuse_field(r, RPC_STATE, "wrong-state", "state", vm_state_names[m->r.state],
			    "created or ended");
	return false;
}

/* Root starts another user's VM. Whoever keeps the list of users may be slow to say in which groups
 * that one is: it is asked in one of libuv's threads. */
struct start_for {
	uv_work_t work;
	struct daemon *d;
	struct request *r;
	char id[ID_LEN + 1];
	struct owner who;
	int rc;
};

static void look_up(uv_work_t *w)
{
	struct start_for *s = w->data;

	s->rc = host_groups(&s->who);
}

static void start_now(struct start_for *s)
{
	struct request *r = s->r;
	struct machine *m = machine_by_id(s->d, s->id);

	if (!r->client) {
		request_free(r); /* whoever has asked has gone */
	} else if (!m) {
		method_refuse_field(r, RPC_NOT_FOUND, "not-found", "id", s->id,
				    "the id or name of a VM");
	} else if (s->rc) {
		method_refuse(r, RPC_FAILED, "start-failed",
			      s->rc == -E2BIG ? "the owner is in more than 64 groups"
					      : "the owner's groups cannot be looked up");
	} else if (may_start(r, m)) {
		m->r.owner = s->who;
		vm_start_begin(s->d, r, m);
	}
}

static void looked_up(uv_work_t *w, int status)
{
	struct start_for *s = w->data;

	if (!status)
		start_now(s);
	free(s);
}

static void start_for(struct daemon *d, struct request *r, struct machine *m)
{
	struct start_for *s = calloc(1, sizeof(*s));

	if (!s) {
		method_refuse(r, RPC_INTERNAL, "no-memory", NULL);
		return;
	}
	s->work.data = s;
	s->d = d;
	s->r = r;
	s->who = m->r.owner;
	strcpy(s->id, m->r.id);
	uv_queue_work(&d->loop, &s->work, look_up, looked_up);
}

void method_vm_start(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m || !may_start(r, m))
		return;
	if (host_uid() || r->client->who.uid == m->r.owner.uid || !m->r.owner.uid)
		vm_start_begin(d, r, m);
	else
		start_for(d, r, m);
}

void method_vm_run(struct daemon *d, struct request *r)
{
	if (j_get(r->params, "pool"))
		pool_run(d, r);
	else if (j_get(r->params, "config"))
		vm_run_now(d, r);
	else
		method_refuse_field(r, RPC_BAD_PARAMS, "missing", "config", NULL,
				    "an object, or a pool");
}

void vm_run_now(struct daemon *d, struct request *r)
{
	struct machine *m;

	if (!vm_name_is_free(d, r, j_get_str(r->params, "name", NULL)))
		return;
	m = vm_start_make(d, r, !j_get_bool(r->params, "keep", false));
	if (!m)
		return;
	d->n.created++;
	event_emit(d, m, "created", NULL);
	/* One whose supervisor could not even be made is not there, whoever wants to keep it: it
	 * was refused. */
	if (!vm_start_begin(d, r, m))
		machine_remove(m);
}

struct machine *vm_begin_clone(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", NULL);
	struct machine *m = vm_name_is_free(d, r, name) ? vm_start_make(d, r, true) : NULL;
	struct err e;

	if (!m)
		return NULL;
	if (!may_run(d, r, m)) {
		machine_forget(m);
		return NULL;
	}
	d->n.created++;
	event_emit(d, m, "created", NULL);
	if (machine_start(m, &e)) {
		method_refuse(r, RPC_FAILED, "start-failed", e.text);
		machine_remove(m);
		return NULL;
	}
	return m;
}
