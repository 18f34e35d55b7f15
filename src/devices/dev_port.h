/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper's side of a device page (insula/devpage.h): posted writes in, calls answered.
 *
 * Nothing here sleeps, makes a system call (but the futex wake of a core that waits) or knows what
 * device it serves. Everything that the core wrote is hostile: it is copied once and checked.
 *
 * A helper that was killed leaves its ring_tail and ack_seq in the page; the next one starts there.
 * A write or call that was executed but not yet counted is executed a second time, so a device's
 * writes have to be idempotent.
 */
#ifndef DEVICES_DEV_PORT_H
#define DEVICES_DEV_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/devpage.h>
#include <insula/err.h>

/* The registers of a device. All are called by the one thread that calls port_run(). off and size
 * are what the core says: size is 1, 2, 4 or 8, off can be anything. */
struct dev_ops {
	void (*write)(void *dev, uint32_t off, uint32_t size, uint64_t val);
	uint64_t (*read)(void *dev, uint32_t off, uint32_t size);
	/* Bring the shadow registers and interrupts up to date: after posted writes and, before the
	 * core hears the answer, after a call. */
	void (*settle)(void *dev);
	/* The core gave up on accesses: the registers may not be what the guest thinks. May be
	 * NULL. */
	void (*lost)(void *dev);
};

/* The head of DP_STATE: whose state it is. The device's own state follows at DP_STATE_OFF +
 * PORT_STATE_LEN. */
struct port_state {
	uint32_t magic; /* PORT_STATE_MAGIC once the state is valid; a new page is all zeros */
	uint32_t tag;   /* which device and which layout of its state */
	uint32_t lost;  /* dp_ctrl.lost as far as it has been dealt with */
	uint32_t pad;
};
#define PORT_STATE_MAGIC 0x31534449u /* "IDS1" */
#define PORT_STATE_LEN 64u
#define PORT_DEV_STATE_SIZE (DP_STATE_SIZE - PORT_STATE_LEN)

struct dev_port {
	uint8_t *shadow; /* DP_SHADOW_SIZE bytes */
	void *dev_state; /* PORT_DEV_STATE_SIZE bytes */
	bool resumed;    /* dev_state holds what an earlier helper left */

	struct dp_ctrl *ctrl;
	const struct dp_post *ring;
	struct port_state *state;
	uint32_t tail, ack; /* our own copies: never read back */
	const struct dev_ops *ops;
	void *dev;
	int answer_event; /* for word_wake_shared(); -1 or the program's */
	uint64_t calls, posted;
};

/* Take over a mapped page of DP_SIZE bytes (it stays the caller's). -EPROTO: not a device page,
 * broken indices, or the state of another device. */
int port_open(struct dev_port *p, void *page, uint32_t tag, struct err *e);
/* The device has set up its state: from now on it is what a restart carries on from. */
void port_attach(struct dev_port *p, const struct dev_ops *ops, void *dev);

/* Execute what is posted (at most DP_RING_LEN writes) and then the call, if there is one. The
 * number of things done, or -EPROTO if the core broke the protocol: the page must not be used any
 * more. */
int port_run(struct dev_port *p);

/* Announce sleep. False: there is something to do (and the announcement is withdrawn). After true
 * the caller waits on the call event and calls port_awake(). */
bool port_may_sleep(struct dev_port *p);
void port_awake(struct dev_port *p);

#endif
