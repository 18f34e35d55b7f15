/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that is filled when it is touched: userfaultfd(2).
 *
 * Each process of the VM that maps guest memory has registered its mapping before it touched it,
 * and its descriptor is here (MSG_PAGER_FAULTS). A page that is missing in the memfd stops the
 * thread that touches it until we have put the page there; from then on it is there for all.
 *
 * Only the page is filled, because what a clone has of its own is what its owner pays for; but when
 * pages are asked for one behind the other, those behind them come unasked, up to the end of the
 * block. What the snapshot has as zeros, 2 MiB or a block of it, is handed to the kernel for good:
 * the range is unregistered in that process, and a page that is missing in it is zero as in any
 * memfd.
 *
 * Which pages were asked for is written down once (the working set), block by block in the order in
 * which they were asked for first; the next time they are filled in that order before anybody asks.
 * A block is read as a whole, and its sum checked, when something of it is asked for first; from
 * then on pages of it are read alone.
 *
 * One thread.
 */
#ifndef PAGER_SERVE_H
#define PAGER_SERVE_H

#include <stdbool.h>

#include "ram.h"
#include "range.h"

/* Of the working set: pages of a block that were asked for. */
struct serve_block {
	uint32_t block;
	uint16_t pages; /* bit i: page i; not 0 */
	uint16_t zero;
};

struct serve {
	struct ram *ram;
	struct ranges ranges;
	uint32_t block;   /* that ram->buf[0] holds; UINT32_MAX: none */
	unsigned held;    /* its pages that are there */
	unsigned present; /* those of them that are not zero */
	uint8_t *checked; /* a bit for each block whose sum was right */

	uint64_t next; /* the page behind the one that was asked for last */
	unsigned row;  /* how many were asked for, each behind the other */

	int order; /* file of the working set; -1: none */
	bool records, replays, changed;
	struct serve_block *set; /* each block at most once */
	uint32_t *place;         /* of a block in it, from 1 on; 0: it is not there */
	uint32_t n;              /* blocks in it */
	uint32_t at, end;        /* the next one to be filled before it is asked for */
	unsigned writes;
	bool fills, whole; /* serve_fill() is under way; it is done */
	uint32_t fill_at;
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
/* The VM ends: what it asked for since the working set was written last is in it, too. Goes on. */
void serve_stop(struct serve *s);
/* Everything from now on, turn by turn; s->whole when it is there. */
void serve_fill(struct serve *s);

#endif
