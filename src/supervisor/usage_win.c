/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process uses. See usage.h. */
#include "base/win.h"

#include <psapi.h>

#include "usage.h"
#include "vm_win.h"

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

void usage_self(struct usage *u)
{
	add_process(u, GetCurrentProcess());
}

void usage_add(struct usage *u, const struct usage_child *c)
{
	add_process(u, c->process);
}

bool usage_child(const struct vm *vm, unsigned i, struct usage_child *out)
{
	const struct device *d = i && i <= vm->ndevices ? &vm->device[i - 1] : NULL;
	const struct child *c;

	if (i > vm->ndevices + VM_EXEC_PLACES)
		return false;
	c = !i ? &vm->vmm : d ? &d->child : &vm->exec[i - 1 - vm->ndevices];
	*out = (struct usage_child){
		.name = c->name,
		.state = (int)c->state,
		.pid = c->box.process ? (int64_t)GetProcessId(c->box.process) : 0,
		.process = c->box.process,
		.device = d ? d->msg.name : NULL,
		.restarts = d ? d->restarts : 0,
	};
	return true;
}
