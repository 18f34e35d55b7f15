/* SPDX-License-Identifier: BSD-2-Clause */
/* What test_jail.c and its child program say to each other over the channel: one order, one answer.
 */
#ifndef JAIL_CHILD_H
#define JAIL_CHILD_H

#include <stdbool.h>
#include <stdint.h>

struct order {
	char action[24];  /* an entry of actions[] in jail_child_main.c */
	uint32_t threads; /* started before the filter */
	bool seal;        /* install the filter before the action */
	bool in_thread;   /* the action runs in a thread that existed before the filter */
};

struct answer {
	int64_t result;   /* of the action */
	int32_t error;    /* errno after it */
	uint32_t started; /* threads that could be started */
};

/* The answer to the action "facts": what the jail looks like from inside. */
struct facts {
	int32_t pid, ppid, sid;
	uint32_t uid, euid, gid, egid, groups;
	uint32_t argc, envc, umask, dumpable;
	uint64_t descriptors; /* bit i: descriptor i is open, i < 64 */
	uint32_t descriptors_above;
	uint64_t blocked, ignored; /* signals */
	uint64_t nofile, nproc, core, fsize, as;
	uint32_t root_entries; /* names in / other than . and .. */
	int32_t open_proc, open_up, make_dir, remount, bring_up_lo; /* errno of each try */
	char argv0[32], cwd[32];
};

#endif
