/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-balloon (virtio 1.2, 5.5): memory that the guest does not need goes back to the host.
 *
 * Two ways. The balloon: the host asks for pages (num_pages), the driver takes them from its guest
 * and names them on the inflate queue. Reports: without being asked, the driver names ranges that
 * are free, waits until they are answered, and frees them for use again. Both are the same here:
 * balloon_punch() cuts a hole into the file that guest memory is, so the pages leave every process
 * that maps it, and the control group that they were counted in. The next touch finds zeros.
 *
 *   control thread   registers, num_pages and actual in the configuration, messages. It never cuts
 *   I/O thread       the queues. One chain at a time, in pieces: at most BALLOON_PIECE bytes or
 *                    BALLOON_LIST pages of a list, then it looks for a command. So the longest chain
 *                    (4 GiB) keeps neither a reset nor the end waiting
 *
 * What destroys data is a hole in a page that the guest uses again. It may do so when it sees the
 * answer, so everything is cut before vq_push(), and a chain is begun again only if it was not
 * answered: what is in flight is what virtqueue.h's order says, which is right at any instruction.
 * A chain that a kill left half cut is cut again from its beginning: holes stay holes. Nothing is
 * remembered of an answered chain, and no page is cut for any other reason. Deflating does nothing
 * at all: the guest may use such a page before it says so (5.5.6.1).
 *
 * Only whole pages inside guest memory are cut; a range with odd ends loses its ends.
 */
#ifndef DEVICES_BALLOON_H
#define DEVICES_BALLOON_H

#include <linux/virtio_balloon.h>

#include "balloon_start.h"
#include "devices/worker.h"

#define BALLOON_TAG 0x314c4142u     /* "BAL1" */
#define BALLOON_PIECE (2u << 20)    /* bytes */
#define BALLOON_LIST 256u           /* pages of a list */
#define BALLOON_BUDGET 32u          /* pieces of one turn */
#define BALLOON_NONE BALLOON_QUEUES /* no such queue */

/* What the driver wrote into the configuration; it outlives the process. */
struct balloon_state {
	_Atomic uint32_t actual, poison;
};

struct balloon_page {
	struct virtio_state virtio;
	struct balloon_state balloon;
};
_Static_assert(sizeof(struct balloon_page) <= PORT_DEV_STATE_SIZE, "the state fits the page");

enum balloon_role {
	BALLOON_INFLATE,
	BALLOON_DEFLATE,
	BALLOON_STATS,
	BALLOON_REPORTS,
	BALLOON_ROLES
};

struct balloon {
	struct worker w; /* first: the dev of the model is the worker */
	struct helper_ops ops;
	struct virtio_balloon_config config; /* control thread's */
	struct balloon_state *st;

	/* set before a start */
	unsigned queue[BALLOON_ROLES]; /* BALLOON_NONE: it is not there */
	bool poison; /* a guest that fills free pages says with what: unless it is zeros, reports
		      * are answered and nothing is cut (5.5.6.7.2) */

	/* the I/O thread's: the chain that is being worked on */
	bool busy;
	enum balloon_role role;
	struct vq_chain chain;
	uint64_t at;  /* bytes of it that are done */
	uint8_t *run; /* pages side by side that were named and not cut yet */
	uint64_t run_len;
	bool held; /* the buffer for statistics is here */
	uint16_t held_head;
	struct iovec iov[VQ_MAX_NUM];

	/* between the threads */
	_Atomic bool ask;  /* control -> I/O: give the buffer back */
	_Atomic bool told; /* I/O -> control: there are new ones; h->event_fd tells */
	_Atomic uint64_t count;
	_Atomic uint32_t has;
	_Atomic uint64_t stat[BALLOON_TAGS];

	/* the control thread's */
	bool serves; /* the driver gives statistics */
	bool owing;  /* MSG_BALLOON_STATE */
};

/* Is this a message that can be obeyed? -EINVAL says what is not. */
int balloon_check_conf(const struct msg_start_balloon *m, struct err *e);
uint64_t balloon_features(uint32_t flags);
/* The descriptors of its start message are taken over. *step is what failed. helper_attach() with
 * &b->ops. */
int balloon_open(struct balloon *b, struct helper *h, const struct msg_start_balloon *m,
		 const struct start_fds *f, const char **step, struct err *e);
/* What balloon_open() does after the memory is mapped and before threads: for tests without. */
void balloon_describe(struct balloon *b, const struct msg_start_balloon *m);
void balloon_rules(const struct balloon *b, struct rule_list *l);

/* ---- balloon_io.c ---- */
void *balloon_io_main(void *arg);
/* The driver is there and no I/O runs: which queue is what. */
void balloon_prepare(struct balloon *b);
/* One turn of the I/O thread. True: there is more to do at once. */
bool balloon_turn(struct balloon *b);

/* ---- balloon_linux.c ---- */
/* Give back the whole pages inside these bytes of guest memory. 0 or a negative errno: they are as
 * they were. The one place where guest memory is cut. */
int balloon_punch(void *at, uint64_t len);

#endif
