/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl cp: files between this host and a VM, by the guest's own tar.
 *
 * cp.c reads the command line and runs it, cp_linux.c is the command in the guest and its streams
 * (pipes: no process of the VM gets a descriptor of ours), tar.c the format, unpack_linux.c what
 * comes out of a guest, pack_linux.c what goes in. On Windows all of it is refused.
 */
#ifndef CTL_CP_H
#define CTL_CP_H

#include <stdbool.h>

#include <insula/err.h>

#include "ctl.h"

/* What to copy: one side is a VM's. "-" as `path`: an archive on a standard stream. */
struct cp {
	struct ctl *ctl;
	const char *vm;
	const char *inside, *path;
	bool into, follow;
	unsigned left_out; /* of all that was to be copied */
	int status;        /* of the tar in the guest */
	char said[256];    /* its first line on standard error, without control characters */
};

/* cp_linux.c, cp_win.c. A negative errno and a line: it could not be done. */
int cp_out(struct cp *c, struct err *e);
int cp_in(struct cp *c, struct err *e);

/* cp.c: one line about what is left out; of many of them only how many. */
void cp_left_out(void *ctx, const char *line);

#endif
