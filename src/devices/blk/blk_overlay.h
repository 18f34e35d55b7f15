/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copy on write: blocks of 4 KiB that the guest has written are in the overlay, each at a place of
 * its own; the others are in the base, which is never written. docs/overlay.md has the file.
 *
 * Three copies of the index:
 *
 *   live     in memory that the supervisor made and every helper of the disk maps, so it survives
 *            the death of a helper. What requests go by. A bit is set when all of its block is in
 *            the overlay, and never cleared.
 *   frozen   live as it was when a sync of the disk began; this process's
 *   stable   in the file
 *
 * A sync that finds pages of `live` that are not stable: freezes them; syncs the data; writes the
 * frozen pages; syncs again; and only then are the flushes answered. So a bit that is stable stands
 * for data that is, whatever a crash of the host loses, in whatever order. One that is not only
 * loses what no flush was answered for, and the block is the base's again.
 *
 * A block that a request covers in part, and that is in the base, is completed: what the request
 * leaves out is copied from the base, what it has is written, and then the bit is set. Until then
 * the request holds its blocks; others that have to set a bit of one of them wait, in the order in
 * which they came. Who finds all bits set does not need to wait for anybody. A helper that dies has
 * set no bit of what was not complete, and the next one does the request again from the start.
 *
 * Threads: any lane's, except as said. Locks: `lock`, no call is made under it.
 */
#ifndef DEVICES_BLK_OVERLAY_H
#define DEVICES_BLK_OVERLAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>

#include <insula/err.h>

#include "blk_overlay_start.h"

struct blk_req;
struct blk_io;
struct blk_lane;
struct rule_list;

/* Of a request: the blocks that it holds or waits for. */
struct overlay_hold {
	struct blk_req *next;    /* in the order of arrival */
	struct blk_req *granted; /* of the lane's list */
	uint64_t first, end;     /* blocks */
	bool queued, holds;
	/* What of the first and of the last block comes from the base; and how far that is. */
	struct overlay_gap {
		uint64_t off;
		uint32_t len;
	} gap[2];
	unsigned igap;
	uint32_t done;
	bool loaded; /* the gap is in the buffer */
};

struct blk_overlay {
	bool on;
	bool thrown_away; /* nobody reads the file when the VM has ended: nothing is made stable */
	int fd;           /* the disk's own; borrowed */
	int base_fd;
	struct overlay_layout at;
	uint64_t capacity;
	/* in memory of at.memory bytes, shared with the helpers before and after: */
	_Atomic uint64_t *live;
	_Atomic uint8_t *flags; /* of each page */
	uint64_t *frozen;
	pthread_mutex_t lock;        /* for all below, for setting bits, and for `flags` */
	struct blk_req *queue, *end; /* those that hold or wait */
	bool dirty;                  /* some page has OVERLAY_DIRTY, perhaps */
	/* The sync's, of which there is one at a time: */
	enum overlay_step { OVERLAY_DATA, OVERLAY_INDEX, OVERLAY_LAST } step;
	uint64_t first_page, end_page; /* all frozen pages are among them; equal: there is none */
	uint64_t page;                 /* the next one that may be frozen */
	struct iovec iov;
};

/* Before the jail is sealed: map, and take the index from the file if no helper has done so.
 * `memory_fd` is closed. */
int blk_overlay_open(struct blk_overlay *o, uint64_t capacity, bool thrown_away, int fd,
		     int base_fd, int memory_fd, struct err *e);
/* The part without system calls: `memory` is of a layout's size. */
int blk_overlay_init(struct blk_overlay *o, uint64_t capacity, bool thrown_away, void *memory,
		     struct err *e);
void blk_overlay_rules(const struct blk_overlay *o, struct rule_list *l);

/* How many of the `len` bytes at `off` are in the same place as the first, and whether that is the
 * overlay. len > 0. */
uint64_t blk_overlay_run(const struct blk_overlay *o, uint64_t off, uint64_t len, bool *over);
/* Are all of them in the overlay? */
bool blk_overlay_has(const struct blk_overlay *o, uint64_t off, uint64_t len);

/* Hold the blocks of r->off, r->len. False: it has to wait, and comes back by blk_overlay_take().
 */
bool blk_overlay_hold(struct blk_req *r);
/* Of a request that holds: the next step that completes its blocks, in r->io but for where it is: a
 * read of the base, or a write. False: there is none left. `buffer`: of a block, aligned to it. */
bool blk_overlay_gap(struct blk_req *r, uint8_t *buffer, struct iovec *iov);
/* `n` bytes of that step were moved. */
void blk_overlay_gap_moved(struct blk_req *r, uint64_t n);
/* It holds nothing any more. `whole`: all of its blocks are in the overlay now. */
void blk_overlay_release(struct blk_req *r, bool whole);
/* Go on with what has got its blocks. The lane's own thread. */
void blk_overlay_take(struct blk_lane *l);

/* ---- of a sync (blk_sync.c) ---- */
/* It begins: before any system call. */
void blk_overlay_freeze(struct blk_overlay *o);
/* A step of it has succeeded; `res` bytes were written. True: *io is the next one. */
bool blk_overlay_sync_next(struct blk_overlay *o, struct blk_io *io, int res);
/* It is over. */
void blk_overlay_thaw(struct blk_overlay *o, bool stable);
/* At the end of the VM, by the control thread, with quiet lanes: what no flush has asked for. */
void blk_overlay_finish(struct blk_overlay *o);

#endif
