/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-blk (virtio 1.2, 5.2) over a raw file or block device.
 *
 *   control thread   registers; starts and stops the I/O thread's work (blk.c)
 *   I/O thread       queues, requests, the engine (blk_io.c, blk_req.c, blk_uring_linux.c
 *                    or blk_threads.c)
 *
 * Data moves between guest memory and the disk without a copy, except for direct I/O of buffers
 * that are not aligned. A request lives in a fixed pool from the moment that its chain is taken
 * until its used entry is pushed; nothing is allocated while the guest runs.
 *
 * A write that was answered is in the page cache (or on the disk, if direct); a flush that was
 * answered has put all writes answered before it on stable storage (5.2.6.2). A driver that did
 * not accept VIRTIO_BLK_F_FLUSH cannot ask for one: its writes are stable when they are answered.
 */
#ifndef DEVICES_BLK_H
#define DEVICES_BLK_H

#include <linux/virtio_blk.h>
#include <stdatomic.h>

#include "blk_engine.h"
#include "worker.h"

#define BLK_TAG 0x314b4c42u /* "BLK1" */
#define BLK_SECTOR 512u
#define BLK_POOL 256u /* requests in flight, all queues together */
#define BLK_SEG_MAX (VQ_MAX_NUM - 2u)
#define BLK_SIZE_MAX (256u << 10)                           /* bytes of one segment */
#define BLK_MAX_DATA ((uint64_t)BLK_SEG_MAX * BLK_SIZE_MAX) /* bytes of one request */
#define BLK_RANGES 16u                 /* of one discard or write-zeroes request */
#define BLK_DISCARD_SECTORS (1u << 21) /* of one range: 1 GiB */
#define BLK_ZEROES_SECTORS (1u << 17)  /* 64 MiB: it may have to be written */
#define BLK_BOUNCES 4u
#define BLK_BOUNCE_SIZE (256u << 10)
#define BLK_ZERO_SIZE (64u << 10) /* a buffer of zeros, and how often it is in one write */
#define BLK_ZERO_IOVS 16u
#define BLK_TRIES 16u      /* of a request that the kernel answers with EAGAIN */
#define BLK_BUDGET 64u     /* chains of one queue before the next queue has its turn */
#define BLK_SPIN_NS 20000u /* how long the I/O thread looks for more before it sleeps, */
#define BLK_SPIN_LUCK 8u   /* as long as not that many times in a row nothing came; */
#define BLK_SPIN_RETRY 64u /* then every so many times */

struct blk;

struct blk_range {
	uint64_t off, len;
	bool unmap;
};

struct blk_req {
	struct blk_io io; /* what the engine does now; first, so that the one can be found from the
			     other */
	struct blk *b;
	struct blk_req *next; /* of the free or of the waiting list */
	uint32_t type;        /* VIRTIO_BLK_T_* */
	uint16_t head;
	uint8_t queue;
	uint8_t tries;
	bool settling;   /* all is written, and now made stable */
	bool keep;       /* the space is kept, because it cannot be given back as zeros */
	bool fallback;   /* zeros are written, because the file system cannot make them */
	uint8_t *status; /* in guest memory */
	uint32_t used_len;
	uint8_t *bounce;
	struct iovec bounce_iov;
	struct iovec *iov; /* what is left to do: of vec[], or of the zeros */
	unsigned niov;
	uint64_t off, len;
	unsigned nranges, irange;
	struct blk_range range[BLK_RANGES];
	struct iovec vec[VQ_MAX_NUM];
};

/* In the device page. */
struct blk_page {
	struct virtio_state virtio;
	uint32_t sync_failed; /* a flush has failed, and the guest may not have been told */
};
_Static_assert(sizeof(struct blk_page) <= PORT_DEV_STATE_SIZE, "the state fits the page");

struct blk {
	struct worker w;
	struct msg_start_blk conf;
	struct virtio_blk_config config;
	int disk_fd, other_fd; /* other_fd: see BLK_OTHER; -1: none, or it is synced */
	struct blk_page *page;
	bool writethrough; /* the driver has no flush; set before the I/O thread serves it */

	/* the I/O thread's */
	const struct blk_engine_ops *ops;
	struct blk_eng *engine;
	bool sync_told; /* the answer about page->sync_failed is pushed, and not published */
	unsigned in_flight;
	unsigned luck, skipped; /* of spinning, see blk_io.c */
	struct blk_req *free;   /* used before; then comes pool[nfresh] */
	unsigned nfresh;
	struct blk_req *waiting, **waiting_end; /* for a bounce buffer */
	uint8_t *bounce[BLK_BOUNCES];
	unsigned nbounce;
	const uint8_t *zeros;
	struct blk_req *pool;
};

/* The descriptors of MSG_START_BLK in their order. Takes them over; they are closed by the end of
 * the process. Maps memory, starts the threads, does not serve yet. *step is what failed. */
int blk_open(struct blk *b, struct helper *h, const struct msg_start_blk *m, const int *fds,
	     const char **step, struct err *e);
void blk_rules(const struct blk *b, struct rule_list *l);
/* Is this a message that can be obeyed? -EINVAL says what is not. */
int blk_check_conf(const struct msg_start_blk *m, struct err *e);

/* What the driver is told (5.2.3, 5.2.4). */
uint64_t blk_features(const struct msg_start_blk *m);
struct virtio_blk_config blk_config_space(const struct msg_start_blk *m);

/* ---- blk_io.c: the I/O thread ---- */
void *blk_io_main(void *arg);
/* One turn without waiting in the engine: publish, serve the queues. True: there is more to do at
 * once. */
bool blk_turn(struct blk *b);
/* Ask for kicks. True: there are chains to be taken first. */
bool blk_arm(struct blk *b);
/* A request of the pool is done: status byte, used entry, back to the pool. */
void blk_finish(struct blk_req *r, uint8_t status);

/* ---- blk_req.c: one request ---- */
/* A chain was taken into r->vec: check it and begin. -EINVAL: not even a header or a status byte,
 * *why says so. */
int blk_begin(struct blk_req *r, const struct vq_chain *c, const char **why);
/* What was pushed is published. */
void blk_sync_published(struct blk *b);
/* The engine's answer. */
void blk_io_done(void *ctx, struct blk_io *io, int res);

#endif
