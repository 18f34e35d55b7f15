/* SPDX-License-Identifier: BSD-2-Clause */
/* Control groups that systemd makes: transient scopes, over its bus, by busctl (systemd.scope(5),
 * org.freedesktop.systemd1(5)). */
#ifndef OCI_CGSYSTEMD_H
#define OCI_CGSYSTEMD_H

#include "cgline.h"
#include "oci.h"

/* "SLICE:PREFIX:NAME", or nothing: system.slice:insula:ID. The unit's name, PREFIX-NAME.scope, and
 * in `path` the directory that it will have if systemd is the manager of the whole system. */
int cgsystemd_name(const char *cgroups_path, const char *id, char *unit, size_t unit_size,
		   char *path, size_t path_size, struct err *e);
/* Start it with `pid` in it; waits for it, 10 s at most. `path` (in: its slice is read from it;
 * out): its directory, as the kernel says where the process is. */
int cgsystemd_start(const char *unit, pid_t pid, char *path, size_t size, struct err *e);
/* Tell it what of these limits it knows: it writes what it was told again when it likes, after a
 * daemon-reload for instance, and otherwise "no limit". */
int cgsystemd_limit(const char *unit, const struct cglines *l, struct err *e);
/* One that is not there is 0. */
int cgsystemd_stop(const char *unit, struct err *e);
/* "a-b.slice" -> "/a.slice/a-b.slice"; false: no name of a slice. For tests. */
bool cgsystemd_slice_path(const char *slice, char *out, size_t size);

#endif
