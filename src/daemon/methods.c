/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The methods: one table, from which requests are dispatched and checked, rpc.discover and
 * docs/control-api.md are made, and tests check the answers. One function per method.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "daemon.h"
#include "spec/config.h"

#define KILL_GRACE_MS 3000
#define STOP_SPARE_MS 15000 /* for helpers that drain, after the deadline */
#define STOP_DEFAULT_MS 10000

/* ---- refusals ---- */

void method_refuse(struct request *r, enum rpc_code code, const char *reason, const char *text)
{
	const struct refusal why = {code, reason, NULL, NULL, NULL, text};

	request_refuse(r, &why);
}

void method_refuse_field(struct request *r, enum rpc_code code, const char *reason,
			 const char *field, const char *value, const char *expected)
{
	const struct refusal why = {code, reason, field, value, expected, NULL};

	request_refuse(r, &why);
}

/* The VM that the parameter "id" names; NULL: refused. One that is somebody else's is not there. */
struct machine *method_named(struct daemon *d, struct request *r)
{
	const char *id = j_get_str(r->params, "id", "");
	bool several;
	struct machine *m = machine_find(d, r->client, id, &several);

	if (several)
		method_refuse_field(r, RPC_NOT_FOUND, "ambiguous", "id", id,
				    "the id of a VM: several users have one of this name");
	else if (!m)
		method_refuse_field(r, RPC_NOT_FOUND, "not-found", "id", id,
				    "the id or name of a VM");
	return m;
}

struct machine *method_machine(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m || machine_active(m))
		return m;
	method_refuse_field(r, RPC_STATE, "wrong-state", "state", vm_state_names[m->r.state],
			    "a VM that runs");
	return NULL;
}

/* ---- supervisors' answers ---- */

static const struct {
	const char *reason;
	enum rpc_code code;
} codes[] = {{"wrong-state", RPC_STATE},      {"busy", RPC_BUSY},
	     {"timeout", RPC_TIMEOUT},        {"ended", RPC_STATE},
	     {"not-ready", RPC_STATE},        {"no-agent", RPC_UNSUPPORTED},
	     {"no-console", RPC_UNSUPPORTED}, {"unknown-op", RPC_UNSUPPORTED},
	     {"not-found", RPC_NOT_FOUND},    {"bad-params", RPC_BAD_PARAMS},
	     {"failed", RPC_FAILED}};

void method_refuse_as(struct request *r, json_object *error)
{
	const char *reason = j_get_str(error, "reason", "failed");

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		if (!strcmp(codes[i].reason, reason)) {
			method_refuse(r, codes[i].code, codes[i].reason,
				      j_get_str(error, "text", NULL));
			return;
		}
	}
	method_refuse(r, RPC_FAILED, "failed", j_get_str(error, "text", NULL));
}

/* What it said, as it is. */
void method_pass_on(struct machine *m, struct request *r, json_object *result, json_object *error,
		    int fd)
{
	(void)m;
	if (error)
		method_refuse_as(r, error);
	else
		request_answer_fd(r, json_object_get(result), fd);
}

static void answer_state(struct machine *m, struct request *r, json_object *result,
			 json_object *error, int fd)
{
	const char *state = j_get_str(result, "state", "");

	(void)fd;
	if (error) {
		method_refuse_as(r, error);
		return;
	}
	if (m->r.state != VM_STOPPING && (!strcmp(state, "paused") || !strcmp(state, "running")))
		machine_set_state(m, !strcmp(state, "paused") ? VM_PAUSED : VM_RUNNING);
	request_answer(r, machine_json(m, false));
}

/* ---- daemon ---- */

static void daemon_info(struct daemon *d, struct request *r)
{
	const struct limits *l = conf_limits(&d->conf, r->client->who.uid);
	json_object *o = json_object_new_object(), *limits = json_object_new_object();

	j_str(o, "version", INSULA_VERSION);
	j_int(o, "pid", getpid());
	j_int(o, "uptime_ms", (int64_t)((clock_ns() - d->started_ns) / 1000000));
	j_int(o, "uid", r->client->who.uid);
	if (r->client->who.sid[0])
		j_str(o, "sid", r->client->who.sid);
	j_bool(o, "cgroup", d->cgroups.on);
	j_int(o, "host_memory", (int64_t)host_memory());
	j_int(o, "overcommit_percent", d->conf.overcommit_percent);
	if (r->client->who.uid) {
		j_int(limits, "vms", l->vms);
		j_int(limits, "vcpus", l->vcpus);
		j_int(limits, "memory", (int64_t)l->memory);
		j_obj(o, "limits", limits);
	} else {
		json_object_put(limits);
	}
	request_answer(r, o);
}

static void daemon_metrics(struct daemon *d, struct request *r)
{
	request_answer(r, metrics_json(d));
}

/* ---- making ---- */

/* As insula-run says it, and in its parts. */
static void refuse_config(struct request *r, const struct mistake *m, const char *text)
{
	char field[sizeof(m->field) + 8];
	struct refusal why = {.code = RPC_BAD_PARAMS, .reason = "config", .text = text};

	snprintf(field, sizeof(field), "config%s%s", m->field[0] ? "." : "", m->field);
	why.field = field;
	why.value = m->has_value ? m->value : NULL;
	why.expected = m->expected[0] ? m->expected : NULL;
	request_refuse(r, &why);
}

/* A supervisor starts in "/" (Windows: in the system's directory): a path that means something else
 * there must not reach it. */
static bool is_relative(const char *path)
{
	return path && !path_is_absolute(path);
}

static const char *relative_item(const struct vm_config *c, const char **field)
{
	*field = "config.disks";
	for (unsigned i = 0; i < c->ndisks; i++) {
		if (is_relative(c->disk[i].path))
			return c->disk[i].path;
	}
	*field = "config.shares";
	for (unsigned i = 0; i < c->nshares; i++) {
		if (is_relative(c->share[i].dir))
			return c->share[i].dir;
	}
	*field = "config.nets";
	for (unsigned i = 0; i < c->nnets; i++) {
		if (c->net[i].kind == NET_ON_SOCKET && is_relative(c->net[i].name))
			return c->net[i].name;
	}
	return NULL;
}

static const char *relative_path(const struct vm_config *c, const char **field)
{
	const struct {
		const char *field, *path;
	} paths[] = {{"config.kernel", c->kernel},        {"config.initrd", c->initrd},
		     {"config.rootfs", c->rootfs},        {"config.metrics", c->metrics},
		     {"config.console", c->console_file}, {"config.vsock", c->vsock.path}};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		*field = paths[i].field;
		if (is_relative(paths[i].path))
			return paths[i].path;
	}
	return relative_item(c, field);
}

/* A descriptor is one of whoever starts insula-run, and that is insulad. */
static bool has_descriptor(const struct vm_config *c)
{
	for (unsigned i = 0; i < c->nnets; i++) {
		if (c->net[i].kind == NET_ON_FD)
			return true;
	}
	return false;
}

/* Validate with insula-run's own code; what the record needs of it goes into `rec`. */
static bool take_config(struct request *r, struct record *rec)
{
	struct vm_config *c = calloc(1, sizeof(*c));
	json_object *config = j_get(r->params, "config");
	const char *text = config ? j_text(config) : "{}", *field, *path;
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
		refuse_config(r, &c->mistake, e.text);
	} else if ((path = relative_path(c, &field))) {
		method_refuse_field(r, RPC_BAD_PARAMS, "config", field, path, "an absolute path");
	} else if (has_descriptor(c)) {
		method_refuse_field(r, RPC_BAD_PARAMS, "config", "config.nets", "fd",
				    "tap=NAME, user or socket=PATH");
	} else {
		rec->cpus = c->cpus;
		rec->mem = c->mem;
		ok = true;
	}
	config_free(c);
	free(c);
	return ok;
}

static struct machine *same_name(struct daemon *d, const struct client *c, const char *name)
{
	for (struct machine *m = d->machines; m; m = m->next) {
		if (m->r.owner.uid == c->who.uid && !strcmp(m->r.name, name))
			return m;
	}
	return NULL;
}

static bool room_for_record(struct daemon *d, struct request *r)
{
	const struct limits *l = conf_limits(&d->conf, r->client->who.uid);
	unsigned mine = 0;
	char n[16];

	for (struct machine *m = d->machines; m; m = m->next)
		mine += m->r.owner.uid == r->client->who.uid;
	if (d->nmachines >= d->conf.max_vms) {
		snprintf(n, sizeof(n), "%u", d->conf.max_vms);
		method_refuse_field(r, RPC_LIMIT, "limit", "max_vms", n, "fewer VMs on this host");
		return false;
	}
	if (r->client->who.uid && mine >= l->vms) {
		snprintf(n, sizeof(n), "%u", l->vms);
		method_refuse_field(r, RPC_LIMIT, "limit", "vms", n, "fewer VMs of this user");
		return false;
	}
	return true;
}

/* NULL: refused. */
static struct machine *make(struct daemon *d, struct request *r, bool transient)
{
	const char *name = j_get_str(r->params, "name", NULL);
	struct machine *m = NULL;

	if (name && !name_is_valid(name)) {
		method_refuse_field(
			r, RPC_BAD_PARAMS, "value", "name", name,
			"1 to 63 letters, digits, dots, dashes and underscores, the first a "
			"letter or digit");
		return NULL;
	}
	if (!room_for_record(d, r))
		return NULL;
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
	if (!take_config(r, &m->r)) {
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

static void vm_create(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", NULL);
	struct machine *m = name ? same_name(d, r->client, name) : NULL;
	struct err e;

	if (m) {
		answer_existing(r, m);
		return;
	}
	m = make(d, r, false);
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

static bool within(struct request *r, const char *what, uint64_t used, uint64_t more,
		   uint64_t limit)
{
	char value[96];

	if (used <= limit && more <= limit - used)
		return true;
	snprintf(value, sizeof(value), "%llu in use, %llu more", (unsigned long long)used,
		 (unsigned long long)more);
	{
		char expected[64];

		snprintf(expected, sizeof(expected), "at most %llu", (unsigned long long)limit);
		method_refuse_field(r, RPC_LIMIT, "limit", what, value, expected);
	}
	return false;
}

static bool room_to_run(struct daemon *d, struct request *r, const struct machine *m)
{
	const struct limits *l = conf_limits(&d->conf, m->r.owner.uid);
	uint64_t cpus = 0, mem = 0, all = 0;

	if (foreign_table_full(d, r->client->who.uid)) {
		method_refuse_field(r, RPC_LIMIT, "limit", "descriptors", NULL,
				    "fewer VMs and connections: insulad has no descriptors left");
		return false;
	}
	for (const struct machine *o = d->machines; o; o = o->next) {
		if (o == m || !machine_active(o))
			continue;
		all += o->r.mem;
		if (o->r.owner.uid == m->r.owner.uid) {
			cpus += o->r.cpus;
			mem += o->r.mem;
		}
	}
	if (m->r.owner.uid && (!within(r, "vcpus", cpus, m->r.cpus, l->vcpus) ||
			       !within(r, "memory", mem, m->r.mem, l->memory)))
		return false;
	return within(r, "overcommit_percent", all, m->r.mem,
		      host_memory() / 100 * d->conf.overcommit_percent);
}

int method_streams(struct request *r)
{
	json_object *names = j_get(r->params, "streams");
	size_t n = names ? json_object_array_length(names) : 0;

	if (!n || host_names_streams)
		return (int)(r->nfds + n);
	method_refuse_field(r, RPC_BAD_PARAMS, "descriptor", "streams", NULL,
			    "descriptors that come with the request, on this system");
	return -1;
}

const char *method_owner(const struct request *r)
{
	return r->client->who.uid ? r->client->who.sid : NULL;
}

static const char *first_name(const struct request *r)
{
	return json_object_get_string(json_object_array_get_idx(j_get(r->params, "streams"), 0));
}

static bool begin(struct daemon *d, struct request *r, struct machine *m)
{
	bool wait = j_get_bool(r->params, "wait", false);
	int streams, rc;
	struct err e;

	if (!room_to_run(d, r, m))
		return false;
	streams = method_streams(r);
	if (streams < 0)
		return false;
	if (r->more_fds || streams > 1 || (r->nfds && !host_is_stream(r->fd[0]))) {
		method_refuse_field(r, RPC_BAD_PARAMS, "descriptor", "descriptors", NULL,
				    "none, or one stream socket for the console");
		return false;
	}
	/* With the rights that the owner has now, not with those of its creation. Root's
	 * start_for() has looked them up. */
	if (r->client->who.uid == m->r.owner.uid)
		m->r.owner = r->client->who;
	m->console = (struct console_of){
		.fd = r->fd[0],
		.name = streams && !r->nfds ? first_name(r) : NULL,
		.owner = method_owner(r),
	};
	rc = machine_start(m, &e);
	m->console = (struct console_of){.fd = -1};
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
	struct machine *m = s->d->machines;

	while (m && strcmp(m->r.id, s->id) != 0)
		m = m->next;
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
		begin(s->d, r, m);
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

static void vm_start(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m || !may_start(r, m))
		return;
	if (host_uid() || r->client->who.uid == m->r.owner.uid || !m->r.owner.uid)
		begin(d, r, m);
	else
		start_for(d, r, m);
}

static void vm_run(struct daemon *d, struct request *r)
{
	const char *name = j_get_str(r->params, "name", NULL);
	struct machine *m;

	if (name && same_name(d, r->client, name)) {
		method_refuse_field(r, RPC_EXISTS, "exists", "name", name,
				    "a name that no other VM of this user has");
		return;
	}
	m = make(d, r, true);
	if (!m)
		return;
	d->n.created++;
	event_emit(d, m, "created", NULL);
	if (!begin(d, r, m))
		machine_remove(m);
}

/* ---- looking ---- */

static void vm_list(struct daemon *d, struct request *r)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();

	for (struct machine *m = d->machines; m; m = m->next) {
		if (machine_visible(m, r->client))
			json_object_array_add(list, machine_json(m, false));
	}
	j_obj(o, "vms", list);
	request_answer(r, o);
}

static void add_info(struct machine *m, struct request *r, json_object *result, json_object *error,
		     int fd)
{
	json_object *o = machine_json(m, true);
	static const char *const lists[] = {"processes", "devices"};

	(void)fd;
	(void)error; /* a supervisor that does not answer: what we know ourselves */
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		json_object *list = j_get(result, lists[i]);

		if (json_object_is_type(list, json_type_array))
			j_obj(o, lists[i], json_object_get(list));
	}
	j_bool(o, "answers", !error);
	request_answer(r, o);
}

static void vm_info(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m)
		return;
	if (m->hello)
		talk_ask(m, "info", NULL, add_info, r, false);
	else
		request_answer(r, machine_json(m, true));
}

static void vm_metrics(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m)
		return;
	if (m->hello)
		talk_ask(m, "metrics", NULL, method_pass_on, r, false);
	else
		request_answer(r, machine_result(m));
}

/* ---- running ---- */

static void vm_pause(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);

	if (m)
		talk_ask(m, "pause", NULL, answer_state, r, false);
}

static void vm_resume(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);

	if (m)
		talk_ask(m, "resume", NULL, answer_state, r, false);
}

static void vm_device_restart(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	params = json_object_new_object();
	j_str(params, "device", j_get_str(r->params, "device", ""));
	talk_ask(m, "device-restart", params, method_pass_on, r, false);
}

/* The end itself is the answer; a supervisor that does not take the order is shot. */
static void after_order(struct machine *m, struct request *r, json_object *result,
			json_object *error, int fd)
{
	(void)r;
	(void)result;
	(void)fd;
	if (error && strcmp(j_get_str(error, "reason", ""), "ended") != 0)
		machine_shoot(m);
}

static void order_end(struct machine *m, struct request *r, const char *op, uint64_t ms)
{
	json_object *params = json_object_new_object();

	j_int(params, "deadline_ms", (int64_t)ms);
	if (m->r.state != VM_STOPPING)
		event_emit(m->d, m, "stopping", NULL);
	machine_set_state(m, VM_STOPPING);
	machine_hold(m, r, 0);
	talk_ask(m, op, params, after_order, NULL, false);
}

static void vm_stop_method(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	uint64_t ms = (uint64_t)j_get_int(r->params, "deadline_ms", STOP_DEFAULT_MS);

	if (!m)
		return;
	machine_shoot_later(m, ms + STOP_SPARE_MS);
	order_end(m, r, "stop", ms);
}

static void vm_kill(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);

	if (!m)
		return;
	machine_shoot_later(m, KILL_GRACE_MS);
	order_end(m, r, "kill", 0);
}

static void vm_wait(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m)
		return;
	if (m->r.state == VM_ENDED)
		request_answer(r, machine_result(m));
	else if (m->r.state == VM_BROKEN)
		method_refuse_field(r, RPC_STATE, "wrong-state", "state",
				    vm_state_names[m->r.state], "a VM whose record can be read");
	else
		machine_hold(m, r, (uint64_t)j_get_int(r->params, "timeout_ms", 0));
}

static void vm_delete(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m)
		return;
	if (machine_active(m)) {
		method_refuse_field(r, RPC_STATE, "wrong-state", "state",
				    vm_state_names[m->r.state],
				    "created or ended; stop the VM first");
		return;
	}
	if (m->newer) {
		method_refuse(r, RPC_STATE, "newer",
			      "its record is of a newer insulad, which can read it");
		return;
	}
	if (m->r.state == VM_BROKEN && machine_is_served(m)) {
		method_refuse(r, RPC_STATE, "wrong-state",
			      "its record cannot be read, but its supervisor runs: end that first");
		return;
	}
	machine_remove(m);
	request_answer(r, NULL);
}

static void vm_console(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	if (r->batch) {
		method_refuse(r, RPC_UNSUPPORTED, "batch",
			      "a descriptor cannot come with the answers of a batch");
		return;
	}
	params = json_object_new_object();
	j_int(params, "scrollback", j_get_int(r->params, "scrollback", 0));
	if (r->client->who.sid[0])
		j_str(params, "sid", r->client->who.sid);
	talk_ask(m, "console", params, method_pass_on, r, false);
}

/* ---- events ---- */

static void events_subscribe(struct daemon *d, struct request *r)
{
	json_object *o = json_object_new_object();
	struct client *c = r->client;

	c->filter[0] = 0;
	if (j_get(r->params, "id")) {
		struct machine *m = method_named(d, r);

		if (!m) {
			json_object_put(o);
			return;
		}
		strcpy(c->filter, m->r.id);
	}
	c->subscribed = true;
	j_int(o, "next_seq", (int64_t)c->seq + 1);
	request_answer(r, o);
}

static void events_unsubscribe(struct daemon *d, struct request *r)
{
	(void)d;
	r->client->subscribed = false;
	request_answer(r, NULL);
}

static void rpc_discover(struct daemon *d, struct request *r)
{
	(void)d;
	request_answer(r, discover_document());
}

/* ---- the table ---- */

#define OBJECT(required, members)                                                          \
	"{\"type\":\"object\",\"additionalProperties\":false,\"required\":[" required "]," \
	"\"properties\":{" members "}}"
/* Answers may grow. */
#define ANSWER(required, members) \
	"{\"type\":\"object\",\"required\":[" required "],\"properties\":{" members "}}"
#define WORDS(name, words) "\"" name "\":{\"type\":\"string\",\"description\":\"" words "\"}"
#define NUMBER(name, min, max, words)                                             \
	"\"" name "\":{\"type\":\"integer\",\"minimum\":" min ",\"maximum\":" max \
	",\"description\":\"" words "\"}"
#define COUNT(name, words) \
	"\"" name "\":{\"type\":\"integer\",\"minimum\":0,\"description\":\"" words "\"}"
#define FLAG(name, words) "\"" name "\":{\"type\":\"boolean\",\"description\":\"" words "\"}"
#define ID                                                              \
	"\"id\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":63," \
	"\"description\":\"id or name of the VM\"}"
#define NAME                                                              \
	"\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":63," \
	"\"description\":\"letters, digits, dots, dashes and underscores; without, one is made\"}"
#define CONFIG                                                                                   \
	"\"config\":{\"type\":\"object\",\"description\":\"what insula-run --json takes; paths " \
	"are absolute\"}"
#define WAIT FLAG("wait", "answer when the VM has ended, with its result; else when the guest runs")
#define NOTHING OBJECT("", "")
#define DONE ANSWER("", "")
#define DEVICE                                                              \
	"\"device\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":31," \
	"\"description\":\"as vm.info names it: vda, com1 ...\"}"
#define DEVICES                                                                                   \
	"\"devices\":{\"type\":\"array\",\"items\":{\"type\":\"object\"},"                        \
	"\"description\":\"name, state (ok, restarting, failed), restarts, next_try_ms while it " \
	"waits\"}"
#define MACHINE_MEMBERS                                                                                                                                                                                                                                                                                                                                                              \
	WORDS("id", "never used again")                                                                                                                                                                                                                                                                                                                                              \
	"," WORDS(                                                                                                                                                                                                                                                                                                                                                                   \
		"name",                                                                                                                                                                                                                                                                                                                                                              \
		"") "," COUNT("uid",                                                                                                                                                                                                                                                                                                                                                 \
			      "whose it is") ","                                                                                                                                                                                                                                                                                                                                     \
					     "\"state\":{\"type\":\"string\",\"enum\":["                                                                                                                                                                                                                                                                                             \
					     "\"created\","                                                                                                                                                                                                                                                                                                                          \
					     "\"starting\",\"running\","                                                                                                                                                                                                                                                                                                             \
					     "\"paused\",\"stopping\",\"ended\",\"broken\"]}"                                                                                                                                                                                                                                                                                        \
					     "," FLAG(                                                                                                                                                                                                                                                                                                                               \
						     "transient",                                                                                                                                                                                                                                                                                                                    \
						     "deleted "                                                                                                                                                                                                                                                                                                                      \
						     "when it "                                                                                                                                                                                                                                                                                                                      \
						     "ends") "," COUNT("cpus",                                                                                                                                                                                                                                                                                                       \
								       "") "," COUNT("mem",                                                                                                                                                                                                                                                                                          \
										     "bytes") "," COUNT("create"                                                                                                                                                                                                                                                                     \
													"d_ms",                                                                                                                                                                                                                                                                      \
													"since "                                                                                                                                                                                                                                                                     \
													"1970") "," COUNT("started_ms", "") "," COUNT("ended_ms",                                                                                                                                                                                                                    \
																		      "") "," COUNT("pid", "of "                                                                                                                                                                                                     \
																					   "its "                                                                                                                                                                                                    \
																					   "super"                                                                                                                                                                                                   \
																					   "viso"                                                                                                                                                                                                    \
																					   "r") "," COUNT("restarts", "of its device processes") "," WORDS("reason", "how it ended") "," COUNT("status", "that insula-run would have") "," FLAG("existed",                                           \
																																								"vm.create: it was there before") "," WORDS("error", \
																																													    "of a broken one: why its record cannot be read")
#define RELEASE                                                                                  \
	WORDS("supervisor_version",                                                              \
	      "its supervisor's release, older than the daemon's after an upgrade; missing: it " \
	      "does not say")
#define OWNER_SID WORDS("sid", "Windows: whose it is; uid is then a number of this daemon's own")
#define MACHINE_REQUIRED "\"id\",\"name\",\"uid\",\"state\",\"cpus\",\"mem\""
#define MACHINE ANSWER(MACHINE_REQUIRED, MACHINE_MEMBERS "," OWNER_SID)
#define RESULT_MEMBERS                                                                             \
	WORDS("id", "")                                                                            \
	"," WORDS("name", "") "," WORDS("reason", "how it ended") "," COUNT(                       \
		"status",                                                                          \
		"that insula-run would have") "," WORDS("message",                                 \
							"one line for people, if there is "        \
							"something to say") ","                    \
									    "\"devices\":{"        \
									    "\"type\":\"array\","  \
									    "\"items\":{\"type\":" \
									    "\"object\"}}"
#define STOP_MEMBER                                                                      \
	"\"stop\":{\"type\":\"string\",\"enum\":[\"clean\",\"forced\"],\"description\":" \
	"\"after vm.stop: the guest has ended by itself, or was stopped\"}"
#define EXEC NUMBER("exec", "1", "4294967295", "the command, as vm.exec has named it")
#define STRINGS(name, max, words)                                                                \
	"\"" name "\":{\"type\":\"array\",\"maxItems\":" max ",\"items\":{\"type\":\"string\"}," \
	"\"description\":\"" words "\"}"
#define STREAMS(max)                                                                          \
	STRINGS("streams", max,                                                               \
		"Windows, instead of descriptors: names of pipes that this client has made, " \
		"of one instance each")
#define SIZE                                            \
	NUMBER("rows", "1", "65535", "of the terminal") \
	"," NUMBER("cols", "1", "65535", "")
#define RESULT ANSWER("\"id\",\"name\"", RESULT_MEMBERS "," STOP_MEMBER)
/* With "wait" the answer is the result, without it is the VM: both have these. */
#define STARTED ANSWER("\"id\",\"name\"", MACHINE_MEMBERS "," OWNER_SID)

/* clang-format off */
#define LOGS_WORDS \
	"What the console and the command of a VM said, and its supervisor and their children, as " \
	"far as log_max goes: also when it has ended, and the end of the run before. With \\\"follow\\\" " \
	"lines come as notifications \\\"log\\\" {id, request, lines, next, missed}, and the answer, " \
	"with the last ones, when the VM has ended."
#define LOGS_PARAMS \
	ID "," \
	WORDS("after", "\\\"next\\\" of an earlier answer: go on there; without, at the beginning") "," \
	NUMBER("tail", "0", "1000000000", "begin with so many of the last lines") "," \
	COUNT("since_ms", "only lines that are not older, since 1970") "," \
	NUMBER("limit", "1", "524288", "of one answer, in bytes of JSON, about; default 65536") "," \
	FLAG("follow", "")
#define LOGS_ANSWER \
	"\"lines\":{\"type\":\"array\",\"items\":{\"type\":\"object\"},\"description\":" \
	"\"time_ms, stream (console, stdout, stderr or insula), text; partial: it has no line end yet\"}," \
	WORDS("next", "where the next answer goes on") "," \
	FLAG("missed", "lines are gone that were to come here") "," \
	FLAG("more", "the limit was reached: ask again") "," \
	FLAG("end", "the VM has ended, and this is all")
/* clang-format on */

const struct method methods[] =
	{
		{"daemon.info", "What this daemon is, and what the client may use.", daemon_info,
		 NOTHING,
		 ANSWER("\"version\",\"pid\",\"uid\",\"cgroup\"",
			WORDS("version", "") "," COUNT("pid", "") "," COUNT("uptime_ms", "") "," COUNT("uid", "the client's") "," FLAG(
				"cgroup",
				"VMs have control groups") "," COUNT("host_memory",
								     "bytes") "," COUNT("overcommit"
											"_"
											"percent",
											"") ","
											    "\"limi"
											    "ts\":{"
											    "\"type"
											    "\":"
											    "\"obje"
											    "ct\","
											    "\"desc"
											    "riptio"
											    "n"
											    "\":"
											    "\"of "
											    "this "
											    "user; "
											    "root "
											    "has "
											    "none\""
											    "}"),
		 false},
		{"daemon.metrics", "Counters of the daemon.", daemon_metrics, NOTHING,
		 ANSWER("\"requests\",\"vms\"",
			COUNT("requests",
			      "") ",\"vms\":{\"type\":\"object\",\"description\":\"by state\"}"),
		 false},
		{"vm.create",
		 "Make a VM, and start nothing. The same name and configuration again is the same "
		 "VM.",
		 vm_create, OBJECT("\"config\"", NAME "," CONFIG), MACHINE, false},
		{"vm.start",
		 "Start a VM that is created or has ended. A stream socket that comes with the "
		 "request "
		 "(SCM_RIGHTS) is attached to the console from the first byte on.",
		 vm_start, OBJECT("\"id\"", ID "," WAIT "," STREAMS("1")), STARTED, true},
		{"vm.run",
		 "Create, start, and delete at the end. A stream socket as with vm.start.", vm_run,
		 OBJECT("\"config\"", NAME "," CONFIG "," WAIT "," STREAMS("1")), STARTED, true},
		{"vm.list", "All VMs of the client; root sees everybody's.", vm_list, NOTHING,
		 ANSWER("\"vms\"", "\"vms\":{\"type\":\"array\",\"items\":" MACHINE "}"), false},
		{"vm.info", "One VM, with its configuration and processes.", vm_info,
		 OBJECT("\"id\"", ID),
		 ANSWER(MACHINE_REQUIRED ",\"config\"", MACHINE_MEMBERS
			"," OWNER_SID "," CONFIG
			"," FLAG("adopted", "started by an earlier daemon") "," FLAG(
				"cgroup",
				"it has a control group") ",\"result\":{\"type\":\"object\","
							  "\"description\":\"vm.wait's, when it "
							  "has ended\"}," FLAG(
								  "answers", "its supervisor "
									     "does") "," RELEASE ","
										     "\"processes"
										     "\":{"
										     "\"type\":"
										     "\"array\","
										     "\"items\":{"
										     "\"type\":"
										     "\"object\"}"
										     "}," DEVICES),
		 false},
		{"vm.pause", "Take the processors out of the guest. Answered when none is in it.",
		 vm_pause, OBJECT("\"id\"", ID), MACHINE, false},
		{"vm.resume", "Let them go on.", vm_resume, OBJECT("\"id\"", ID), MACHINE, false},
		{"vm.stop",
		 "End a VM in order. A guest that boots Insula's own initrd is asked to power off, "
		 "and "
		 "asks an init of the root's own; one that does not by the deadline, or cannot be "
		 "asked, "
		 "is stopped. Devices write out what they have. Answered at the end; \\\"stop\\\" "
		 "says "
		 "which it was.",
		 vm_stop_method,
		 OBJECT("\"id\"",
			ID "," NUMBER(
				"deadline_ms", "0", "3600000",
				"for the guest to power off; default 10000, 0: it is not asked")),
		 RESULT, false},
		{"vm.kill", "End a VM at once. Answered at the end.", vm_kill, OBJECT("\"id\"", ID),
		 RESULT, false},
		{"vm.wait", "Answered when the VM has ended, with its result.", vm_wait,
		 OBJECT("\"id\"", ID "," NUMBER("timeout_ms", "1", "86400000", "default: none")),
		 RESULT, false},
		{"vm.delete", "Forget a VM that does not run.", vm_delete, OBJECT("\"id\"", ID),
		 DONE, false},
		{"vm.console",
		 "Attach to the console. The answer brings a descriptor (SCM_RIGHTS): a stream "
		 "socket, "
		 "output out, input in; closing it detaches. Windows: it brings the name of a pipe "
		 "that this client alone can open, within ten seconds.",
		 vm_console,
		 OBJECT("\"id\"",
			ID "," NUMBER("scrollback", "0", "65536", "bytes of earlier output")),
		 ANSWER("", WORDS("pipe", "Windows: its name")), false},
		/* It never comes to rest here. */
		/* clang-format off */
	{"vm.exec",
	 "Run a command in a VM that boots Insula's own initrd. Two or three descriptors come with "
	 "the request (SCM_RIGHTS): output and errors, or input, output and errors. Answered when "
	 "it is on its way; vm.exec.wait and the event \\\"exec-ended\\\" tell its end, by when all "
	 "output is written.",
	 vm_exec,
	 OBJECT("\"id\",\"command\"",
		ID ","
		STRINGS("command", "1024", "the program and its arguments") ","
		STRINGS("env", "1000", "NAME=VALUE") ","
		WORDS("cwd", "an absolute path") ","
		WORDS("user", "USER[:GROUP], numbers or names that the guest knows; default 0") ","
		FLAG("tty", "on a terminal; errors come with the output") ","
		SIZE ","
		FLAG("queue", "a guest that still boots is waited for, up to a minute; without, "
			      "the request is refused: not-ready") ","
		STREAMS("3")),
	 ANSWER("\"exec\"", EXEC), true},
		/* clang-format on */
		{"vm.exec.signal",
		 "Send a signal to the process group of a command. 9 also ends one that has not "
		 "begun.",
		 vm_exec_signal,
		 OBJECT("\"id\",\"exec\",\"signal\"",
			ID "," EXEC "," NUMBER("signal", "1", "64", "Linux's number")),
		 DONE, false},
		{"vm.exec.resize", "The terminal of a command has another size.", vm_exec_resize,
		 OBJECT("\"id\",\"exec\",\"rows\",\"cols\"", ID "," EXEC "," SIZE), DONE, false},
		{"vm.exec.wait",
		 "Answered when a command has ended. The VM remembers the last 64 of its commands, "
		 "also "
		 "when insulad is restarted.",
		 vm_exec_wait,
		 OBJECT("\"id\",\"exec\"",
			ID "," EXEC "," NUMBER("timeout_ms", "1", "86400000", "default: none")),
		 ANSWER("\"exec\",\"status\",\"reason\"",
			EXEC "," NUMBER(
				"status", "0", "255",
				"128 + the signal that ended it; 125 to 127: it "
				"could not be run, or is lost") ","
								"\"reason\":{\"type\":\"string\","
								"\"enum\":[\"exited\",\"signaled\","
								"\"refused\",\"lost\",\"output-"
								"lost\"]}"
								"," WORDS(
									"text",
									"why, if there is more to "
									"say")),
		 false},
		{"vm.logs", LOGS_WORDS, vm_logs, OBJECT("\"id\"", LOGS_PARAMS),
		 ANSWER("\"lines\",\"next\",\"more\",\"end\"", LOGS_ANSWER), false},
		{"vm.metrics", "Counters: live ones while it runs, all of them once it has ended.",
		 vm_metrics, OBJECT("\"id\"", ID),
		 ANSWER("",
			COUNT("run_ns", "") "," COUNT("cpu_ns", "of all its processes") "," COUNT(
				"rss_bytes", "of all its processes") "," COUNT("restarts", "")),
		 false},
		{"vm.device.restart",
		 "Restart the process of a device, now: also one that has failed, or that waits "
		 "for its next try.",
		 vm_device_restart, OBJECT("\"id\",\"device\"", ID "," DEVICE), DONE, false},
		{"events.subscribe",
		 "From now on this connection gets notifications \\\"event\\\": {seq, time_ms, "
		 "event, id, "
		 "name, data}. A reader too slow gets \\\"events.dropped\\\" and no more.",
		 events_subscribe, OBJECT("", ID),
		 ANSWER("\"next_seq\"", COUNT("next_seq", "of the first one to come")), false},
		{"events.unsubscribe", "No more of them.", events_unsubscribe, NOTHING, DONE,
		 false},
		{"rpc.discover", "This table as an OpenRPC document.", rpc_discover, NOTHING,
		 ANSWER("\"openrpc\",\"info\",\"methods\"",
			WORDS("openrpc", "") ",\"info\":{\"type\":\"object\"},\"methods\":{"
					     "\"type\":\"array\"}"),
		 false},
};
const size_t nmethods = ARRAY_LEN(methods);

const struct method *method_find(const char *name, size_t *index)
{
	for (size_t i = 0; i < nmethods; i++) {
		if (!strcmp(methods[i].name, name)) {
			*index = i;
			return &methods[i];
		}
	}
	return NULL;
}

const char *method_meant(const char *name)
{
	const char *known[ARRAY_LEN(methods)];

	for (size_t i = 0; i < nmethods; i++)
		known[i] = methods[i].name;
	return nearest(name, known, nmethods);
}
