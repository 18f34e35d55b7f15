/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio device with I/O threads: what all of them have in common.
 *
 *   control thread   registers, messages (helper.h). Starts and stops the serving of the queues by
 *                    commands, and hears when the I/O threads are quiet.
 *   I/O threads      one for each lane: the queues of that lane, and guest memory, from a start
 *                    until the thread says that it is quiet. No queue belongs to two lanes.
 *
 * A lane shares nothing with the others that it needs for each request: it has its queues, its
 * counters and its event. A command is one number for all lanes; each lane says by itself that it
 * has obeyed, and the control thread waits for the last of them. Most devices have one lane.
 *
 * A program: worker_open() maps and makes the events; worker_lanes() if there is more than one
 * lane; the device sets up what it needs; worker_begin() starts the threads, worker_describe() says
 * what the device is; jail_seal() with worker_rules() and its own;
 * helper_attach(h, &worker_helper_ops, w).
 */
#ifndef DEVICES_WORKER_H
#define DEVICES_WORKER_H

#include <stdatomic.h>

#include <insula/stats.h>

#include "devices/virtio/front.h"

#define WORKER_MAX_LANES 8
#define WORKER_MAX_EXTRA 16 /* descriptors of its own that a device may wait for */
/* A backing that does not finish in this time has failed. The core waits as long for the answer to
 * a reset: then the guest goes on, and this process has nothing to wait for any more. */
#define WORKER_QUIET_MS (DP_DEADLINE_NS / 1000000)
/* At the end nobody waits for a register: as long as the supervisor lets helpers drain, and more.
 */
#define WORKER_LAST_MS 30000u

_Static_assert(WORKER_MAX_LANES >= BLK_MAX_QUEUES, "a lane for each queue");
_Static_assert(WORKER_MAX_LANES >= NET_MAX_PAIRS, "a lane for each pair");

struct pollfd;
struct worker;

/* One I/O thread and what is its own. */
struct lane {
	struct worker *w;
	unsigned index;

	/* between this thread and others */
	int ctl_fd;                 /* "look around": a command, or news of another lane */
	_Atomic bool up;            /* it has begun; see `born` */
	_Atomic uint32_t quiet_at;  /* the last command after which it said that it is quiet */
	_Atomic uint32_t frozen_at; /* worker.freeze, while it waits in lane_freeze() */
	struct err born;            /* code < 0: the thread could not start */

	/* the I/O thread's */
	uint32_t seen;             /* the last command that was obeyed */
	bool broken;               /* a guest's mistake: take no more chains */
	uint32_t queues;           /* bit i: queue i is served here; its kicks are nobody else's */
	uint64_t stat[STATS_ROOM]; /* by index of stats.h; the control thread reads them too, while
				      it works only by worker_count() */
	uint8_t apart[64];         /* no line of the cache is shared with the next lane */
};

struct worker {
	struct helper *h;
	struct guestmem gm;
	struct virtio_front front;
	struct virtio_model model;
	unsigned nkicks;
	int kick_fd[VIRTIO_MAX_QUEUES];
	size_t stack; /* of an I/O thread; 0: what our own code needs */
	unsigned nlanes;
	struct lane lane[WORKER_MAX_LANES];

	/* between the threads */
	int quiet_fd;          /* I/O -> control: a lane is quiet, or has begun */
	_Atomic uint32_t want; /* counts commands: odd is "serve the queues", even is "be quiet" */
	_Atomic(const char *) fault; /* the guest's mistake; h->event_fd tells */
	_Atomic uint32_t freeze;     /* counts: odd is "a snapshot is made"; futex word */
	bool last;                   /* the control thread's: MSG_STOP has come */
	bool quiet_owed;             /* the control thread's: the answer to MSG_QUIET */
};

/* ---- control thread ---- */

/* Map the page and guest memory, make the events. The descriptors are taken over (guest memory's is
 * closed, the others by the end of the process). *step is what failed. One lane, with all queues.
 */
int worker_open(struct worker *w, struct helper *h, const struct memmap *mem,
		const struct start_fds *f, uint32_t tag, const char **step, struct err *e);
/* `n` lanes (1 to WORKER_MAX_LANES) instead, without queues: the device sets `queues`. */
int worker_lanes(struct worker *w, unsigned n, struct err *e);
/* Start the I/O threads, each with its arg[], and wait until all have called lane_born(). The first
 * `born` that says why not is the result. */
int worker_begin(struct worker *w, void *(*fn)(void *), void *const *arg, struct err *e);
/* What the driver is told. `config` stays the caller's. */
void worker_describe(struct worker *w, uint32_t device_id, uint64_t features, unsigned nqueues,
		     const void *config, size_t config_len);
/* helper_ops.resume: carry on where an earlier helper stopped. */
void worker_resume(void *dev);
/* Commands, as virtio_model.start and .stop; for a model that wraps them. dev is the worker. */
void worker_start(void *dev);
void worker_stop(void *dev);
extern const struct helper_ops worker_helper_ops; /* dev is the worker */
/* The commands and, if `poll`, lane_wait(). */
void worker_rules(const struct worker *w, struct rule_list *l, bool poll);

/* ---- I/O thread ---- */

/* First: it is up, or l->born says why not. */
void lane_born(struct lane *l);
/* Nothing to do until the next command. */
bool lane_idle(const struct lane *l);
/* Are chains to be taken? Obeys a start. */
bool lane_runs(struct lane *l);
/* A command is there that has not been obeyed. */
bool lane_commanded(const struct lane *l);
/* Nothing is in flight: if that was the wish, say so. The queues are the control thread's when all
 * lanes have said it. */
void lane_calm(struct lane *l);
/* The guest's mistake: take no more chains; the control thread tells the driver, and stops the
 * other lanes. `why` is static. */
void lane_fault(struct lane *l, const char *why);
/* A snapshot is made: take no more chains, and call lane_freeze() when nothing is in flight. */
bool lane_freezes(const struct lane *l);
/* Once in each turn, with nothing in flight and all of it published: wait here while a snapshot is
 * made. What the lane has taken and not answered stays its own. */
void lane_freeze(struct lane *l);
/* Publish what was pushed on the queues of this lane, with at most one interrupt of each vector. */
void lane_publish(struct lane *l);
/* Ask for kicks on queue q. True: there is something to take first. */
bool lane_arm(struct lane *l, unsigned q);
/* Another thread has news for this one. Any thread. */
void lane_wake(const struct lane *l);
/* Wait for a command or a kick; at most `timeout` ms (-1: for ever). Drains them. Interrupted waits
 * return early. Returns how many queues were kicked. */
unsigned lane_sleep(struct lane *l, int timeout);
/* The same, or for one of `extra` (at most WORKER_MAX_EXTRA, revents filled in). Linux alone. */
unsigned lane_wait(struct lane *l, struct pollfd *extra, unsigned nextra, int timeout);

#endif
