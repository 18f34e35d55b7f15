/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-vhost: a virtio device whose queues another program serves, the back end, over the
 * vhost-user protocol.
 *
 * The helper serves the registers, like every other one. It gives the back end guest memory, the
 * queues' doorbells and their vectors' events, and from then on has nothing to do with a
 * request: the guest's doorbell is the back end's kick, the back end's call is the guest's
 * interrupt. One thread, the control thread; what it says to the back end it says with a deadline
 * that is shorter than the core's.
 *
 *   NOBODY   there is no connection: the supervisor is looking for one. Registers are answered, the
 *            guest's doorbells stay latched in their events, its requests wait in the rings
 *   HELLO    there is one, and its first answer (GET_FEATURES) is awaited, without blocking: it may
 *            stand in the queue of a back end that is still busy with the last connection
 *   UP       the back end is known and fit; while the driver is there, the rings are its own
 *
 * Anything that goes wrong with the connection ends it: NOBODY, and the supervisor is told. The
 * next one, of the same back end, of its successor, or of another one, gets all state again. So it
 * is after a death of this process, but that the next one begins with the connection that was
 * there, on which it takes the rings back. Where the rings go on: vhost_ring.h, or the back end's
 * own account (INFLIGHT_SHMFD), whose memory is kept for it, by the supervisor too.
 *
 * A restarted helper does not need the back end to answer registers: what the back end has said of
 * itself (features, configuration) is in the device page. The first one waits for it before it is
 * ready, so that no guest sees a device without features.
 */
#ifndef DEVICES_VHOST_H
#define DEVICES_VHOST_H

#include "devices/virtio/front.h"
#include "vhost_link.h"
#include "vhost_page.h"

/* Of the 2 s that a vCPU waits: a connection that is being set up when it comes, then its own. */
#define VHOST_SETUP_MS 700u
#define VHOST_CALL_MS 1100u
/* For a snapshot, while no vCPU waits for this device: what a back end has in flight ends, of the
 * 10 s that each device has for that; then it gives what it holds. And to take it, at a restore. */
#define VHOST_REST_MS 7000u
#define VHOST_HELD_MS 20000u

enum vhost_is { VHOST_NOBODY, VHOST_HELLO, VHOST_UP };

struct vhost {
	struct helper *h;
	struct msg_start_vhost conf;
	struct guestmem gm;
	struct virtio_front front;
	struct virtio_model model;
	struct vhost_state *st;
	struct vhost_link link;
	enum vhost_is is;
	uint64_t features;          /* of the back end that is UP */
	uint64_t protocol;          /* what of the protocol was agreed with it */
	size_t config_len;          /* bytes of configuration that the guest sees */
	bool told;                  /* the supervisor knows that there is nobody */
	bool ready;                 /* MSG_READY was sent: it may be told things */
	bool saves;                 /* MSG_SAVE has come, and MSG_QUIET follows */
	bool rests;                 /* the back end has no ring until MSG_RESUME */
	unsigned setup_ms, call_ms; /* VHOST_SETUP_MS, VHOST_CALL_MS; others in tests */
	unsigned rest_ms, held_ms;  /* VHOST_REST_MS, VHOST_HELD_MS; likewise */

	int mem_fd[START_MAX_SLOTS]; /* owned, as all that follow */
	unsigned nmem;
	int kick_fd[VIRTIO_MAX_QUEUES];
	int ep_fd;            /* what the control thread waits for besides its events */
	int err_fd;           /* the back end signals: a ring is broken */
	int inflight_fd;      /* its number never changes: conf.inflight says whether it is one */
	int held_fd, pipe_fd; /* nor do theirs: memory with what the back end holds, and our end of
			       * the pipe through which it goes; err_fd keeps them */
	int channel;          /* borrowed: to the supervisor */
	uint64_t connections, lost;
};

extern const struct helper_ops vhost_helper_ops; /* dev is the vhost */

/* Is this a message that can be obeyed? -EINVAL says what is not. */
int vhost_check_conf(const struct msg_start_vhost *m, struct err *e);
/* The descriptors of its start message are taken over. *step is what failed. Says nothing to the
 * back end yet. */
int vhostdev_open(struct vhost *v, struct helper *h, int channel, const struct msg_start_vhost *m,
		  const struct start_fds *f, const char **step, struct err *e);
void vhost_rules(const struct vhost *v, struct rule_list *l);
/* Sealed. Waits for the back end if the page does not say what it is (as long as the supervisor
 * lets us), then helper_attach(). */
int vhost_attach(struct vhost *v, struct err *e);

/* What is said to the back end from now on waits no longer than this. */
void vhost_limit(struct vhost *v, unsigned ms);
/* The connection is of no use any more. */
void vhost_drop(struct vhost *v, const struct err *e);
/* It gets the rings, if there is a driver. */
void vhost_go(struct vhost *v);

/* ---- vhost_back.c: what is said to the back end ---- */

/* Its first answer is there: all questions, up to its configuration, into `features`, `protocol`
 * and `config`. 0, or a negative errno and a line: it is not fit. */
int vhost_meet(struct vhost *v, uint8_t config[VHOST_CONFIG_MAX], struct err *e);
/* What the guest is offered of it. */
uint64_t vhost_offer(const struct vhost *v);
/* Give it everything, and let it run the rings that are ready. -EINVAL: the guest's rings are not
 * what they must be; anything else: the connection. */
int vhost_run(struct vhost *v, struct err *e);
/* Take the rings back. */
int vhost_halt(struct vhost *v, struct err *e);
int vhost_get_config(struct vhost *v, uint8_t config[VHOST_CONFIG_MAX], struct err *e);
int vhost_set_config(struct vhost *v, unsigned off, unsigned len, struct err *e);
/* Ring i, which is its own, interrupts by another vector. */
int vhost_set_call(struct vhost *v, unsigned i, struct err *e);
/* No back end has begun anything: forget the account of what one has. */
void vhost_forget_inflight(struct vhost *v);
/* Was this agreed with it? */
bool vhost_speaks(const struct vhost *v, unsigned protocol_feature);

/* ---- vhost_held.c: what it holds besides the rings ---- */

/* A descriptor takes the place of one of the two numbers, and is closed; -1: none. */
void vhost_place(const struct vhost *v, int fd, int number);
/* As in struct helper_ops; `dev` is the vhost. */
void vhost_quiet(void *dev);
void vhost_go_on(void *dev);
/* A new one, which has no rings yet, gets what is in held_fd. */
int vhost_load(struct vhost *v, struct err *e);

#endif
