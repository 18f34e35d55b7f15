/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of this room share. A jail is a list of named steps: child.c has the list before
 * exec, enter.c the one after it. Code before exec runs in a copy of a process that may have had
 * other threads, so it takes no lock and allocates nothing; it uses system calls and snprintf only.
 */
#ifndef JAIL_STEPS_H
#define JAIL_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <insula/jail.h>

/* What the child gets from jail_spawn() in the copy of its memory. Its descriptors are the child's
 * to move and close. */
struct jail_start {
	const struct jail_plan *plan;
	int channel;    /* child's end */
	int log;        /* write end */
	int null;       /* /dev/null */
	int parents[2]; /* the parent's ends, closed first */
	bool root;      /* the parent is root (the child can no longer tell) */
	bool own_ids;   /* jail_ids_own(), likewise */
};

struct jail_step {
	const char *name;
	int (*run)(struct jail_start *s, struct err *e); /* 0 or a negative errno with a text */
};

/* child.c: everything up to exec. */
_Noreturn void jail_child(struct jail_start *s);

/* Run the steps. On the first failure send MSG_FAILED over s->channel and exit. */
void jail_run_steps(const struct jail_step *steps, size_t n, struct jail_start *s);

/* Die with the parent, and notice that it has died already. */
int jail_tie_to_parent(int channel, struct err *e);

/* ids.c: true if the plan uses the caller's own ids. That needs no privilege, but groups cannot be
 * dropped. */
bool jail_ids_own(const struct jail_plan *p);
/* Write the maps of a child that has just been cloned. */
int jail_ids_map(pid_t pid, const struct jail_plan *p, struct err *e);
/* True if [id, id] is inside one extent of a uid_map or gid_map text. */
bool jail_map_has(const char *map, uint32_t id);

/* remedy.c: what to do when namespaces fail with `code`, as "; do this", or "". `sys` is /proc/sys.
 */
const char *jail_remedy(const char *sys, int code, bool root);
#define JAIL_PROC_SYS "/proc/sys"

/* files.c: a whole small file of procfs as a string; a value written in one write(2). */
int jail_file_read(const char *path, char *buf, size_t size);
int jail_file_write(const char *path, const char *text);

#endif
