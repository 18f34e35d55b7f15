/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio device on MMIO with one I/O thread: what all of them have in common.
 *
 *   control thread   registers, messages (helper.h). Starts and stops the serving of the queues by
 *                    commands, and hears when the I/O thread is quiet.
 *   I/O thread       the queues and guest memory, from a start until it says that it is quiet.
 *
 * A program: worker_open() maps and makes the events; the device sets up what it needs;
 * worker_begin() starts the thread, worker_describe() says what the device is; jail_seal() with
 * worker_rules() and its own; helper_attach(h, &worker_helper_ops, w).
 */
#ifndef DEVICES_WORKER_H
#define DEVICES_WORKER_H

#include <stdatomic.h>

#include <insula/stats.h>

#include "virtio_mmio.h"

#define WORKER_MAX_EXTRA 16 /* descriptors of its own that a device may wait for */
/* A backing that does not finish in this time has failed. The core waits as long for the answer to
 * a reset: then the guest goes on, and this process has nothing to wait for any more. */
#define WORKER_QUIET_MS (DP_DEADLINE_NS / 1000000)
/* At the end nobody waits for a register: as long as the supervisor lets helpers drain, and more.
 */
#define WORKER_LAST_MS 30000u

struct pollfd;

struct worker {
	struct helper *h;
	struct guestmem gm;
	struct virtio_mmio mmio;
	struct virtio_model model;
	unsigned nkicks;
	int kick_fd[VIRTIO_MAX_QUEUES];

	/* between the two threads */
	int ctl_fd;            /* control -> I/O: `want` has changed */
	int quiet_fd;          /* I/O -> control: quiet; or started, see `born` */
	_Atomic uint32_t want; /* counts commands: odd is "serve the queues", even is "be quiet" */
	_Atomic(const char *) fault; /* the guest's mistake; h->event_fd tells */
	struct err born;             /* code < 0: the I/O thread could not start */
	bool last;                   /* the control thread's: MSG_STOP has come */

	/* the I/O thread's */
	uint32_t seen;     /* the last command that was obeyed */
	bool broken;       /* a guest's mistake: take no more chains */
	uint64_t stat[16]; /* by index of stats.h; read by the control thread when this one is quiet
			    */
};

/* ---- control thread ---- */

/* Map the page and guest memory, make the events. The descriptors are taken over (guest memory's is
 * closed, the others by the end of the process). *step is what failed. */
int worker_open(struct worker *w, struct helper *h, int mem_fd, const struct memmap *mem,
		int page_fd, int call_fd, int irq_fd, const int *kick_fd, unsigned nkicks,
		uint32_t tag, const char **step, struct err *e);
/* Start the I/O thread, and wait until it calls worker_born(). Its w->born is the result. */
int worker_begin(struct worker *w, void *(*fn)(void *), void *arg, struct err *e);
/* What the driver is told. `config` stays the caller's. */
void worker_describe(struct worker *w, uint32_t device_id, uint64_t features, unsigned nqueues,
		     const void *config, size_t config_len);
/* helper_ops.resume: carry on where an earlier helper stopped. */
void worker_resume(void *dev);
/* Commands, as virtio_model.start and .stop; for a model that wraps them. dev is the worker. */
void worker_start(void *dev);
void worker_stop(void *dev);
extern const struct helper_ops worker_helper_ops; /* dev is the worker */
/* The commands and, if `poll`, worker_wait(). */
void worker_rules(const struct worker *w, struct rule_list *l, bool poll);

/* ---- I/O thread ---- */

/* First: it is up, or w->born says why not. */
void worker_born(struct worker *w);
/* Nothing to do until the next command. */
bool worker_idle(const struct worker *w);
/* Are chains to be taken? Obeys a start. */
bool worker_runs(struct worker *w);
/* A command is there that has not been obeyed. */
bool worker_commanded(const struct worker *w);
/* Nothing is in flight: if that was the wish, say so. The queues are the control thread's then. */
void worker_calm(struct worker *w);
/* The guest's mistake: take no more chains; the control thread tells the driver. `why` is static.
 */
void worker_fault(struct worker *w, const char *why);
/* Publish what was pushed on all queues, with one interrupt at the most. */
void worker_publish(struct worker *w);
/* Ask for kicks on queue q. True: there is something to take first. */
bool worker_arm(struct worker *w, unsigned q);
/* Wait for a command or a kick; at most `timeout` ms (-1: for ever). Drains them. Interrupted waits
 * return early. Returns how many queues were kicked. */
unsigned worker_sleep(struct worker *w, int timeout);
/* The same, or for one of `extra` (at most WORKER_MAX_EXTRA, revents filled in). Linux alone. */
unsigned worker_wait(struct worker *w, struct pollfd *extra, unsigned nextra, int timeout);

#endif
