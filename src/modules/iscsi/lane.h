/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One lane of a disk: its session with the target, and the guest's requests of one queue.
 *
 *   request   waits (no session) -> flies (in libiscsi) -> answered; if its session ends it waits
 *             again, and is sent again. One that has to be sent in pieces, or once more, waits too
 *
 * The functions are the lane's operations of struct module_ops; `lane` is a struct iscsi_lane.
 */
#ifndef MODULES_ISCSI_LANE_H
#define MODULES_ISCSI_LANE_H

#include <poll.h>

#include "modules/queue.h"
#include "session.h"

struct iscsi_disk {
	struct target target;
	uint64_t timeout_ns;
	bool ro, stable;
	struct module_disk known; /* what the guest was told */
};

struct iscsi_lane {
	struct iscsi_disk *d;
	struct module_lane *l;
	unsigned index;
	struct session s;
	bool up;             /* the guest's disk, and spoken to */
	bool told;           /* that there is none */
	bool no_same;        /* it knows no WRITE SAME(16) */
	unsigned attentions; /* in a row */
	uint64_t size;       /* that was told last */
	uint64_t again_ns;   /* when to send again; 0: now */
	uint64_t look_ns;    /* when to look for requests that have waited too long */
	uint64_t idle_ns;    /* when to ask for the capacity */
	struct queue waiting, flying, answered;
};

int iscsi_lane_open(void *own, struct module_lane *ml, unsigned index, void **lane, struct err *e);
void iscsi_lane_connection(void *lane, int fd);
void iscsi_lane_submit(void *lane, struct module_req *r);
unsigned iscsi_lane_poll(void *lane, struct pollfd p[MODULE_MAX_POLL], int *timeout);
void iscsi_lane_ready(void *lane, const struct pollfd *p, unsigned n);
void iscsi_lane_abort(void *lane);

#endif
