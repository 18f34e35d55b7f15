/* SPDX-License-Identifier: BSD-2-Clause */
/* The device pages of a VM, in a snapshot's file `devices`: one record (insula/state.h) for each. */
#ifndef SUPERVISOR_PAGES_H
#define SUPERVISOR_PAGES_H

#include <insula/err.h>

struct device;
struct snapdir;
struct vm;

/* *why: why it cannot be part of a snapshot, as it is at this moment; NULL: it can. */
int pages_unsaved(const struct device *d, const char **why, struct err *e);
/* Their helpers are at rest. -EOPNOTSUPP: one of them cannot be saved (any more): a driver has come
 * to it. */
int pages_write(struct vm *vm, struct snapdir *d, struct err *e);
/* The other way: into the pages of a VM of which nothing has been started. -EPROTO: `fd` does not
 * hold the pages of these devices; the text says which. */
int pages_read(struct vm *vm, int fd, struct err *e);

#endif
