/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-blk is told: insula/start.h, and this. */
#ifndef DEVICES_BLK_START_H
#define DEVICES_BLK_START_H

#include <insula/proto.h>

#define BLK_START START_TAG('b', 'l', 'k', '1')

enum blk_engine { BLK_ENGINE_URING = 1, BLK_ENGINE_THREADS = 2 };
enum blk_flags {
	BLK_RO = 1,
	BLK_DIRECT = 2,
	BLK_DEVICE = 4,   /* a block device: what discards on a file only writes zeros there */
	BLK_OTHER = 8,    /* there is another descriptor of the disk, to be synced before the first
			 * flush is answered */
	BLK_OVERLAY = 16, /* copy on write: the disk is an overlay, and there is its base */
	BLK_THROWN_AWAY = 32, /* nobody reads the overlay when the VM has ended */
};
/* START_OWN: the disk, and the other one if BLK_OTHER; if BLK_OVERLAY then also the base,
 * read-only, and the memory that the helpers of this disk share (blk_overlay_start.h). START_KICK:
 * nqueues. The descriptors of disk and base are open as the flags say (read-only, O_DIRECT), locked,
 * and belong to this generation of the helper alone.
 *
 * The kernel tells each open file once that data could not be written. An earlier helper may have
 * been told, and have died before the guest was. The other descriptor is open since the VM began,
 * and has not been told. Not on Windows. */
struct msg_start_blk {
	struct start_head head;
	struct msg_limit limit;
	uint64_t capacity;      /* bytes, multiple of 512 */
	uint32_t nqueues;       /* 1..BLK_MAX_QUEUES */
	uint32_t flags;         /* enum blk_flags */
	uint32_t engine;        /* enum blk_engine */
	uint32_t logical;       /* logical block size, 512..4096 */
	uint32_t physical;      /* physical block size, >= logical, power of two */
	uint32_t opt_io;        /* optimal I/O size in logical blocks, 0 unknown */
	uint32_t discard_align; /* bytes; 0: the backing cannot discard */
	uint32_t max_io;        /* bytes that the backing takes at once; 0 unknown */
	uint32_t pad;
	char serial[20]; /* virtio 1.2, 5.2.6: not necessarily terminated */
};

#endif
