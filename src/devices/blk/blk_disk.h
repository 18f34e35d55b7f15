/* SPDX-License-Identifier: BSD-2-Clause */
/* One request to the disk, by a thread of the pool: what differs between systems (blk_disk_linux.c,
 * blk_disk_win.c). */
#ifndef DEVICES_BLK_DISK_H
#define DEVICES_BLK_DISK_H

#include "blk_engine.h"

/* First call of a thread of the pool: an event for its requests, where the system wants one
 * (Windows); else -1. */
int blk_disk_event(void);
/* Blocks. Bytes moved (0 for what moves none) or a negative errno. Any number of threads, each with
 * its own event. */
int blk_disk_execute(int disk_fd, const struct blk_io *io, int event);
/* The system calls of the pool, for requests of any kind. */
void blk_disk_rules(const struct blk_engine_conf *c, struct rule_list *l);
/* Those of one I/O thread. event[0] is the one that the pool signals. */
void blk_event_rules(const int *event, unsigned n, struct rule_list *l);

/* Of the pool's, those of requests that no ring of io_uring is allowed to do. Linux. */
void blk_side_rules(const struct blk_engine_conf *c, struct rule_list *l);

#endif
