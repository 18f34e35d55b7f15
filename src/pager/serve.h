/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that is filled when it is touched: userfaultfd(2).
 *
 * Each process of the VM that maps guest memory has registered its mapping before it touched it,
 * and its descriptor is here (MSG_PAGER_FAULTS). A page that is missing in the memfd stops the
 * thread that touches it until we have put the page there; from then on it is there for all.
 *
 * What is filled with a page: its neighbours that are in the snapshot, SERVE_PAGES in all. What the
 * snapshot has as zeros, 2 MiB or a block of it, is handed to the kernel for good: the range is
 * unregistered in that process, and a page that is missing in it is zero as in any memfd.
 *
 * In which order pages were asked for, SERVE_PAGES each, is written down once (the working set); the
 * next time they are filled in that order before anybody asks.
 *
 * One thread.
 */
#ifndef PAGER_SERVE_H
#define PAGER_SERVE_H

#include <stdbool.h>

#include "ram.h"
#include "range.h"

#define SERVE_PAGES 4u /* a power of two, at most those of a block */

struct serve {
	struct ram *ram;
	struct ranges ranges;
	uint32_t block;   /* that ram->buf[0] holds; UINT32_MAX: none */
	uint16_t present; /* its pages that are not zero */

	int order; /* file of the working set; -1: none */
	bool records, replays;
	uint32_t norder, nwritten; /* units in it, and in the file */
	uint32_t at, end;          /* the next one to be filled before it is asked for */
	unsigned writes;
	bool fills, whole; /* serve_fill() is under way; it is done */
	uint32_t fill_at;
	uint32_t *units;   /* SERVE_PAGES each */
	uint8_t *seen;     /* a bit for each */
	uint64_t begun_ns; /* the first fault */
};

/* `order`: the working set, which is followed, and written if it is open for that; -1: none.
 * The tables of `ram` have been read (ram_check()). -ENOMEM. */
int serve_open(struct serve *s, struct ram *ram, int order, struct err *e);
/* After the jail is closed: the working set is read, if there is one. */
void serve_begin(struct serve *s);
/* Takes the descriptor over. Threads that wait in this range ask once more: an earlier process may
 * have died over it. -EINVAL: it cannot be. */
int serve_add(struct serve *s, int fd, uint64_t offset, uint64_t addr, uint64_t len, struct err *e);
/* Wait for a fault or for `channel`, and deal with the faults. *heard: the channel has something.
 * -EPROTO, or what the system says: the snapshot cannot be read, and nobody can go on. */
int serve_turn(struct serve *s, int channel, bool *heard, struct err *e);
/* Everything from now on, turn by turn; s->whole when it is there. */
void serve_fill(struct serve *s);

#endif
