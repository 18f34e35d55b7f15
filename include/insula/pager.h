/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the supervisor and insula-pager, the jailed program that writes guest memory into a
 * snapshot and brings it back (src/pager). Native byte order; see insula/proto.h for the channel.
 *
 *   supervisor                                       insula-pager
 *     MSG_START_PAGER: memory, files --------------> jail, seal
 *     <--------------------------------------------- MSG_READY
 *     verify /proc/PID; the VM rests
 *     MSG_PAGER_GO --------------------------------> PAGER_SAVE: guest memory -> the last file
 *                                                    PAGER_LOAD: the files -> guest memory
 *                                                    PAGER_SERVE: it can be asked
 *     <--------------------------------------------- MSG_PAGER_DONE
 *     the VM goes on
 *     MSG_PAGER_SYNC: up to 4 descriptors ---------> fsync() of each
 *     <--------------------------------------------- MSG_PAGER_DONE
 *
 * PAGER_SERVE fills guest memory when it is touched. Each process that maps it says MSG_FAULTS to
 * the supervisor before it touches it, and the supervisor hands that on (MSG_PAGER_FAULTS, the
 * same) and keeps a copy of the descriptor: if the last one were closed, those who wait would go on
 * with zeros. MSG_PAGER_FILL: everything, now; MSG_PAGER_DONE. MSG_STOP: the guest has stopped, and
 * what it asked for is written down; MSG_STOPPED, without a body. Helpers may ask for more until it
 * is killed.
 *
 * PAGER_SAVE with PAGER_LIVE: MSG_PAGER_FAULTS of each process that maps guest memory come before
 * MSG_PAGER_GO, which is answered twice: when the memory is write-protected, and the VM may go on
 * (MSG_PAGER_FROZEN), and when it is copied (MSG_PAGER_DONE). If insula-pager ends between these
 * the supervisor lets go whoever waits.
 *
 * Whatever is wrong is MSG_FAILED; bad_input: the files are to blame. It ends with the channel.
 *
 * A file of memory is a RAM image with holes, and behind it what is in it:
 *
 *   offset 0          the guest's memory as in its memfd; only pages that are present
 *   size              a struct ram_block for each RAM_BLOCK bytes of it
 *   the last bytes    struct ram_tail
 *
 * What is not present is as in the file before it in the chain, and zero in the first one. So the
 * same form serves for a whole snapshot and for the difference to another one.
 */
#ifndef INSULA_PAGER_H
#define INSULA_PAGER_H

#include <stdint.h>

#define RAM_PAGE 4096u
#define RAM_BLOCK 65536u
#define RAM_PAGES (RAM_BLOCK / RAM_PAGE)
#define RAM_MAGIC "INSRAM1"
#define RAM_CHAIN 8u /* files that build on each other, at most */

struct ram_block {
	uint32_t crc;     /* CRC-32 (zlib) of its present pages, one behind the other */
	uint16_t present; /* bit i: page i */
	uint16_t zero;
};
_Static_assert(sizeof(struct ram_block) == 8, "format");

struct ram_tail {
	uint64_t size;    /* of the memory: a multiple of RAM_PAGE */
	uint64_t pages;   /* present ones */
	uint32_t nblocks; /* size / RAM_BLOCK, rounded up */
	uint32_t crc;     /* of the blocks */
	char magic[8];    /* RAM_MAGIC */
};
_Static_assert(sizeof(struct ram_tail) == 32, "format");

enum pager_job { PAGER_SAVE = 1, PAGER_LOAD, PAGER_SERVE };
enum pager_flags {
	PAGER_ORDER = 1, /* PAGER_SERVE: the last descriptor is the working set (serve.h) */
	PAGER_LIVE = 2,  /* PAGER_SAVE: the VM goes on meanwhile (live.h) */
};
/* MSG_START_PAGER. Descriptors: guest memory, then 1 to RAM_CHAIN files of memory, each of which
 * builds on those before it. PAGER_SAVE: the last one is empty, and can be written. */
struct msg_start_pager {
	uint32_t log_level;
	uint32_t job;   /* enum pager_job */
	uint32_t flags; /* enum pager_flags */
	uint32_t pad;
	uint64_t size; /* of guest memory */
};
_Static_assert(sizeof(struct msg_start_pager) == 24, "wire size");

/* MSG_PAGER_DONE */
struct msg_pager_done {
	uint64_t pages; /* that were written */
};

#endif
