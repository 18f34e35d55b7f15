/* SPDX-License-Identifier: BSD-2-Clause */
/* What a process uses, from /proc. See usage.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "supervisor/child.h"
#include "usage.h"

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

void usage_self(struct usage *u)
{
	add_process(u, getpid());
}

void usage_add(struct usage *u, const struct child *c)
{
	if (c->os.jail.pid > 0)
		add_process(u, c->os.jail.pid);
}

int64_t usage_pid(const struct child *c)
{
	return c->os.jail.pid > 0 ? c->os.jail.pid : 0;
}
