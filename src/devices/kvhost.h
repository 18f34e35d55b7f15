/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings of a device that the host's kernel serves (vhost-net, vhost-vsock), some of its queues, one
 * behind the other: from the start of the driver to its end a worker of the kernel's works in them.
 * This process answers registers.
 *
 * Before the jail is sealed it says whose memory the worker sees (its own: guest memory, as it is
 * mapped here). After that it can say of the rings what the driver has said of them, and which
 * events are their doorbells and interrupts.
 *
 * The kernel answers in order, and has answered all that it has taken when it is stopped, or closed
 * by our death: a descriptor is nobody else's, so it is closed before the next process starts. So a
 * ring goes on at used.idx, and the page needs no record of what is in flight.
 *
 * Linux alone. Unless it says otherwise: the control thread, sealed. 0 or a negative errno; *what
 * is the step that failed.
 */
#ifndef DEVICES_KVHOST_H
#define DEVICES_KVHOST_H

#include "devices/worker.h"

struct kvhost {
	const char *name; /* "vhost-net": for messages */
	struct worker *w;
	unsigned first, nrings; /* ring i is queue first + i */
	uint64_t features;      /* that the kernel is told of */
	int fd;                 /* owned: of /dev/vhost-... */
	int err_fd;             /* owned: the kernel signals that a ring cannot be */
};

/* Not sealed yet, and memory is mapped. Takes the descriptor over. The kernel must know all of
 * `features`. */
int kvhost_open(struct kvhost *k, const char *name, struct worker *w, int fd, unsigned first,
		unsigned nrings, uint64_t features, struct err *e);
void kvhost_rules(const struct kvhost *k, struct rule_list *l);

/* The driver is there, and no ring is served: those of its features that are the kernel's. */
int kvhost_features(const struct kvhost *k, const char **what);
/* Has the driver made ring i ready? */
bool kvhost_is_ready(const struct kvhost *k, unsigned i);
/* All of ring i but its doorbell. */
int kvhost_ring(const struct kvhost *k, unsigned i, const char **what);
/* The doorbell comes last, when there is a worker that hears it: what was rung before is heard
 * then, because nobody drains it. */
int kvhost_kick(const struct kvhost *k, unsigned i, const char **what);
/* A request with a ring and a descriptor (-1: none). */
int kvhost_file(const struct kvhost *k, unsigned long request, unsigned i, int fd);
/* A step has failed: the device needs a reset. */
void kvhost_failed(const struct kvhost *k, const char *what, int rc);

/* The worker has let go of the rings, or not (rc): no doorbells. What cannot be stopped ends this
 * process. */
void kvhost_stopped(const struct kvhost *k, int rc);
/* This queue, which runs, interrupts by another vector. If it is none of the rings: nothing. */
void kvhost_vector(const struct kvhost *k, unsigned queue);

/* The I/O thread: wait as lane_wait() does, for one of the `nextra` that p[] has, which has room
 * for `n` more, and for `n` of these: a ring that cannot be is a fault of the lane. */
unsigned kvhost_wait(const struct kvhost *k, unsigned n, struct lane *l, struct pollfd *p,
		     unsigned nextra, int timeout);

#endif
