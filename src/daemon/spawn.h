/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting supervisors, and finding their sockets (spawn_*.c). */
#ifndef DAEMON_SPAWN_H
#define DAEMON_SPAWN_H

#include <insula/err.h>

struct machine;

/* Before any descriptor comes from anybody else. */
int spawn_prepare(struct err *e);
/* Start the supervisor: r.pid, r.start_time, process. It begins when one byte is written to *go,
 * and never if insulad dies before. */
int spawn_supervisor(struct machine *m, int *go, struct err *e);
/* Connect to it: a descriptor for link_new(), of packets. -ENOENT: its socket is no more; other
 * errors: not now. */
int supervisor_connect(struct machine *m, struct err *e);

#endif
