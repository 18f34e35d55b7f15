/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What moves the bytes between guest memory and the disk: one small interface, two engines.
 *
 *   blk_uring     io_uring: one system call per turn for submissions, completions, kicks and
 *                 commands
 *   blk_threads   a pool of threads with preadv and pwritev, for hosts that forbid io_uring
 *
 * Each I/O thread has an engine of its own; the pool of threads (blk_pool.h) is shared.
 *
 * The supervisor chooses. An engine makes one attempt per request and reports the result as the
 * system call does (bytes or a negative errno); what to do about short transfers is decided in one
 * place, blk_req.c.
 *
 * Thread: open and rules by the control thread before the jail is sealed; the rest by the I/O
 * thread whose engine it is.
 */
#ifndef DEVICES_BLK_ENGINE_H
#define DEVICES_BLK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <insula/err.h>
#include <insula/proto.h>

#include "devices/helper.h"

enum blk_op {
	BLK_OP_READ,
	BLK_OP_WRITE,
	BLK_OP_SYNC,
	BLK_OP_SYNC_OTHER, /* another descriptor of the disk, `fd` */
	BLK_OP_PUNCH,      /* give the range back; it reads as zeros afterwards */
	BLK_OP_ZERO,       /* make the range zeros, and keep its space */
	BLK_OP_DISCARD,    /* the range is not needed any more; what it reads as is not said */
};

#define BLK_PARTS 8u

struct blk_io {
	enum blk_op op;
	const struct iovec *iov;
	unsigned niov;
	uint64_t off, len; /* len: of what has no iov alone */
	int fd;            /* of BLK_OP_SYNC_OTHER, and of a read of the base */
	bool base;         /* of BLK_OP_READ: from the base of an overlay */
	/* The engine's own: */
	int res;
	struct blk_io *next;
	struct blk_pool_end *end;
	unsigned nparts, pending;
	struct blk_part {
		uint64_t len;
		int res;
	} part[BLK_PARTS];
};

struct blk_eng; /* the engine's own */
struct blk_pool;

struct blk_engine_conf {
	int disk_fd;
	int base_fd;  /* -1: none */
	int other_fd; /* for BLK_OP_SYNC_OTHER; -1: none */
	bool readonly;
	int ctl_fd;  /* eventfd: a command of the control thread, or news of another I/O thread */
	int kick_fd; /* eventfd: the queue's */
	struct blk_pool *pool;
	unsigned depth;  /* requests submitted and not done, at most */
	uint32_t max_io; /* bytes that the disk takes at once; 0: not known */
	void (*done)(void *ctx, struct blk_io *io, int res);
	void *ctx;
	uint64_t *kicks; /* counter, the I/O thread's */
};

struct blk_engine_ops {
	bool no_disk;          /* there is no descriptor of a disk */
	bool by_processes;     /* others of this host serve it, and need a processor for that */
	size_t stack;          /* of an I/O thread; 0: as our own code needs it */
	unsigned pool_threads; /* how many threads the pool is to have, for all engines of a disk */
	/* Allocate, make events. */
	int (*open)(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e);
	/* First call of the I/O thread. */
	int (*enter)(struct blk_eng *g, struct err *e);
	/* Queue one request; it starts at the next wait at the latest. */
	void (*submit)(struct blk_eng *g, struct blk_io *io);
	/* Start what was submitted, call done() for what has finished. Wait until something has, or a
	 * kick or a command has come, but for no longer than `ms` (-1: for ever). */
	void (*wait)(struct blk_eng *g, int ms);
	/* Would wait() find something that has finished? Cheap, no system call. */
	bool (*ready)(struct blk_eng *g);
	void (*rules)(const struct blk_eng *g, struct rule_list *l);
	/* What is the same for all engines of the disk. */
	void (*disk_rules)(const struct blk_engine_conf *c, struct rule_list *l);
};

/* Linux; Windows has blk_threads, on ReadFile and WriteFile. */
extern const struct blk_engine_ops blk_uring, blk_threads;

/* NULL: there is no such engine here. */
const struct blk_engine_ops *blk_engine_find(uint32_t kind);

#endif
