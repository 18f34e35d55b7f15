/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One control group (v2) per VM, where the daemon may make them: cpu.max, memory.max, pids.max,
 * io.max. Everything of a VM starts in its group. Without, the daemon says so, and a VM has rlimits
 * only.
 */
#ifndef DAEMON_CGROUP_H
#define DAEMON_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#define CGROUP_PATH_MAX 512

struct cgroups {
	bool on;
	int dir; /* of all groups of VMs; owned; -1: none */
	char path[CGROUP_PATH_MAX];
};

struct cgroup_limits {
	uint64_t memory;      /* bytes */
	unsigned cpu_percent; /* of one processor */
	unsigned pids;
	const char *io_max; /* "": none */
};

/* `how`: "auto": /insula, or where that cannot be made, below the daemon's own group; "off"; or a
 * directory. Not being able to is no error: on is false and `e` says why. */
void cgroups_open(struct cgroups *g, const char *how, struct err *e);
void cgroups_close(struct cgroups *g);
/* Make a group for one start of a VM, and of a name that has never been: a descriptor of its
 * cgroup.procs, or a negative errno. */
int cgroup_make(const struct cgroups *g, const char *name, const struct cgroup_limits *l,
		struct err *e);
/* From now on it may use so many percent of one processor. */
int cgroup_cpu(const struct cgroups *g, const char *name, unsigned percent);
/* Another limit of its memory. */
int cgroup_set_memory(const struct cgroups *g, const char *name, uint64_t memory, struct err *e);
/* Kill what is left in it. */
void cgroup_kill(const struct cgroups *g, const char *name);
/* False: it is still busy, try again. */
bool cgroup_remove(const struct cgroups *g, const char *name);
/* Has the kernel killed something in it because memory ran out? */
bool cgroup_had_oom(const struct cgroups *g, const char *name);
struct cgroup_usage {
	uint64_t cpu_ns;
	uint64_t mem, mem_max; /* bytes; without what the kernel can drop at once. 0: no limit */
	uint64_t pids;         /* threads */
};
/* Of all in it, now. False: it cannot be read. */
bool cgroup_usage(const struct cgroups *g, const char *name, struct cgroup_usage *u);
/* The number behind `key` in the text of a file like memory.stat; 0: it is not there. */
uint64_t cgroup_number(const char *text, const char *key);
/* How often, as the text of memory.events says. */
uint64_t cgroup_oom_kills(const char *events);

#endif
