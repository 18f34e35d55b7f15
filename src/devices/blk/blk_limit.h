/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much a disk may do in a second: two token buckets, one of bytes and one of requests, which its
 * queues share. Up to a tenth of a second's worth is saved up.
 *
 * A lane that is held back takes no more chains from its queue. What it has taken goes on to its end.
 * So a reset, a snapshot and the end of the VM wait for no bucket: nothing that is held back is in
 * flight.
 *
 * Lanes that wait get the same. Each has an account of what it has taken, in time that the limit
 * needs for it; whoever is ahead of another one that waits by more than BLK_LIMIT_AHEAD_NS lets it
 * go first. A lane that comes newly has no claim on what it did not ask for before. A lane that does
 * not come when its time is up is passed over: it may have been stopped.
 *
 * Time is passed in. Lock: `lock`, for all but `on`; no call is made under it.
 */
#ifndef DEVICES_BLK_LIMIT_H
#define DEVICES_BLK_LIMIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <insula/proto.h>

#include "devices/bucket.h"

#define BLK_LIMIT_LATE_NS 5000000u  /* behind its time a lane is waited for so long */
#define BLK_LIMIT_AHEAD_NS 5000000u /* what the limit lets pass in this time may be taken at once */

struct blk_limit {
	pthread_mutex_t lock;
	_Atomic bool on; /* there is a limit */
	struct bucket bytes, requests;
	uint64_t last_ns; /* the account that was the last to be charged, before that */
	struct blk_limit_lane {
		uint64_t spent_ns; /* its account */
		uint64_t due_ns;   /* when it looks again, if it waits */
		bool waits;        /* written by its own lane alone */
	} lane[BLK_MAX_QUEUES];
};

void blk_limit_init(struct blk_limit *b);
/* Is there one? A look without the lock. */
bool blk_limit_on(const struct blk_limit *b);
/* Any thread; lanes that wait are to be woken. The buckets are full. */
void blk_limit_set(struct blk_limit *b, const struct msg_limit *m, uint64_t now_ns);
/* May lane i take a request? 0; else it has to ask again in so many milliseconds, or when the limit
 * has changed. A request of any size may be taken: the debt is paid before the next one. */
int blk_limit_ask(struct blk_limit *b, unsigned i, uint64_t now_ns);
/* It has taken one, of so many bytes (up to 1 << 34). */
void blk_limit_take(struct blk_limit *b, unsigned i, uint64_t bytes);
/* A request has moved more bytes than it said. */
void blk_limit_charge(struct blk_limit *b, uint64_t bytes);
/* Lane i does not wait: its queue is empty, or is not served. */
void blk_limit_leave(struct blk_limit *b, unsigned i);

#endif
