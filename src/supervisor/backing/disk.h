/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk as the supervisor holds it: found fit, locked for the life of the VM, and opened anew for
 * each generation of its helper.
 *
 * Two locks, two purposes:
 *
 *   flock(2) on `fd`   no two VMs write to one image: exclusive for a writable disk, shared for a
 *                      read-only one and for the base of an overlay, whose file has an exclusive one
 *   open-file-description lock   on the helper's own descriptor, at a byte that is this VM's alone:
 *                      the kernel releases it only when the last reference to that description is
 *                      gone, and requests that are still under way in the kernel hold one. So while
 *                      the lock is there, I/O of a dead helper may still land, and no new helper
 *                      starts (disk_quiet()). A base has one too: what is read from it late
 *                      lands in the memory of the guest
 */
#ifndef SUPERVISOR_DISK_H
#define SUPERVISOR_DISK_H

#include <stdbool.h>
#include <sys/types.h>

#include <insula/proto.h>

#include "devices/blk/blk_start.h"
#include "spec/config.h"

struct module_back;

struct disk {
	struct module_back *module; /* owned: a storage module serves it, and all else but `conf`
				     * and `limit` is not there; NULL: insula-blk */
	const struct disk_config *conf; /* borrowed */
	int fd;          /* holds the flock; helpers that follow another one sync it (BLK_OTHER) */
	int over;        /* the same, of an overlay: `fd` is its base then; -1: none */
	int memory;      /* what the helpers of an overlay share (blk_overlay_start.h); -1: none */
	off_t lock_byte; /* of the generation locks */
	/* What conf says, or who owns the VM has said since: of a module, too. */
	struct msg_limit limit;
	struct msg_start_blk start; /* capacity, block sizes, flags, serial filled in */
};

#define DISK_FDS 4  /* that a helper gets, at most */
#define DISK_ONCE 2 /* of which so many are its own */

/* Open, check, lock. `d->fd` is -1 on error. The text names the path and what was expected.
 * `check_only`: no overlay is made; the disk is not to be handed out. */
int disk_open(struct disk *d, const struct disk_config *conf, bool check_only, struct err *e);
void disk_close(struct disk *d);
/* Before disk_close(), when disk_quiet() has said 1: others may have it at once. A process that was
 * killed may have the same open file for a moment longer, in what io_uring still cleans up. */
void disk_unlock(struct disk *d);

/* What the next helper gets: fds[0..*n) are the descriptors of its start message, and the message
 * says how it uses them (engine, BLK_OTHER). once[] are those that the caller closes, if they are
 * not
 * -1, also on error: new open file descriptions, with their generation locks. `again`: there was a
 * helper before. */
int disk_hand_out(const struct disk *d, bool again, struct msg_start_blk *m, int fds[DISK_FDS],
		  unsigned *n, int once[DISK_ONCE], struct err *e);
/* Is no I/O of an earlier generation under way any more? 1, 0 or a negative errno. */
int disk_quiet(const struct disk *d);

#endif
