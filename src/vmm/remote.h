/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A remote device: the core's side of a device page (insula/devpage.h).
 *
 * Reads are answered from the shadow registers, writes are posted, and what is left is a
 * synchronous call with a deadline, which is one for all accesses of an exit. A device whose helper
 * misses the deadline or breaks the protocol is failed: reads that exit give all ones, writes are
 * lost (and the page says so) until the call that was given up is answered after all, or
 * remote_up().
 */
#ifndef VMM_REMOTE_H
#define VMM_REMOTE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <insula/devpage.h>
#include <insula/proto.h>

#include "bus.h"

/* Which accesses of a kind of device need what. Bit i of a mask stands for the register at i <<
 * shift. */
struct reg_policy {
	unsigned shift;
	uint64_t posted_writes; /* no readable register depends on them */
	uint64_t call_reads;    /* reads with a side effect */
	uint64_t len;           /* bytes of the window */
	int doorbell; /* offset of the doorbell register, its value is the queue; -1: none */
	int ack;      /* offset of the interrupt acknowledge register; -1: none */
};
const struct reg_policy *reg_policy(enum dev_kind kind); /* NULL: no such kind */

struct remote {
	const struct reg_policy *policy;
	uint32_t index;
	enum dev_kind kind;
	uint64_t base;
	uint32_t gsi;
	unsigned nkicks;

	uint8_t *shadow; /* the core maps the first DP_CORE_SIZE bytes of the page here */
	struct dp_ctrl *ctrl;
	struct dp_post *ring;

	int call_event, irq_event, ack_event, answer_event, kick[VIRTIO_MAX_QUEUES]; /* owned */
	int wake_event;            /* borrowed: tells the main thread that `stuck` is set */
	const atomic_bool *ending; /* borrowed: the VM ends, do not wait any longer */
	bool may_spin;

	pthread_mutex_t lock; /* head, seq, metrics.call_ns_max; held while a call is under way */
	uint32_t head, seq;   /* our own copies: never read back from the page */
	atomic_bool failed, stuck;
	_Atomic uint64_t shadow_reads, doorbells;
	struct vm_dev_metrics metrics;
};

extern const struct bus_ops remote_bus_ops;

/* Take over the descriptors of a MSG_DEVICE and map its page. On error everything is closed. */
int remote_init(struct remote *d, const struct msg_device *m, int *fds, unsigned nfds,
		struct err *e);
/* The helper is back. Any thread. */
void remote_up(struct remote *d);
/* There is none, and no call waits for one until there is. Any thread; waits for a call that is
 * under way. */
void remote_down(struct remote *d);
void remote_metrics(struct remote *d, struct vm_dev_metrics *out);

#endif
