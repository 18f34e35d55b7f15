/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes of a VM and their use of the machine. See usage.h. */
#include <insula/base.h>

#include "child_state.h"
#include "json.h"
#include "usage.h"
#include "vm_common.h"

json_object *usage_processes(const struct vm *vm)
{
	static const char *const states[] = {
		[CHILD_NONE] = "none",   [CHILD_STARTING] = "starting",
		[CHILD_READY] = "ready", [CHILD_STOPPING] = "stopping",
		[CHILD_DONE] = "done",
	};
	json_object *list = json_object_new_array();
	struct usage_child c;

	for (unsigned i = 0; usage_child(vm, i, &c); i++) {
		json_object *o;

		if (c.pid <= 0)
			continue;
		o = json_object_new_object();
		j_str(o, "name", c.name);
		j_int(o, "pid", c.pid);
		j_str(o, "state", states[c.state]);
		json_object_array_add(list, o);
	}
	return list;
}

json_object *usage_metrics(const struct vm *vm)
{
	json_object *o = json_object_new_object(), *devices = json_object_new_array();
	struct usage u = {0};
	struct usage_child c;
	uint64_t restarts = 0;

	usage_self(&u);
	for (unsigned i = 0; usage_child(vm, i, &c); i++) {
		json_object *one;

		usage_add(&u, &c);
		if (!c.device)
			continue;
		one = json_object_new_object();
		restarts += c.restarts;
		j_str(one, "name", c.device);
		j_int(one, "restarts", c.restarts);
		json_object_array_add(devices, one);
	}
	j_int(o, "run_ns", (int64_t)(clock_ns() - vm_started_ns(vm)));
	j_int(o, "cpu_ns", (int64_t)u.cpu_ns);
	j_int(o, "rss_bytes", (int64_t)u.rss);
	j_int(o, "restarts", (int64_t)restarts);
	j_obj(o, "devices", devices);
	return o;
}
