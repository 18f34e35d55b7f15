/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory is written into a snapshot while the guest goes on: userfaultfd(2), write-protected.
 *
 *   live_add()      of each process that maps guest memory, while the guest still runs
 *   live_freeze()   the guest and its helpers stand still: from now on whoever writes to a block
 *                   that is not saved waits until it is. They may go on at once
 *   live_turn()     until live.whole: what somebody waits for first, then the next block in order
 *
 * A process that writes to guest memory and whose mapping is not here would spoil the snapshot: that
 * all of them are is for the supervisor to know. So is it to let everybody go when this ends in the
 * middle. Linux 5.19 and newer can do this for shared memory. One thread.
 */
#ifndef PAGER_LIVE_H
#define PAGER_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "ram.h"
#include "range.h"

struct live {
	struct ram *ram;
	struct ranges ranges;
	uint8_t *saved; /* a bit for each block */
	uint32_t at;    /* the next one in order */
	uint32_t let;   /* those before it are nobody's to wait for */
	bool whole;     /* all are saved, and the file is complete */
};

/* -ENOMEM. */
int live_open(struct live *l, struct ram *ram, struct err *e);
/* Takes the descriptor over. -EINVAL, or what the system says: it cannot be. */
int live_add(struct live *l, int fd, uint64_t offset, uint64_t addr, uint64_t len, struct err *e);
int live_freeze(struct live *l, struct err *e);
/* Not when it is whole. */
int live_turn(struct live *l, int channel, bool *heard, struct err *e);

#endif
