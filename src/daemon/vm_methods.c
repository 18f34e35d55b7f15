/* SPDX-License-Identifier: BSD-2-Clause */
/* The methods that look at VMs, order them about and end them. See methods.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "cgroup.h"
#include "client.h"
#include "daemon.h"
#include "event.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "record.h"
#include "request.h"
#include "spec/json.h"
#include "talk.h"

#define KILL_GRACE_MS 3000
#define STOP_SPARE_MS 15000 /* for helpers that drain, after the deadline */
#define STOP_DEFAULT_MS 10000

/* ---- looking ---- */

void method_vm_list(struct daemon *d, struct request *r)
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
	static const char *const objects[] = {"balloon", "memory", "processors"};

	(void)fd;
	(void)error; /* a supervisor that does not answer: what we know ourselves */
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		json_object *list = j_get(result, lists[i]);

		if (json_object_is_type(list, json_type_array))
			j_obj(o, lists[i], json_object_get(list));
	}
	for (size_t i = 0; i < ARRAY_LEN(objects); i++) {
		json_object *one = j_get(result, objects[i]);

		if (json_object_is_type(one, json_type_object))
			j_obj(o, objects[i], json_object_get(one));
	}
	j_bool(o, "answers", !error);
	request_answer(r, o);
}

void method_vm_info(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m)
		return;
	if (m->hello)
		talk_ask(m, "info", NULL, add_info, r, false);
	else
		request_answer(r, machine_json(m, true));
}

void method_vm_metrics(struct daemon *d, struct request *r)
{
	struct machine *m = method_named(d, r);

	if (!m)
		return;
	if (m->hello)
		talk_ask(m, "metrics", NULL, method_pass_on, r, false);
	else
		request_answer(r, machine_result(m));
}

/* ---- what it uses now ---- */

/* Of a supervisor, which may lie, but not to the shape of an answer. */
static int64_t vm_count_of(json_object *o, const char *key)
{
	int64_t n = j_get_int(o, key, 0);

	return n < 0 ? 0 : n;
}

/* The sum of a counter over the devices that have it; nothing if none has. */
static void add_sum(json_object *o, const char *key, json_object *devices, const char *counter)
{
	size_t n = json_object_is_type(devices, json_type_array) ? json_object_array_length(devices)
								 : 0;
	uint64_t sum = 0;
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		json_object *helper = j_get(json_object_array_get_idx(devices, i), "helper");

		any |= json_object_is_type(j_get(helper, counter), json_type_int);
		sum += (uint64_t)vm_count_of(helper, counter);
	}
	if (any)
		j_int(o, key, (int64_t)(sum & INT64_MAX));
}

static json_object *vm_stats(const struct machine *m, json_object *said)
{
	json_object *o = json_object_new_object(), *devices = j_get(said, "devices");
	struct cgroup_usage u;
	bool group = m->r.group[0] && cgroup_usage(&m->d->cgroups, m->r.group, &u);

	j_str(o, "id", m->r.id);
	j_str(o, "name", m->r.name);
	j_str(o, "state", vm_state_names[m->r.state]);
	j_int(o, "time_ns", (int64_t)clock_ns());
	j_int(o, "cpus", machine_cpus(m));
	j_bool(o, "cgroup", group);
	j_int(o, "cpu_ns", group ? (int64_t)u.cpu_ns : vm_count_of(said, "cpu_ns"));
	j_int(o, "mem_bytes", group ? (int64_t)u.mem : vm_count_of(said, "rss_bytes"));
	j_int(o, "mem_max", group && u.mem_max ? (int64_t)u.mem_max : (int64_t)m->r.mem);
	if (group)
		j_int(o, "pids", (int64_t)u.pids);
	add_sum(o, "disk_read_bytes", devices, "read_bytes");
	add_sum(o, "disk_written_bytes", devices, "written_bytes");
	add_sum(o, "net_rx_bytes", devices, "rx_bytes");
	add_sum(o, "net_tx_bytes", devices, "tx_bytes");
	return o;
}

static void answer_stats(struct machine *m, struct request *r, json_object *result,
			 json_object *error, int fd)
{
	(void)fd;
	if (error)
		method_refuse_as(r, error);
	else
		request_answer(r, vm_stats(m, result));
}

void method_vm_stats(struct daemon *d, struct request *r)
{
	struct machine *m = method_active(d, r);

	if (m)
		talk_ask(m, "metrics", NULL, answer_stats, r, false);
}

/* ---- running ---- */

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

void method_vm_pause(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);

	if (m)
		talk_ask(m, "pause", NULL, answer_state, r, false);
}

void method_vm_resume(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	if (!j_get_bool(r->params, "set_clock", false)) {
		talk_ask(m, "resume", NULL, answer_state, r, false);
		return;
	}
	params = json_object_new_object();
	j_str(params, "vm", m->r.name);
	talk_ask(m, "renew", params, answer_state, r, false);
}

void method_vm_balloon(struct daemon *d, struct request *r)
{
	struct machine *m = method_machine(d, r);
	json_object *params, *target = j_get(r->params, "target");

	if (!m)
		return;
	params = json_object_new_object();
	if (target)
		j_obj(params, "target", json_object_get(target));
	talk_ask(m, "balloon", params, method_pass_on, r, false);
}

#define SNAPSHOT_MS 3600000 /* the supervisor has deadlines of its own */

static void answer_snapshot(struct machine *m, struct request *r, json_object *result,
			    json_object *error, int fd)
{
	json_object *o;

	(void)fd;
	if (error) {
		method_refuse_as(r, error);
		return;
	}
	o = machine_json(m, false);
	j_int(o, "paused_us", j_get_int(result, "paused_us", 0));
	j_bool(o, "live", j_get_bool(result, "live", false));
	request_answer(r, o);
}

void method_vm_snapshot(struct daemon *d, struct request *r)
{
	const char *path = j_get_str(r->params, "path", ""), *base, *kind;
	struct machine *m = method_machine(d, r);
	json_object *params;

	if (!m)
		return;
	base = j_get_str(r->params, "base", NULL);
	kind = j_get_str(r->params, "kind", base ? "diff" : "full");
	if (!path_is_absolute(path) || (base && !path_is_absolute(base))) {
		method_refuse_field(r, RPC_BAD_PARAMS, "value",
				    path_is_absolute(path) ? "base" : "path",
				    path_is_absolute(path) ? base : path, "an absolute path");
		return;
	}
	if (base && strcmp(kind, "diff") != 0) {
		method_refuse_field(r, RPC_BAD_PARAMS, "value", "base", base,
				    "none with kind full");
		return;
	}
	params = json_object_new_object();
	j_str(params, "path", path);
	j_str(params, "base", base);
	j_bool(params, "diff", !strcmp(kind, "diff"));
	j_bool(params, "keep_running", j_get_bool(r->params, "keep_running", true));
	talk_ask_long(m, "snapshot", params, answer_snapshot, r, SNAPSHOT_MS);
}

/* The end itself is the answer. */
void method_vm_stop(struct daemon *d, struct request *r)
{
	struct machine *m = method_active(d, r);
	uint64_t ms = (uint64_t)j_get_int(r->params, "deadline_ms", STOP_DEFAULT_MS);
	json_object *params;

	if (!m)
		return;
	params = json_object_new_object();
	j_int(params, "deadline_ms", (int64_t)ms);
	machine_hold(m, r, 0);
	machine_order_end(m, "stop", params, ms + STOP_SPARE_MS);
}

void method_vm_kill(struct daemon *d, struct request *r)
{
	struct machine *m = method_active(d, r);

	if (!m)
		return;
	machine_hold(m, r, 0);
	machine_order_end(m, "kill", NULL, KILL_GRACE_MS);
}

void method_vm_wait(struct daemon *d, struct request *r)
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

void method_vm_delete(struct daemon *d, struct request *r)
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

void method_vm_console(struct daemon *d, struct request *r)
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
