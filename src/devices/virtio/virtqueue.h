/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Split virtqueues, the device's side (virtio 1.2, 2.7), once for all devices.
 *
 * Trust. Everything in the rings is the guest's and may change at any time. Each descriptor, index
 * and head is copied once; the copy is checked and used. A mistake breaks the queue (vq_next()
 * returns an error); the device then needs a reset.
 *
 * Restart. What is in flight is written down in struct vq_state, which outlives the process, in an
 * order that is right at any instruction (the technique of the in-flight region of vhost-user):
 *
 *   taking a chain       slot.order = counter++, then slot.busy = 1. Before: it was never taken.
 *   giving chains back   used entries and slot.next = last_batch, last_batch = head; then used.idx,
 *                        which is the moment the guest sees the whole batch; then busy = 0 for the
 *                        batch; then state.used_idx.
 *   after a kill         used.idx beyond state.used_idx: that many chains of the last batch are
 *                        done, so clear their busy. What is busy then has not been answered: it is
 *                        handed out again by vq_next(), in its old order.
 *
 * Interrupts are not part of this: after a restart the device raises one whatever the driver asked
 * for, because the one of the last batch may not have been sent.
 *
 * The position in the available ring needs no record: everything that was taken is either answered
 * or busy. Stores of one process become visible in the order in which it made them (release
 * stores), and to a successor after its death all of them are.
 *
 * Barriers against the guest: used entries before used.idx (release); avail.idx before the entries
 * (acquire); and a full barrier on both sides of the two event-index decisions: after we publish
 * used.idx and before we read used_event, after we set avail_event and before we read avail.idx
 * again.
 *
 * Thread: one at a time. No allocation, no system call.
 */
#ifndef DEVICES_VIRTQUEUE_H
#define DEVICES_VIRTQUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <insula/err.h>
#include <insula/guestmem.h>

#define VQ_MAX_NUM 256 /* descriptors of a queue; of a chain too, if it is in an indirect table */

struct vq_slot { /* one per head descriptor */
	_Atomic uint8_t busy;
	uint8_t pad;
	_Atomic uint16_t next; /* of the same batch */
	uint32_t pad2;
	uint64_t order;
};

/* Set by the driver before the queue runs (num .. device), and what survives the process. */
struct vq_state {
	uint32_t num;
	uint32_t ready;
	gpa_t desc, driver, device;
	_Atomic uint16_t used_idx;
	_Atomic uint16_t last_batch;
	_Atomic uint32_t vector; /* its interrupt: front.h. The driver may change it at any time */
	struct vq_slot slot[VQ_MAX_NUM];
};

/* A chain as the device sees it: nread readable segments, then nwrite writable ones, in iov[]. */
struct vq_chain {
	uint16_t head;
	uint16_t nread, nwrite;
	uint64_t read_len, write_len;
	struct iovec *iov; /* the caller's, VQ_MAX_NUM entries */
};

struct virtqueue {
	struct vq_state *st;
	const struct guestmem *gm;
	uint8_t *desc, *avail, *used;
	uint16_t num; /* 0: the queue is not used */
	bool event_idx, indirect;
	bool armed; /* the driver was asked to kick when it passes last_avail */
	uint16_t last_avail, used_idx;
	uint16_t batch; /* pushed, not published */
	uint64_t order;
	const char *why; /* the guest's mistake */
	uint16_t nresume, iresume;
	uint16_t resume[VQ_MAX_NUM];
};

/* Are the size and the three addresses usable? -EINVAL with the reason. */
int vq_check(const struct vq_state *st, const struct guestmem *gm, struct err *e);
/* Begin to serve. `resume`: carry on from st; otherwise from an empty queue. -EINVAL: the
 * addresses, or what the guest left in the used ring, cannot be. */
int vq_start(struct virtqueue *q, struct vq_state *st, const struct guestmem *gm, uint64_t features,
	     bool resume, struct err *e);
/* One that another program serves, and does not at the moment: vq_offered() and vq_seen() tell what
 * the driver has done, and nothing else may be called. num is 0 if it is not ready. */
void vq_watch(struct virtqueue *q, struct vq_state *st, const struct guestmem *gm,
	      uint64_t features);

/* How many chains the driver says that vq_next() would find; whether it is right is looked at
 * there. */
unsigned vq_pending(const struct virtqueue *q);
/* Would vq_next() find a chain (or a mistake)? */
bool vq_waiting(const struct virtqueue *q);
/* The next chain. 1; 0: the queue is empty; -EINVAL: the guest's mistake, in q->why. */
int vq_next(struct virtqueue *q, struct vq_chain *c);
/* Number of chains that vq_next() will hand out again. */
unsigned vq_resumed(const struct virtqueue *q);
/* Give a chain back, `len` bytes written. Seen by the guest after vq_publish(). */
void vq_push(struct virtqueue *q, uint16_t head, uint32_t len);
/* Publish what was pushed. True: the guest wants an interrupt. */
bool vq_publish(struct virtqueue *q);

/* Ask for a kick when a chain comes. True: there is one already, take it first. The next vq_next()
 * that finds a chain withdraws the wish. */
bool vq_arm(struct virtqueue *q);

/* How many chains the driver has ever offered (avail.idx), those that were not taken yet included.
 */
uint16_t vq_offered(const struct virtqueue *q);
/* Ask for a kick when it offers one more than `idx`. True: it has already. */
bool vq_arm_past(struct virtqueue *q, uint16_t idx);
/* Has the driver looked at all that was published? Its used_event says so, when it has nothing left
 * to do (2.7.7.1). Without event indexes it does not say, and the answer is yes. */
bool vq_seen(const struct virtqueue *q);

#endif
