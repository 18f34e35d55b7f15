/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * With one processor: an I/O thread steps aside, so that the guest gets to its next request, or a
 * server to its next answer, before what is there is dealt with. sched_yield() does not do that: a
 * thread that has slept much is the scheduler's next choice again. A short sleep does.
 *
 * How long it takes until something comes is learnt: from 100 us to 1.6 ms. Where nothing comes it is
 * soon given up, and only tried again now and then. Where something does, half the time is tried now
 * and then.
 */
#ifndef DEVICES_BLK_ASIDE_H
#define DEVICES_BLK_ASIDE_H

#include <stdbool.h>

struct blk_aside {
	unsigned luck, skipped, us, good;
};

/* Is it worth a try? */
bool blk_aside_try(struct blk_aside *a);
/* Sleep. */
void blk_aside_step(struct blk_aside *a);
/* Was it? */
void blk_aside_learn(struct blk_aside *a, bool worth);

#endif
