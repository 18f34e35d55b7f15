/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process uses. See usage.h. */
#include "os/win/win.h"

#include <psapi.h>

#include "supervisor/child.h"
#include "usage.h"

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

void usage_add(struct usage *u, const struct child *c)
{
	add_process(u, c->os.box.process);
}

int64_t usage_pid(const struct child *c)
{
	return c->os.box.process ? (int64_t)GetProcessId(c->os.box.process) : 0;
}
