/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes of a VM and their use of the machine. See usage.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "usage.h"
#include "json.h"
#include "vm.h"

struct usage {
	uint64_t cpu_ns, rss;
};

/* proc(5): the name may hold anything, so fields are counted from its last parenthesis: state is 3,
 * utime 14, stime 15, rss 24. */
static void add_process(struct usage *u, pid_t pid)
{
	char path[32], text[1024], *p;
	unsigned long utime, stime;
	long rss;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d "
			 "%*d %*u %*u %ld",
			 &utime, &stime, &rss) != 3)
		return;
	u->cpu_ns += (uint64_t)(utime + stime) * (1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK));
	u->rss += (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_child(json_object *list, const struct child *c)
{
	static const char *const states[] = {
		[CHILD_NONE] = "none",   [CHILD_STARTING] = "starting",
		[CHILD_READY] = "ready", [CHILD_STOPPING] = "stopping",
		[CHILD_DONE] = "done",
	};
	json_object *o;

	if (c->jail.pid <= 0)
		return;
	o = json_object_new_object();
	j_str(o, "name", c->name);
	j_int(o, "pid", c->jail.pid);
	j_str(o, "state", states[c->state]);
	json_object_array_add(list, o);
}

json_object *usage_processes(const struct vm *vm)
{
	json_object *list = json_object_new_array();

	add_child(list, &vm->vmm);
	for (unsigned i = 0; i < vm->ndevices; i++)
		add_child(list, &vm->device[i].child);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		add_child(list, &vm->exec[i]);
	return list;
}

json_object *usage_metrics(const struct vm *vm)
{
	json_object *o = json_object_new_object(), *devices = json_object_new_array();
	struct usage u = {0};
	uint64_t restarts = 0;

	add_process(&u, getpid());
	if (vm->vmm.jail.pid > 0)
		add_process(&u, vm->vmm.jail.pid);
	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];
		json_object *one = json_object_new_object();

		if (d->child.jail.pid > 0)
			add_process(&u, d->child.jail.pid);
		restarts += d->restarts;
		j_str(one, "name", d->msg.name);
		j_int(one, "restarts", d->restarts);
		json_object_array_add(devices, one);
	}
	j_int(o, "run_ns", (int64_t)(clock_ns() - vm->started_ns));
	j_int(o, "cpu_ns", (int64_t)u.cpu_ns);
	j_int(o, "rss_bytes", (int64_t)u.rss);
	j_int(o, "restarts", (int64_t)restarts);
	json_object_object_add(o, "devices", devices);
	return o;
}
