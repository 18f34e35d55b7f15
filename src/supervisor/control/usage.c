/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes of a VM and their use of the machine. See usage.h. */
#include <insula/base.h>

#include "spec/json.h"
#include "usage.h"
#include "supervisor/vm.h"

/* The i-th: insula-vmm, each device's helper, each command's; *d: the device, or NULL. NULL: there
 * is none. */
static const struct child *child_at(const struct vm *vm, unsigned i, const struct device **d)
{
	*d = i && i <= vm->ndevices ? &vm->device[i - 1] : NULL;
	if (i > vm->ndevices + VM_EXEC_PLACES)
		return NULL;
	return !i ? &vm->vmm : *d ? &(*d)->child : &vm->exec[i - 1 - vm->ndevices];
}

json_object *usage_processes(const struct vm *vm)
{
	static const char *const states[] = {
		[CHILD_NONE] = "none",   [CHILD_STARTING] = "starting",
		[CHILD_READY] = "ready", [CHILD_STOPPING] = "stopping",
		[CHILD_DONE] = "done",
	};
	json_object *list = json_object_new_array();
	const struct child *c;
	const struct device *d;

	for (unsigned i = 0; (c = child_at(vm, i, &d)); i++) {
		json_object *o;

		if (!usage_pid(c))
			continue;
		o = json_object_new_object();
		j_str(o, "name", c->name);
		j_int(o, "pid", usage_pid(c));
		j_str(o, "state", states[c->state]);
		json_object_array_add(list, o);
	}
	return list;
}

static json_object *device_usage(struct device *d)
{
	json_object *o = json_object_new_object(), *helper = json_object_new_object();
	struct msg_stats s;

	device_count(d, &s);
	stats_add(helper, &s, &stats_common);
	stats_add(helper, &s, d->class->stats);
	j_str(o, "name", d->desc.name);
	j_int(o, "restarts", d->restart.total);
	j_obj(o, "helper", helper);
	return o;
}

json_object *usage_metrics(struct vm *vm)
{
	json_object *o = json_object_new_object(), *devices = json_object_new_array();
	struct usage u = {0};
	const struct child *c;
	const struct device *d;
	uint64_t restarts = 0;

	usage_self(&u);
	for (unsigned i = 0; (c = child_at(vm, i, &d)); i++)
		usage_add(&u, c);
	for (unsigned i = 0; i < vm->ndevices; i++) {
		restarts += vm->device[i].restart.total;
		json_object_array_add(devices, device_usage(&vm->device[i]));
	}
	j_int(o, "run_ns", (int64_t)(clock_ns() - vm_started_ns(vm)));
	j_int(o, "cpu_ns", (int64_t)u.cpu_ns);
	j_int(o, "rss_bytes", (int64_t)u.rss);
	j_int(o, "restarts", (int64_t)restarts);
	j_obj(o, "devices", devices);
	return o;
}
