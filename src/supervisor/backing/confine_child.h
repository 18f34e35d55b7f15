/* SPDX-License-Identifier: BSD-2-Clause */
/* Between the files that make the jail of confine.h; in the order in which they are called. */
#ifndef SUPERVISOR_BACKING_CONFINE_CHILD_H
#define SUPERVISOR_BACKING_CONFINE_CHILD_H

#include <sys/types.h>

#include "confine.h"

#define CONFINE_EXEC (CONFINE_LISTENER + 1) /* the program, if the plan has it open */
#define CONFINE_KEEP 7    /* with a network: these and those of module_connect.h */
#define CONFINE_SETUP 127 /* status: the child could not get as far as the program */

/* Parent: write the id maps of `pid`. *ids is what came of it. */
int confine_map(const struct confine_plan *plan, pid_t pid, enum confine_ids *ids, struct err *e);

/* Child, all of these. Whatever fails is said on the log and ends it. */
_Noreturn void confine_failed(const char *what); /* by errno */
void confine_must(int rc, const char *what);     /* rc < 0: errno has it */
/* Its namespaces, and its root with what the plan names. */
void confine_enter(const struct confine_plan *p);
/* no_new_privs is set. */
void confine_filter(const struct confine_plan *p, enum confine_ids ids);

#endif
