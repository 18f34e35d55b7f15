/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A token bucket: so many units a second, so many at once. Time is passed in; pure, no allocation.
 *
 * It may go into debt: what is as large as it is (a packet, a request) is let through when there is
 * anything at all, and the debt is paid before the next one. So a unit larger than the burst does
 * not wait for ever.
 */
#ifndef DEVICES_BUCKET_H
#define DEVICES_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket {
	uint64_t rate;  /* units a second, up to 2^40; 0: no limit */
	uint64_t burst; /* at most this much is saved up */
	int64_t level;  /* units; may be negative */
	uint64_t at_ns; /* when `level` was right */
};

/* Full. */
void bucket_init(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t now_ns);
/* May anything pass now? */
bool bucket_open(struct bucket *b, uint64_t now_ns);
/* Something of `n` units passed. */
void bucket_take(struct bucket *b, uint64_t n);
/* Milliseconds until bucket_open(), rounded up, at least 1; -1: it is open, or there is no limit.
 */
int bucket_wait_ms(struct bucket *b, uint64_t now_ns);

#endif
