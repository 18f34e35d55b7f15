/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user device as the supervisor holds it: who makes the connections to its back end.
 *
 * The helper (insula-vhost) can neither open nor connect anything. Every helper gets a connection
 * of its own with its start; when that ends the helper lives on, says so, and gets the next one
 * when there is one. If a helper dies and its back end does not, the next helper first takes the
 * rings back on the connection that was there. What makes connections is `connect`: for --device
 * the path of a socket (vhost_open()), for others whatever they like, such as a program that they
 * start.
 *
 * It is asked for a connection at first after 10 ms, in the end every `patience_ms`, at moments of
 * chance, so that many VMs behind one back end do not ask at once.
 *
 * Whoever makes such a device: fill in the first part of struct vhost_back, and vhost_init() it;
 * vm_add_device() with device_vhost and `nqueues`; d->back.vhost. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_VHOST_H
#define SUPERVISOR_VHOST_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#include "devices/vhost/vhost_start.h"
#include "spec/config.h"

struct child;

struct vhost_back {
	/* whoever makes the device says: */
	uint32_t device_id;          /* virtio 1.2, 5: 26 is a file system */
	unsigned nqueues;            /* all of them: of a file system one more than for requests */
	char tag[VHOST_TAG_LEN + 1]; /* of a file system; "": the back end's own */
	unsigned config_len;         /* bytes of configuration that the back end has; 0: none */
	uint8_t mac[6];              /* of a network card; all zero: the guest chooses */
	bool always_flushes;         /* a disk: the guest may not switch its write cache off */
	bool keeps_account;          /* it has INFLIGHT_SHMFD, though it does not offer it */
	const char *where;           /* what is at the other end, for messages; borrowed */
	unsigned patience_ms;        /* between two tries at the most; 0: VHOST_PATIENCE_MS */
	/* A new connected stream socket, the caller's, or a negative errno with a line. -EAGAIN,
	 * -ECONNREFUSED: nobody is there now. Before the guest runs any other error ends the VM;
	 * later all of them are tried again. Must not block. */
	int (*connect)(struct vhost_back *b, struct err *e);
	void *ctx; /* connect()'s own */
	/* A program that was started as the back end, for its log and its end (device_class.peer),
	 * and how many were; NULL, 0: it is not ours. */
	struct child *peer;
	unsigned peers;
	/* clock_ns(): the peer that is just started is ended if its device is not ready by then,
	 * for it waits for somebody else; 0: never. connect() sets it. */
	uint64_t ready_by_ns;
	bool loads; /* the next one goes on from a snapshot, with what the last one held */

	/* vhost.c's: */
	const struct vhost_config *conf; /* of --device; borrowed */
	int listener;                    /* of --device ...,server; owned, or -1 */
	uint64_t dev, ino;               /* what was bound, so that nothing else is removed */
	int had;      /* owned, or -1: the helper's connection, for the next one */
	int inflight; /* owned, or -1: see struct vhost_inflight */
	struct vhost_inflight region;
	bool waits;          /* there may be nobody at the start: the VM waits */
	bool away;           /* there is no back end */
	unsigned backoff_ms; /* the last one; 0: none yet */
	uint64_t due_ns;     /* away: when to try the next time */
	uint64_t up_ns;      /* when the last connection began */
};

#define VHOST_PATIENCE_MS 5000u

/* After the first part was filled in. */
void vhost_init(struct vhost_back *b);
/* Of --device: check the path, and listen if it says so; with `check_only` nothing is made. A line
 * for people; on error nothing is left open. */
int vhost_open(struct vhost_back *b, const struct vhost_config *c, bool check_only, struct err *e);
/* Close what is open; for both. No-op after vhost_init(). */
void vhost_close(struct vhost_back *b);

/* A connection for a new helper (the caller closes it). With b->away set it has no other end, or,
 * if *had, is the one that the last helper had. An error is none that time would mend. Does not
 * block. */
int vhost_stream(struct vhost_back *b, bool *had, struct err *e);
/* The helper's connection has ended. False: it had none. */
bool vhost_lost(struct vhost_back *b);
/* When vhost_retry() wants to be called, clock_ns(); 0: not now. */
uint64_t vhost_due(const struct vhost_back *b);
/* The next connection for the helper (the caller closes it), or a negative errno: it will be tried
 * again. Does not block. */
int vhost_retry(struct vhost_back *b, struct err *e);
/* What the next helper needs; takes `fd` over (-1: none). False: that cannot be. */
bool vhost_keep(struct vhost_back *b, const struct vhost_inflight *region, int fd);

#endif
