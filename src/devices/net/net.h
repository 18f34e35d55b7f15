/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-net (virtio 1.2, 5.1) over a TAP or a stream socket.
 *
 *   control thread   registers, configuration space (net.c)
 *   I/O threads      some pairs of queues and their backings each; the first one also the control
 *                    queue (net_io.c; net_rx.c, net_tx.c, net_ctrl.c)
 *
 * Pair i belongs to lane i modulo the number of lanes, which is the number of pairs or, if there
 * are fewer, of the guest's processors. A lane serves both directions: a turn takes at most
 * NET_BUDGET frames or NET_BUDGET_BYTES in each direction of each pair, so that neither starves the
 * other. With a TAP, frames move between guest memory and the kernel without a copy of ours, except
 * for the part of a received frame that has come before the guest had buffers enough for it.
 *
 * Lock: `turn` of each lane, held by the lane during its turn, so never waited for on the way of a
 * frame. Lane 0 takes those of the others behind its own when a command changes what all go by. A
 * lane with more to do takes its `turn` again at once, and a mutex is not fair: so each goes through
 * a `gate` to it, which lane 0 keeps while it waits.
 *
 * Frames may be lost or, when a process dies, sent twice; what the guest gave is always given back.
 *
 * A stream that ends takes the link down and not the device: what the guest sends is dropped, its
 * buffers wait, registers and commands are answered. Lane 0 notices the end
 * (net_lost()), the control thread tells the guest and the supervisor (MSG_NET_LOST), gets the next
 * stream (MSG_NET_PEER) and leaves it in `next`, where the lane takes it before its turn.
 *
 * With several pairs, the backing's queues that have no active pair are received by the active
 * ones: a frame of queue i goes to pair i modulo the number of active pairs.
 *
 * With NET_VHOST the pairs are the kernel's while the driver is there, and the one lane serves the
 * control queue (net_vhost.c): what is said above of frames is not said of those.
 *
 * With NET_METADATA there is one backing more, for frames to and from 169.254.169.254, on whichever
 * pair the guest sends them (net_metadata.c).
 */
#ifndef DEVICES_NET_H
#define DEVICES_NET_H

#include "net_page.h"
#include "net_start.h"
#include "devices/bucket.h"
#include "devices/kvhost.h"
#include "net_backing.h"
#include "net_policy.h"
#include "devices/worker.h"

#define NET_BUDGET 64u                /* frames of one direction of one pair in one turn, */
#define NET_BUDGET_BYTES (512u << 10) /* or about so many bytes */
#define NET_RX_IOVS 768u              /* segments of receive buffers that are held at once */
#define NET_MIN_MTU 68u               /* 5.1.4.1 */
#define NET_MAX_MTU 65535u
#define NET_MAX_COMMAND 1024u /* bytes of one command; more: two tables of 64 addresses fit */
#define NET_COMMANDS 16u      /* of one turn */
#define NET_MAX_BACKINGS (NET_MAX_PAIRS + 1) /* one for each pair, and insula-metadata */

/* Receive buffers of one queue that were taken and not used yet, in order, and a frame that waits
 * for more of them. */
struct net_rx {
	struct virtqueue *q;
	struct {
		uint16_t head, niov;
		uint64_t len;
	} buf[VQ_MAX_NUM];
	unsigned nbuf, niov;
	uint64_t bytes;  /* of all of them */
	size_t want;     /* take buffers until there are so many bytes */
	size_t held;     /* length of the frame that waits; 0: none */
	size_t in_guest; /* so much of it is in the buffers already */
	struct iovec iov[NET_RX_IOVS + VQ_MAX_NUM + 1];
	uint8_t spill[NET_MAX_PACKET]; /* the rest of it */
};

/* The frame of one transmit queue that is being sent. */
struct net_tx {
	struct virtqueue *q;
	bool held; /* the backing did not take it yet */
	uint16_t head;
	unsigned n; /* iov[1] to iov[n] are the frame */
	size_t len;
	struct virtio_net_hdr_v1 hdr;
	struct iovec iov[2 + VQ_MAX_NUM];
	uint8_t head_copy[NET_POLICY_HEAD]; /* with a policy: iov[1] */
};

/* Of one direction of the device. The lock is for lanes that take from it side by side; where there
 * is no limit nobody touches it. */
struct net_limit {
	pthread_mutex_t lock;
	_Atomic bool on;
	struct bucket bytes, frames;
};

/* The card's policy. The lock is for all but `names`, which has one of its own. */
#define GUARD_FOUND 64u
struct net_guard {
	pthread_mutex_t lock;
	struct net_policy policy;
	_Atomic uint32_t version;
	struct net_names names;
	struct msg_net_denied denied; /* since the last MSG_NET_DENIED */
	uint64_t told_ns;
	struct msg_net_name found[GUARD_FOUND]; /* to be told */
	unsigned nfound;
};

/* One I/O thread. */
struct net_lane {
	struct net *n;
	struct lane *l;
	pthread_mutex_t gate, turn;
	unsigned active;          /* n->st->npairs in the last turn */
	uint32_t started;         /* l->seen of the last start */
	struct net_policy policy; /* as of */
	uint32_t policy_version;
};

struct net {
	struct worker w; /* first: the dev of the model is the worker */
	struct msg_start_net conf;
	struct helper_ops ops;
	struct virtio_net_config config; /* control thread's */
	struct net_state *st;
	bool lost;              /* control thread's: MSG_NET_PEER may come */
	_Atomic uint32_t told;  /* enum net_news from an I/O thread to the control thread */
	_Atomic bool link_down; /* an I/O thread says so */
	_Atomic int next;       /* 1 + the stream that lane 0 shall go on with; 0: none */
	unsigned nlanes;
	struct net_lane lane[NET_MAX_PAIRS];

	/* set before a start; of st, lane 0's between the turns of the others */
	uint64_t features; /* negotiated */
	unsigned npairs;   /* that the driver may use */
	unsigned nbackings;
	struct net_backing backing[NET_MAX_BACKINGS];
	struct net_backing *metadata; /* the last of them; NULL: the card has none */
	struct net_rx *rx;            /* [npairs] */
	struct net_tx *tx;
	struct net_limit rx_limit, tx_limit;
	struct net_guard guard;
	struct kvhost vhost[NET_MAX_PAIRS]; /* with NET_VHOST */
};

enum net_news {
	NET_NEWS_MAC = 1,
	NET_NEWS_LINK = 2,
	NET_NEWS_LOST = 4,
	NET_NEWS_DENIED = 8,
	NET_NEWS_NAMES = 16
};

/* Takes the descriptors of its start message over. Maps memory, starts the thread,
 * does not serve yet. *step is what failed. helper_attach() with &n->ops. */
int net_open(struct net *n, struct helper *h, const struct msg_start_net *m,
	     const struct start_fds *f, const char **step, struct err *e);
void net_rules(const struct net *n, struct rule_list *l);
/* Is this a message that can be obeyed? -EINVAL says what is not. */
int net_check_conf(const struct msg_start_net *m, struct err *e);
uint64_t net_features(const struct msg_start_net *m);

/* ---- net_io.c: an I/O thread; arg is the lane ---- */
void *net_io_main(void *arg);
/* Lane i of n->nlanes. */
void net_lane_init(struct net *n, unsigned i);
/* Once, of n->conf: a driver that starts again gets no more for it. */
void net_limits_init(struct net *n);
/* Other ones, at any time; 0: none. */
void net_limits_set(struct net *n, const struct msg_limit *m);
/* The driver is there, and no lane runs yet: what all of them go by. */
void net_prepare(struct net *n);
/* One turn: the queues of the lane, each within its budget. True: there is more to do at once. */
bool net_turn(struct net_lane *l);
/* Sleep until something can be done. */
void net_wait(struct net_lane *l);
/* The backing's other side is gone: the link is down. */
void net_lost(struct net *n, struct net_backing *b, int rc);
void net_tell(struct net *n, uint32_t news); /* enum net_news */
bool net_has(const struct net *n, unsigned feature);
/* Does the limit let a frame through now? */
bool net_allowed(struct net_limit *l);
/* One of `len` bytes passed. */
void net_passed(struct net_limit *l, size_t len);

/* ---- net_rx.c ---- */
void net_rx_start(struct net_lane *l, struct net_rx *r, struct virtqueue *q);
/* Receive from `b` into the buffers of `r`. True: the budget is used up. */
bool net_rx_serve(struct net_lane *l, struct net_rx *r, struct net_backing *b);
/* Only more buffers of the guest help. */
bool net_rx_starved(const struct net_rx *r);
/* May a frame with this header be given to the guest? */
bool net_rx_header(uint64_t offloads, const struct virtio_net_hdr_v1 *h);

/* ---- net_tx.c ---- */
void net_tx_start(struct net_lane *l, struct net_tx *t, struct virtqueue *q);
bool net_tx_serve(struct net_lane *l, struct net_tx *t, struct net_backing *b);
/* Check the header of a frame of `len` bytes against what was negotiated, and clear what means
 * nothing. False: do not send it. */
bool net_tx_header(uint64_t features, struct virtio_net_hdr_v1 *h, size_t len);

/* ---- net_guard.c ---- */
void net_guard_init(struct net *n);
/* Control thread: from now on. -EPROTO. */
int net_guard_set(struct net *n, const struct net_policy *p);
/* Control thread: tell the supervisor. */
void net_guard_say(struct net *n, uint32_t news);
/* A lane, before its turn: the newest policy is its own. */
void net_guard_turn(struct net_lane *l);
/* May this frame go? Then its head is a copy. */
bool net_guard_lets(struct net_lane *l, struct net_tx *t);
/* Are answers of the resolver looked at? Then each frame that comes is shown, from memory that the
 * guest cannot write to. */
bool net_guard_reads(const struct net_lane *l);
void net_guard_sees(struct net_lane *l, const uint8_t *frame, size_t len);

/* ---- net_vhost.c: NET_VHOST. The control thread ---- */
static inline bool net_is_vhost(const struct net *n)
{
	return n->conf.flags & NET_VHOST;
}
/* virtio_model.lent */
uint32_t net_vhost_lent(const void *dev);
/* Not sealed yet, and memory is mapped. Takes the descriptors over, one for each pair. */
int net_vhost_open(struct net *n, const int *fds, struct err *e);
void net_vhost_rules(const struct net *n, struct rule_list *l);
/* So many queues of the TAP get frames, and the others none, however they are now. Before a lane
 * runs, or the lane. */
int net_vhost_queues(const struct net *n, unsigned pairs);
/* After net_prepare() and that, which has returned `rc`: the rings are the kernel's. If it does not
 * want them, the device needs a reset. */
void net_vhost_start(struct net *n, int rc);
/* They are not any more. */
void net_vhost_stop(const struct net *n);

/* ---- net_ctrl.c ---- */
bool net_ctrl_serve(struct net_lane *l, struct virtqueue *q);
/* One command (class, command, data; `len` bytes): VIRTIO_NET_OK or VIRTIO_NET_ERR. */
uint8_t net_command(struct net *n, const uint8_t *cmd, size_t len);

#endif
