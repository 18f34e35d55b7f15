/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes of a VM and their use of the machine. See usage_win.h. */
#include "base/win.h"

#include <psapi.h>

#include <insula/base.h>

#include "json.h"
#include "usage_win.h"
#include "vm_win.h"

struct usage {
	uint64_t cpu_ns, rss;
};

static uint64_t ns_of(const FILETIME *t)
{
	return ((uint64_t)t->dwHighDateTime << 32 | t->dwLowDateTime) * 100;
}

static void add_process(struct usage *u, HANDLE h)
{
	PROCESS_MEMORY_COUNTERS m = {.cb = sizeof(m)};
	FILETIME made, ended, kernel, user;

	if (!h)
		return;
	if (GetProcessTimes(h, &made, &ended, &kernel, &user))
		u->cpu_ns += ns_of(&kernel) + ns_of(&user);
	if (K32GetProcessMemoryInfo(h, &m, sizeof(m)))
		u->rss += m.WorkingSetSize;
}

static void add_child(json_object *list, const struct child *c)
{
	static const char *const states[] = {
		[CHILD_NONE] = "none",   [CHILD_STARTING] = "starting",
		[CHILD_READY] = "ready", [CHILD_STOPPING] = "stopping",
		[CHILD_DONE] = "done",
	};
	json_object *o;

	if (!c->box.process)
		return;
	o = json_object_new_object();
	j_str(o, "name", c->name);
	j_int(o, "pid", (int64_t)GetProcessId(c->box.process));
	j_str(o, "state", states[c->state]);
	json_object_array_add(list, o);
}

json_object *usage_processes(const struct vm *vm)
{
	json_object *list = json_object_new_array();

	add_child(list, &vm->vmm);
	for (unsigned i = 0; i < vm->ndevices; i++)
		add_child(list, &vm->device[i].child);
	return list;
}

json_object *usage_metrics(const struct vm *vm)
{
	json_object *o = json_object_new_object(), *devices = json_object_new_array();
	struct usage u = {0};
	uint64_t restarts = 0;

	add_process(&u, GetCurrentProcess());
	add_process(&u, vm->vmm.box.process);
	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];
		json_object *one = json_object_new_object();

		add_process(&u, d->child.box.process);
		restarts += d->restarts;
		j_str(one, "name", d->msg.name);
		j_int(one, "restarts", d->restarts);
		json_object_array_add(devices, one);
	}
	j_int(o, "run_ns", (int64_t)(clock_ns() - vm->started_ns));
	j_int(o, "cpu_ns", (int64_t)u.cpu_ns);
	j_int(o, "rss_bytes", (int64_t)u.rss);
	j_int(o, "restarts", (int64_t)restarts);
	j_obj(o, "devices", devices);
	return o;
}
