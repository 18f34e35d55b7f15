/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes of a VM and their use of the machine. See usage.h. */
#include <stdio.h>

#include <insula/base.h>

#include "spec/json.h"
#include "usage.h"
#include "supervisor/vm.h"

/* Calls `look` for each: insula-vmm, each device's helper and what serves it, each command's,
 * insula-metadata. */
typedef void look_fn(void *ctx, const struct child *c, const struct device *served);

static void each_child(const struct vm *vm, look_fn *look, void *ctx)
{
	look(ctx, &vm->vmm, NULL);
	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];
		const struct child *peer = d->class->peer ? d->class->peer(d) : NULL;

		look(ctx, &d->child, NULL);
		if (peer)
			look(ctx, peer, d);
	}
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		look(ctx, &vm->exec[i], NULL);
	if (metadata_child(vm))
		look(ctx, metadata_child(vm), NULL);
}

/* A program of the host (`served`) has no channel on which it could say that it is ready. */
static void list_child(void *list, const struct child *c, const struct device *served)
{
	static const char *const states[] = {
		[CHILD_NONE] = "none",   [CHILD_STARTING] = "starting",
		[CHILD_READY] = "ready", [CHILD_STOPPING] = "stopping",
		[CHILD_DONE] = "done",
	};
	char name[64];
	json_object *o;

	if (!usage_pid(c))
		return;
	snprintf(name, sizeof(name), "%s%s%s", c->name, served ? " " : "",
		 served ? served->desc.name : "");
	o = json_object_new_object();
	j_str(o, "name", name);
	j_int(o, "pid", usage_pid(c));
	j_str(o, "state", served ? "ready" : states[c->state]);
	json_object_array_add(list, o);
}

json_object *usage_processes(const struct vm *vm)
{
	json_object *list = json_object_new_array();

	each_child(vm, list_child, list);
	return list;
}

static void add_child(void *usage, const struct child *c, const struct device *served)
{
	(void)served;
	usage_add(usage, c);
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
	uint64_t restarts = 0;

	usage_self(&u);
	each_child(vm, add_child, &u);
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (device_is_empty(&vm->device[i]))
			continue;
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
