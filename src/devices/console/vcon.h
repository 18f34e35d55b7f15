/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-console (virtio 1.2, 5.3): one port, hvc0 of Linux, on the host's ends of a console
 * (ends.h). No feature of its own: no further ports, no size of the terminal.
 *
 *   control thread   registers, messages
 *   I/O thread       the two queues; it is the "device's thread" of the ends
 *
 * Output goes from the guest's buffers into the output ring, and a buffer is given back when all of
 * it is there: the ring lies in the device page, so it cannot be lost any more, and a write() that
 * never returns holds up nobody but the output thread. If the ring is full, the buffer waits, and
 * a processor of the guest with it: Linux spins until its buffer is used. So when nothing has left
 * the ring for VCON_DEAF_NS, the rest of the buffer is dropped and the buffer given back, and each
 * one that comes until the host reads again: one wait for each time that it does not.
 *
 * Input waits in its ring until the guest offers a buffer.
 *
 * Input waits until the guest has sent something, too: Linux throws away what comes between its
 * first buffers and the moment that hvc0 is there, and its first output is later than that. A guest
 * that only listens gets it VCON_QUIET_NS after it has started the queues; but not input that is a
 * stream for insula-init (UART_STREAM), which speaks when it is ready.
 *
 * Restart. A buffer that was in work is handed out again (virtqueue.h). How much of it had been
 * moved is in struct vcon_mark, stored in one piece before the first byte moves:
 *
 *   output   `seq` is the buffer's place in the used ring, `at` where it begins in the output ring.
 *            The ring's head minus `at` is what is there already
 *   input    `seq` as above, `at` is where the input ring's tail will be. If the buffer has been
 *            published, the tail is moved there
 *
 * So whatever the moment of a kill, no byte is lost or doubled between the guest and the two rings.
 */
#ifndef DEVICES_VCON_H
#define DEVICES_VCON_H

#include "ends.h"
#include "devices/worker.h"

#define VCON_TAG 0x314e4356u          /* "VCN1" */
enum vcon_queue { VCON_RX, VCON_TX }; /* 5.3.2, of the first port */

#define VCON_QUIET_NS 2000000000ull
#define VCON_DEAF_NS (CONSOLE_DEAF_MS * 1000000ull)
#define VCON_BUDGET 64u         /* buffers of each queue in one turn, */
#define VCON_BYTES (256u << 10) /* with so many bytes of output */

/* In one word, so that it is never half of one and half of another. */
struct vcon_mark {
	uint32_t at;
	uint16_t seq;
	uint16_t pad;
};
_Static_assert(sizeof(struct vcon_mark) == 8, "one store");

/* In the device page, behind as much of struct virtio_state as two queues need. */
struct vcon_state {
	_Atomic uint64_t out_mark, in_mark; /* struct vcon_mark */
	struct ends_rings rings;
};
#define VCON_STATE_OFF (PORT_DEV_STATE_SIZE - sizeof(struct vcon_state))
_Static_assert(VCON_STATE_OFF % alignof(struct ends_rings) == 0, "aligned as its head is");
_Static_assert(offsetof(struct virtio_state, q) + VCON_QUEUES * sizeof(struct vq_state) <=
		       VCON_STATE_OFF,
	       "the state fits the page");

struct vcon {
	struct worker w; /* first */
	struct helper_ops ops;
	struct vcon_state *st;
	struct ends ends;

	/* the I/O thread's */
	bool strict;      /* input waits for the first output however long that takes */
	bool open;        /* the guest has sent something */
	uint64_t open_by; /* if not: input comes at this time */
	uint32_t started; /* lane->seen of the last start */
	bool held;        /* `out` was taken, and not all of it is in the ring */
	uint32_t moved;   /* bytes of it that are */
	bool full;        /* the ring was full, and its tail at `full_tail`; if it is still there */
	uint32_t full_tail;
	uint64_t full_until; /* at this time, the host does not read */
	struct vq_chain out;
	struct iovec out_iov[VQ_MAX_NUM], in_iov[VQ_MAX_NUM];
};

/* The descriptors of its start message are taken over. *step is what failed. */
int vcon_open(struct vcon *v, struct helper *h, const struct msg_start_uart *m,
	      const struct start_fds *f, const char **step, struct err *e);

/* One turn of the I/O thread. True: there is more to do at once. */
bool vcon_turn(struct vcon *v);
/* Ask for kicks and for room where something is wanted. For how many ms to sleep; 0: it is there
 * already; -1: until something comes. */
int vcon_rest(struct vcon *v);

#endif
