/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vm.resize. The VM's share of what insulad gives out follows: it is raised before the guest may
 * grow, if there is room, and lowered when the guest has given back. So the share is never less
 * than what was requested, nor than what the guest has.
 */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "cgroup.h"
#include "daemon.h"
#include "dlog.h"
#include "machine.h"
#include "method.h"
#include "methods.h"
#include "request.h"
#include "spec/json.h"
#include "talk.h"

#define RESIZE_DEFAULT_MS 30000
#define RESIZE_SPARE_MS 10000 /* for the answer, after the deadline */

/* ---- the VM's share ---- */

static int give_cpus(struct machine *m, unsigned n)
{
	const struct daemon *d = m->d;
	int rc = m->r.group[0] ? cgroup_cpu(&d->cgroups, m->r.group, n * d->conf.cpu_percent) : 0;

	if (rc)
		dlog(LOG_LVL_ERROR, m, "its group cannot get the time of %u processors: %s", n,
		     strerror(-rc));
	else
		m->cpus_now = n;
	return rc;
}

static void share_set(struct machine *m, uint64_t mem)
{
	struct err e;

	if (m->r.mem == mem)
		return;
	m->r.mem = mem;
	if (m->r.group[0] &&
	    cgroup_set_memory(&m->d->cgroups, m->r.group, conf_group_memory(&m->d->conf, mem), &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
	if (machine_note(m, &e))
		dlog(LOG_LVL_ERROR, m, "%s", e.text);
}

/* As vm_resized(), of memory, both requested and there. */
static void memory_said(struct machine *m, json_object *o)
{
	json_object *memory = j_get(o, "memory");
	int64_t requested = j_get_int(memory, "requested", 0);
	int64_t actual = j_get_int(memory, "actual", 0);
	int64_t mem = requested > actual ? requested : actual;
	struct vm_shortage s;

	if (m->resizing || !m->r.mem_max || mem < (int64_t)m->r.mem_boot ||
	    mem > (int64_t)m->r.mem_max)
		return;
	if ((uint64_t)mem <= m->r.mem || vm_room_to_grow(m->d, m, (uint64_t)mem, &s))
		share_set(m, (uint64_t)mem);
}

/* A supervisor that says more than it was given gets it if there is room: a VM that was restored
 * had it, or an earlier insulad has given it. Else it shares the time of those that it has. */
void vm_resized(struct machine *m, json_object *said)
{
	int64_t n = j_get_int(j_get(said, "processors"), "actual", 0);
	unsigned have = machine_cpus(m);
	struct vm_shortage s;

	memory_said(m, said);
	if (n < 1 || n > m->r.cpus_max || n == have)
		return;
	if (n > have ? vm_may_have_cpus(m, (unsigned)n, &s) : !m->cpus_had)
		(void)give_cpus(m, (unsigned)n);
}

/* False: refused. */
static bool may_have(struct request *r, struct machine *m, int64_t n)
{
	struct vm_shortage s;
	char value[24], most[48];

	if (!m->r.cpus_max) {
		method_refuse(r, RPC_UNSUPPORTED, "no-resize",
			      "the processors of this VM stay: it was made without max");
		return false;
	}
	if (n < 1 || n > m->r.cpus_max) {
		snprintf(value, sizeof(value), "%lld", (long long)n);
		snprintf(most, sizeof(most), "a number from 1 to %u", m->r.cpus_max);
		method_refuse_field(r, RPC_BAD_PARAMS, "value", "cpus", value, most);
		return false;
	}
	if (n > machine_cpus(m) && !vm_may_have_cpus(m, (unsigned)n, &s)) {
		vm_refuse_shortage(r, &s);
		return false;
	}
	return true;
}

/* The same. What it cannot have at all is for its supervisor to say. */
static bool may_have_memory(struct request *r, struct machine *m, uint64_t mem)
{
	struct vm_shortage s;

	if (mem <= m->r.mem || mem > m->r.mem_max || vm_room_to_grow(m->d, m, mem, &s))
		return true;
	vm_refuse_shortage(r, &s);
	return false;
}

/* The share comes before the processors. False: refused. */
static bool grow(struct request *r, struct machine *m, unsigned n)
{
	unsigned had = machine_cpus(m);

	if (n <= had)
		return true;
	if (give_cpus(m, n)) {
		method_refuse(r, RPC_FAILED, "failed",
			      "its control group cannot get the time of more processors");
		return false;
	}
	m->cpus_had = had;
	return true;
}

/* ---- the order ---- */

static void answer_resize(struct machine *m, struct request *r, json_object *result,
			  json_object *error, int fd)
{
	static const char *const members[] = {"memory", "processors"};
	const char *reason = j_get_str(error, "reason", "");
	unsigned had = m->cpus_had;
	json_object *o;

	(void)fd;
	m->resizing = false;
	m->cpus_had = 0;
	if (error) {
		/* Otherwise it may have been done all the same, and is heard of later. */
		if (strcmp(reason, "timeout") != 0 && strcmp(reason, "ended") != 0 &&
		    strcmp(reason, "failed") != 0) {
			share_set(m, m->before_resize);
			if (had)
				(void)give_cpus(m, had);
		}
		method_refuse_as(r, error);
		return;
	}
	vm_resized(m, result);
	o = machine_json(m, false);
	for (size_t i = 0; i < ARRAY_LEN(members); i++) {
		json_object *one = j_get(result, members[i]);

		if (json_object_is_type(one, json_type_object))
			j_obj(o, members[i], json_object_get(one));
	}
	request_answer(r, o);
}

void method_vm_resize(struct daemon *d, struct request *r)
{
	int64_t ms = j_get_int(r->params, "timeout_ms", RESIZE_DEFAULT_MS);
	struct machine *m = method_machine(d, r);
	json_object *params, *mem = j_get(r->params, "mem"), *cpus = j_get(r->params, "cpus");
	int64_t n = j_get_int(r->params, "cpus", 0);
	uint64_t want = (uint64_t)j_get_int(r->params, "mem", 0);

	if (!m)
		return;
	if (!mem && !cpus) {
		method_refuse_field(r, RPC_BAD_PARAMS, "missing", "mem", NULL,
				    "what the guest shall have: mem, cpus or both");
		return;
	}
	if (m->resizing) {
		method_refuse(r, RPC_BUSY, "busy", "another resize is under way");
		return;
	}
	if ((cpus && !may_have(r, m, n)) || (mem && !may_have_memory(r, m, want)) ||
	    (cpus && !grow(r, m, (unsigned)n)))
		return;
	m->before_resize = m->r.mem;
	m->resizing = true;
	if (want > m->r.mem && want <= m->r.mem_max)
		share_set(m, want);
	params = json_object_new_object();
	if (mem)
		j_obj(params, "mem", json_object_get(mem));
	if (cpus)
		j_int(params, "cpus", n);
	j_int(params, "timeout_ms", ms);
	talk_ask_long(m, "resize", params, answer_resize, r, (uint64_t)ms + RESIZE_SPARE_MS);
}
