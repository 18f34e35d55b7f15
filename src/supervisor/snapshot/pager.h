/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-pager as a child of a VM (insula/pager.h). */
#ifndef SUPERVISOR_PAGER_H
#define SUPERVISOR_PAGER_H

#include <stdbool.h>

#include <insula/err.h>
#include <insula/pager.h>

struct child;
struct child_ops;
struct snapshot;
struct vm;

/* Start one, which is `ctx` = vm's from now on; what an earlier one left in `c` is freed. `from`: the
 * memory that it reads. `last`: one more descriptor, the file that it writes or the working set; -1:
 * none. `live`: PAGER_LIVE. `fsize`: how long a file may get. */
int pager_start(struct vm *vm, struct child *c, const struct child_ops *ops, enum pager_job job,
		bool live, const struct snapshot *from, int last, uint64_t fsize, struct err *e);

/* The working set of the snapshot in this directory: the order in which memory was asked for. One
 * restore writes it, the others follow it. A descriptor, the caller's; -1: none. */
int pager_order(const char *snapshot);

#endif
