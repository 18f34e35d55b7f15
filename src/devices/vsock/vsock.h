/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-vsock (virtio 1.2, 5.10): streams between the guest and AF_UNIX sockets of the host, or
 * named pipes.
 *
 *   control thread   registers, and messages: what the supervisor sends goes to the I/O thread,
 *                    what the I/O thread wants from the supervisor goes out (the mailbox)
 *   I/O thread       queues, connections (vsock_conn.h), and their descriptors: in one epoll set;
 *                    on Windows the requests that are under way on them
 *
 * The process holds streams that others have connected, and accepts on one socket (on Windows the
 * supervisor does, and sends each client). It can read, write, shut down and close them: writev()
 * and readv() carry no descriptors, so even a helper that was taken over cannot pass on what it
 * holds.
 *
 * Restart: the connections die with the process that held them. The next one says so on the event
 * queue (5.10.6.7), and the driver ends its sockets. Until the driver has put that event's buffer
 * back, its packets may belong to connections that are gone. A reset would be the wrong answer:
 * Linux takes it for an orderly end, and half a stream would look whole. So they are dropped,
 * except for requests; and nothing is sent to the guest, because a connection that opened now would
 * end with the old ones.
 *
 * With VSOCK_VHOST the streams are the kernel's (vsock_vhost_linux.c): what is said above of them
 * and of packets is not said of those. The event queue and its I/O thread are here.
 */
#ifndef DEVICES_VSOCK_H
#define DEVICES_VSOCK_H

#include <pthread.h>

#include "vsock_start.h"
#include "vsock_conn.h"
#include "devices/kvhost.h"
#include "devices/worker.h"

#define VSOCK_TAG 0x314b5356u /* "VSK1" */
enum vsock_queue { VSOCK_RX, VSOCK_TX, VSOCK_EVENT };

#define VSOCK_TX_BUDGET 64u       /* packets of the guest in one turn, */
#define VSOCK_TX_BYTES (1u << 20) /* with so many bytes; */
#define VSOCK_RX_BUDGET 64u       /* connections that have a turn for the guest, */
#define VSOCK_RX_BYTES (1u << 20) /* with so many bytes */
#define VSOCK_ACCEPTS 64u         /* new clients in one turn */
#define VSOCK_EVENTS 64u          /* of one epoll_wait() */
#define VSOCK_MAX_STREAMS 64u     /* MSG_VSOCK_STREAM, MSG_VSOCK_CLIENT that were not looked at */
#define VSOCK_LOOK_NS 1000000000u /* for the driver to look at what the last process has sent */
#define VSOCK_LOOK_MS 10          /* how often to see whether it has */
#define VSOCK_MAIL (VSOCK_MAX_STREAMS + VSOCK_MAX_ASKED)

/* One message of the supervisor, or one for it. Descriptors belong to the mail. */
struct vsock_mail {
	enum msg_type type;
	uint32_t id, port;
	int error, fd;
};

struct vsock_box {
	pthread_mutex_t lock; /* held for a copy; no other lock is taken under it */
	unsigned first;
	_Atomic unsigned n;
	struct vsock_mail mail[VSOCK_MAIL];
};

struct vsock_held { /* a buffer of the guest's that was taken, and not used yet */
	uint16_t head;
	unsigned niov;
	uint64_t len;
	struct iovec iov[VQ_MAX_NUM];
};

/* How far the driver has come to know that its connections are gone. */
enum vsock_reset {
	VSOCK_RESET_NONE,
	VSOCK_RESET_OWED, /* the event has to be given */
	VSOCK_RESET_TOLD, /* its buffer has to come back */
};

struct vsockdev {
	struct worker w; /* first */
	struct msg_start_vsock conf;
	struct virtio_vsock_config config;
	struct helper_ops ops;    /* for helper_attach(); dev is the vsockdev */
	int mail_fd, listen_fd;   /* listen_fd: -1 for none */
	struct vsock_box in, out; /* control -> I/O (mail_fd), I/O -> control (h->event_fd) */

	/* the I/O thread's */
	struct vsock_host *host; /* what the system keeps of the ends */
	struct vconns conns;
	enum vsock_reset reset;     /* the control thread's while this one is quiet */
	uint16_t told_at;           /* TOLD: what the driver had offered by then */
	uint64_t tell_by;           /* OWED: at the latest, */
	const struct virtqueue *rx; /* or when the driver has looked at all of this */
	bool clients;               /* there may be some to be accepted */
	bool retry;                 /* accepting failed for want of something: later */
	uint32_t started;           /* w.seen of the last start */
	uint64_t next_tick;
	unsigned first, nheld;
	struct vsock_held held[VCONN_MAX_BUFS];
	struct iovec iov[VQ_MAX_NUM];

	/* with VSOCK_VHOST */
	struct kvhost vhost;
	struct virtqueue lent_rx; /* the I/O thread's, to look at */
	bool due_said;            /* the I/O thread's */
	_Atomic uint32_t due;     /* I/O -> control: the rings are due, of this start; 0: none */
};

/* Is this a message that can be obeyed? -EINVAL says what is not. */
int vsock_check_conf(const struct msg_start_vsock *m, struct err *e);
/* `d` is all zeros: to clear it here would touch the whole table. The
 * descriptors of its start message are taken over. *step is what failed. */
int vsockdev_open(struct vsockdev *d, struct helper *h, const struct msg_start_vsock *m,
		  const struct start_fds *f, const char **step, struct err *e);
void vsock_rules(const struct vsockdev *d, struct rule_list *l);
/* What the driver sees, when the I/O thread is there. */
void vsock_describe(struct vsockdev *d);

/* ---- vsock_box.c ---- */
void vsock_box_init(struct vsock_box *b);
/* False: it is full. */
bool vsock_box_put(struct vsock_box *b, const struct vsock_mail *m);
bool vsock_box_get(struct vsock_box *b, struct vsock_mail *m);

/* ---- vsock_io.c: the I/O thread ---- */
void *vsock_io_main(void *arg);
/* One turn without a wait. True: there is more to do at once. */
bool vsock_turn(struct vsockdev *d);
/* Ask for kicks where something is wanted. For how many ms to sleep; -1: until something comes. */
int vsock_rest(struct vsockdev *d);
/* To the control thread: ask the supervisor for the other end (vconn_ops.ask). */
void vsock_ask(struct vsockdev *d, uint32_t id, uint32_t port);

/* ---- vsock_event.c: the I/O thread ---- */
/* The queues run. `rx`, where it is looked whether the driver has seen what the last process has
 * sent, stays the caller's. */
void vsock_event_begin(struct vsockdev *d, const struct virtqueue *rx);
/* Go on telling it, as far as it has come. */
void vsock_event_serve(struct vsockdev *d);
/* Ask for a kick where one is wanted. True: the driver has something for vsock_event_serve()
 * already. */
bool vsock_event_arm(struct vsockdev *d);
/* How long to sleep at most, if nothing comes; `ms` if it does not matter here. */
int vsock_event_ms(const struct vsockdev *d, int ms);

/* ---- vsock_host_linux.c, vsock_host_win.c: the host's ends, for the I/O thread ---- */
extern const struct vconn_ops vsock_host_ops; /* ctx is the vsockdev */
/* Before the thread: kicks, mail and listen_fd are there. */
int vsock_host_open(struct vsockdev *d, struct err *e);
/* d->clients: take new ones, a bounded number. It is unset when there are no more; d->retry is set
 * if that has failed for want of something. */
void vsock_accept(struct vsockdev *d);
/* Wait for events, at most `timeout` ms, and hand them on to the connections. */
void vsock_wait(struct vsockdev *d, int timeout);

/* ---- vsock_vhost_linux.c: VSOCK_VHOST (Windows: refused) ---- */
/* The page and memory are mapped. Takes the descriptor over. */
int vsock_vhost_open(struct vsockdev *d, int fd, const char **step, struct err *e);
void vsock_vhost_rules(const struct vsockdev *d, struct rule_list *l);

#endif
