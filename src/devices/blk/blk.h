/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-blk (virtio 1.2, 5.2) over a raw file or block device.
 *
 *   control thread   registers; starts and stops the I/O threads' work (blk.c)
 *   I/O threads      one for each queue: the queue, its requests, an engine (blk_io.c, blk_req.c,
 *                    blk_uring_linux.c or blk_threads.c)
 *   pool             threads for what an engine cannot do itself (blk_pool.c), for all queues
 *
 * The I/O threads share the disk, what is stable on it (blk_sync.c), its limits (blk_limit.c), and of
 * a copy-on-write disk which blocks are its own (blk_overlay.c); nothing else.
 *
 * Data moves between guest memory and the disk without a copy, except for direct I/O of buffers
 * that are not aligned. A request lives in a fixed pool from the moment that its chain is taken
 * until its used entry is pushed; nothing is allocated while the guest runs.
 *
 * A write that was answered is in the page cache (or on the disk, if direct); a flush that was
 * answered has put all writes answered before it was submitted, on any queue, on stable storage
 * (5.2.6.2). A driver that did not accept VIRTIO_BLK_F_FLUSH cannot ask for one: its writes are
 * stable when they are answered.
 */
#ifndef DEVICES_BLK_H
#define DEVICES_BLK_H

#include <linux/virtio_blk.h>
#include <stdatomic.h>

#include "blk_start.h"
#include "blk_aside.h"
#include "blk_engine.h"
#include "blk_limit.h"
#include "blk_overlay.h"
#include "blk_pool.h"
#include "devices/worker.h"

#define BLK_TAG 0x314b4c42u /* "BLK1" */
#define BLK_SECTOR 512u
#define BLK_POOL 256u    /* requests in flight: all queues together, */
#define BLK_POOL_MIN 64u /* but at least so many of each */
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
#define BLK_CROWD 8u /* times that requests are waited for before those that are there begin */

struct blk;
struct blk_lane;

struct blk_range {
	uint64_t off, len;
	bool unmap;
};

struct blk_req {
	struct blk_io io; /* what the engine does now; first, so that the one can be found from the
			     other */
	struct blk_lane *lane;
	struct blk_req *next; /* of the free list, of those that wait for memory or for a sync */
	uint32_t type;        /* VIRTIO_BLK_T_* */
	uint16_t head;
	uint8_t tries;
	bool resumed;    /* an earlier process had taken it */
	bool settling;   /* all is written, and now made stable */
	bool unstable;   /* that has failed */
	bool keep;       /* the space is kept, because it cannot be given back as zeros */
	bool fallback;   /* zeros are written, because the file system cannot make them */
	bool filling;    /* a block is being completed from the base: hold.gap[] */
	uint8_t *status; /* in guest memory */
	uint32_t used_len;
	uint8_t *bounce;
	struct iovec bounce_iov, gap_iov;
	struct overlay_hold hold;
	size_t cut; /* how long the last of io.iov is if all of it is not to be moved; 0: all is */
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

/*
 * What is stable. The kernel says once to an open file that data could not be written, and all
 * lanes share one open file. So there is one sync at a time for the whole disk: it covers every
 * request that came before it began, and if it fails, all that had come when it failed fail with
 * it. The next one is for those that came meanwhile.
 *
 * The answer has to reach the guest although processes die: a failure is in the page (sync_failed)
 * before it is answered and until the last answer about it is published. A process that finds it
 * there does not know which requests it is about: all that were taken before, of every lane.
 */
struct blk_sync {
	pthread_mutex_t
		lock;    /* for all of it and for page->sync_failed; no call is made under it */
	bool running;    /* in the engine of some lane; other_fd is that lane's then */
	int other_fd;    /* see BLK_OTHER; -1: none, or it is synced */
	unsigned untold; /* answers about a failure that are not published yet */
	unsigned owed;   /* lanes that may have to tell what an earlier process found failed */
	bool told;       /* one answer at least is published */
	struct blk_req *covered, *waiting; /* by the sync that runs; for the next one */
};

/* One queue and its I/O thread. */
struct blk_lane {
	struct blk *b;
	struct lane *l;
	struct virtqueue *q;
	struct blk_eng *engine;
	unsigned in_flight;
	unsigned luck, skipped; /* of spinning, see blk_io.c */
	unsigned crowd; /* times that more requests came before those there are have begun */
	struct blk_aside aside;
	int wait_ms;    /* a limit holds back what is in the queue, for so long; 0: none does */
	unsigned depth; /* of pool[] */
	struct blk_req *pool;
	struct blk_req *free; /* used before; then comes pool[nfresh] */
	unsigned nfresh;
	struct blk_req *waiting, **waiting_end; /* for a bounce buffer */
	uint8_t *bounce[BLK_BOUNCES];
	unsigned nbounce;
	uint8_t *gaps; /* of an overlay: a block for each of pool[] */
	_Atomic(struct blk_req *)
		granted;     /* they have got their blocks; under the overlay's lock */
	struct blk_req sync; /* blk_sync.c: what this lane asks the disk for all of them */
	unsigned told;       /* answers about a failed sync that are pushed and not published */
	unsigned resumed; /* chains that an earlier process had taken, and that are not answered */
	bool owes;        /* it is counted in b->sync.owed; under the lock */
	_Atomic(struct blk_req *) settled; /* under b->sync.lock: ours, by another lane's sync */
};

struct blk {
	struct worker w;
	struct msg_start_blk conf;
	struct virtio_blk_config config;
	int disk_fd;
	struct blk_page *page;
	bool writethrough; /* the driver has no flush; set before the I/O threads serve it */
	const struct blk_engine_ops *ops;
	struct blk_pool pool;
	struct blk_sync sync;
	struct blk_limit limit;
	struct blk_overlay overlay;
	struct helper_ops helper_ops;
	const uint8_t *zeros;
	struct blk_lane lane[BLK_MAX_QUEUES]; /* conf.nqueues */
};

/* Takes the descriptors of its start message over; they are closed by the end of
 * the process. Maps memory, starts the threads, does not serve yet. *step is what failed. */
int blk_open(struct blk *b, struct helper *h, const struct msg_start_blk *m,
	     const struct start_fds *f, const char **step, struct err *e);
/* The same with that engine, and the guest cannot see it yet: what it is may still be found out.
 * blk_describe() before blk_attach(). */
int blk_begin_disk(struct blk *b, struct helper *h, const struct msg_start_blk *m,
		   const struct start_fds *f, const struct blk_engine_ops *ops, const char **step,
		   struct err *e);
/* The guest sees what b->conf says: a capacity, no more queues than there are lanes. */
void blk_describe(struct blk *b);
void blk_rules(const struct blk *b, struct rule_list *l);
/* helper_ops.message: MSG_LIMIT, and nothing else. dev is the disk. */
int blk_message(void *dev, enum msg_type type, const void *body, size_t len, const int *fds,
		unsigned nfds);
/* helper_attach(). */
int blk_attach(struct blk *b, struct helper *h, struct err *e);
/* Lane i of b->conf.nqueues, without engine and memory. */
void blk_lane_init(struct blk *b, unsigned i);
/* Is this a message that can be obeyed? -EINVAL says what is not. */
int blk_check_conf(const struct msg_start_blk *m, struct err *e);
/* The same, of any engine. */
int blk_check_disk(const struct msg_start_blk *m, struct err *e);

/* What the driver is told (5.2.3, 5.2.4). */
uint64_t blk_features(const struct msg_start_blk *m);
struct virtio_blk_config blk_config_space(const struct msg_start_blk *m);

/* ---- blk_io.c: an I/O thread; arg is the lane ---- */
void *blk_io_main(void *arg);
/* One turn without waiting in the engine: publish, serve the queue. True: there is more to do at
 * once. */
bool blk_turn(struct blk_lane *l);
/* Ask for kicks. True: there are chains to be taken first. */
bool blk_arm(struct blk_lane *l);
/* A request of the pool is done: status byte, used entry, back to the pool. */
void blk_finish(struct blk_req *r, uint8_t status);

/* ---- blk_req.c: one request ---- */
/* A chain was taken into r->vec: check it and begin. -EINVAL: not even a header or a status byte,
 * *why says so. */
int blk_begin(struct blk_req *r, const struct vq_chain *c, const char **why);
/* The engine's answer; ctx is the lane. */
void blk_io_done(void *ctx, struct blk_io *io, int res);
/* Do the next step of what is left of the request. */
void blk_proceed(struct blk_req *r);
/* The system call is to be tried once more. */
bool blk_again(struct blk_req *r, int code);

/* ---- blk_sync.c: flushes of all lanes; each call by the lane's own thread ---- */
void blk_sync_init(struct blk_sync *s, int other_fd);
/* Control thread, when the queues are about to run: which of them resume. */
void blk_sync_start(struct blk *b);
/* The request is done when all that was answered before it came is stable. Answers it then. */
void blk_sync_begin(struct blk_req *r);
/* The engine's answer to l->sync. */
void blk_sync_done(struct blk_lane *l, int res);
/* Answer what other lanes' syncs have covered. */
void blk_sync_take(struct blk_lane *l);
/* What was pushed is published. */
void blk_sync_published(struct blk_lane *l);

#endif
