/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the processes of a VM have guest memory mapped, and the descriptors of their page faults
 * (MSG_PAGER_FAULTS, userfaultfd(2)): what serve.h fills and live.h guards. One thread.
 */
#ifndef PAGER_RANGE_H
#define PAGER_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#define RANGES_MAX 160u /* some of each process, and of those that have just died */

struct range {
	int fd; /* owned; -1: this place is free */
	uint64_t offset, addr, len;
};

/* All zeros: none. A range is dropped by closing its descriptor. */
struct ranges {
	unsigned n; /* places in use, with gaps */
	struct range range[RANGES_MAX];
};

/* Takes the descriptor over. `size`: of guest memory. NULL: it cannot be, and why. */
struct range *ranges_add(struct ranges *s, uint64_t size, int fd, uint64_t offset, uint64_t addr,
			 uint64_t len, struct err *e);

/* Somebody waits at `addr`, which is in the range. */
typedef int range_fault(void *ctx, struct range *r, uint64_t addr, struct err *e);
/* Wait for faults or for `channel`, at most `timeout` ms (-1: without end), and hand the faults on.
 * *heard: the channel has something. The first error of `on`, or that of poll(2). */
int ranges_turn(struct ranges *s, int channel, int timeout, bool *heard, range_fault *on, void *ctx,
		struct err *e);

#endif
