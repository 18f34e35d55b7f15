/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The connections of a virtio-vsock device (virtio 1.2, 5.10.6): a table of streams and what each
 * packet does to them. No descriptors, no queues, no clock: they are behind struct vconn_ops and
 * the caller's `now`.
 *
 *   packets of the guest     vconn_packet()       one at a time, header copied once
 *   packets for the guest    vconn_pending(), vconn_fill()
 *   the host's ends          vconn_client(), vconn_stream(), vconn_connected(), vconn_readable(),
 *                            vconn_writable()
 *   time                     vconn_tick()
 *
 * What goes to the guest is never queued as packets: each connection has a few bits that say what
 * it owes (`owes`), and connections that owe something, or have something to read, are in one list
 * and have their turns in order (round robin). So a guest that offers no buffers makes nothing
 * grow.
 *
 * Data of the host goes into the guest's buffers at once, as far as the guest's credit goes. Data
 * of the guest goes to the host at once; what the host does not take waits in the connection's
 * ring, whose size is the credit that the guest has (5.10.6.3).
 *
 * All counters of bytes run freely through 32 bits. Thread: one at a time.
 */
#ifndef DEVICES_VSOCK_CONN_H
#define DEVICES_VSOCK_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <linux/virtio_vsock.h>

#include <insula/proto.h>

/* The first so many slots of the table have big rings: few streams are fast, thousands of them take
 * no more than 156 MiB at worst. */
#define VCONN_BIG_RINGS 128u
#define VCONN_BIG_RING (256u << 10)
#define VCONN_SMALL_RING (32u << 10)
#define VCONN_RINGS_SIZE \
	(VCONN_BIG_RINGS * VCONN_BIG_RING + (VSOCK_MAX_CONNS - VCONN_BIG_RINGS) * VCONN_SMALL_RING)
/* Bytes of the rings of `max` connections. */
static inline size_t vconn_rings_size(unsigned max)
{
	size_t big = max < VCONN_BIG_RINGS ? max : VCONN_BIG_RINGS;

	return big * VCONN_BIG_RING + (max - big) * VCONN_SMALL_RING;
}
#define VCONN_BUCKETS 4096u
#define VCONN_STRAYS 64u   /* resets owed to nobody's connections */
#define VCONN_LINE 20u     /* "CONNECT 4294967295\n" has 19 */
#define VCONN_MAX_BUFS 16u /* of one vconn_fill() */
#define VCONN_MAX_IOVS 64  /* of one read or write of the host's end */
#define VCONN_HOST_CID 2u
#define VCONN_FIRST_PORT 0x40000000u /* of the host, for connections that it begins */
#define VCONN_LAST_PORT 0x7fffffffu

#define VCONN_HELLO_NS 5000000000u   /* the client's line is there */
#define VCONN_ANSWER_NS 10000000000u /* the guest, or the supervisor, has answered */
#define VCONN_LINGER_NS \
	60000000000u /* the host's end takes something of what a closed guest left */
#define VCONN_TICK_NS 500000000u

#define VCONN_NONE UINT16_MAX

enum vconn_shut { VCONN_SHUT_READ, VCONN_SHUT_WRITE };

enum vconn_state {
	VCONN_FREE,
	VCONN_HELLO,   /* a client of the host has not said yet where to; has no ports */
	VCONN_ASKING,  /* the guest's REQUEST; the supervisor looks for the other end */
	VCONN_CALLING, /* our REQUEST, or it is owed */
	VCONN_OPEN,
	VCONN_GONE,   /* closed by the host in both directions: waits for the guest's RST */
	VCONN_LINGER, /* closed by the guest: what it has sent goes out yet; has no ports */
	VCONN_DEAD,   /* owes its RST */
};

enum vconn_owes {
	OWES_RST = 1,
	OWES_REQUEST = 2,
	OWES_RESPONSE = 4,
	OWES_SHUTDOWN = 8,
	OWES_CREDIT = 16,         /* CREDIT_UPDATE */
	OWES_CREDIT_REQUEST = 32, /* once per stall */
};

enum vconn_list {
	VCONN_UNLISTED,
	VCONN_RUN, /* has something for the guest */
	VCONN_ASK, /* waits until the supervisor may be asked */
	VCONN_LISTS,
};

struct vconn {
	uint32_t guest_port, host_port;
	uint8_t state, owes;
	uint8_t guest_shut; /* VIRTIO_VSOCK_SHUTDOWN_*: what the guest will not do any more */
	uint8_t host_shut;  /* what the host will not do any more */
	bool readable;      /* a read may bring something */
	bool stalled;       /* there is something to read and no credit */
	bool greets;        /* the client is told "OK <port>\n" */
	bool dirty;         /* the ring was written to */
	bool watched;       /* vconn_writable() will be called */
	uint8_t listed;     /* enum vconn_list */
	uint8_t nline;
	uint16_t gen; /* of the slot: see vconn_id() */
	uint16_t prev, next;
	uint16_t hash_next;
	int fd; /* the host's end; -1: none. For the ops: not used here */
	uint32_t peer_alloc, peer_fwd, sent; /* host to guest: credit, and bytes */
	uint32_t received, fwd, told_fwd;    /* guest to host; received - fwd are in the ring */
	uint64_t deadline;                   /* 0: none */
	char line[VCONN_LINE];
};

/* The host's ends. read and write return a count (0 of read: its end) or a negative errno, -EAGAIN
 * for "not now": then vconn_readable() or, after watch(), vconn_writable() is called when it is
 * time. */
struct vconn_ops {
	/* c->fd is there: see to it that vconn_readable() will be called. 0 or a negative errno. */
	int (*open)(void *ctx, struct vconn *c);
	ssize_t (*read)(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov);
	ssize_t (*write)(void *ctx, struct vconn *c, const struct iovec *iov, unsigned niov);
	void (*shut)(void *ctx, struct vconn *c, enum vconn_shut how);
	void (*close)(void *ctx, struct vconn *c); /* c->fd is set to -1 afterwards */
	void (*watch)(void *ctx, struct vconn *c, bool on);
	/* Ask for the other end of the guest's connection: vconn_connected() is the answer. */
	void (*ask)(void *ctx, uint32_t id, uint32_t port);
	/* The pages of a ring are not needed any more; their content may go. */
	void (*forget)(void *ctx, void *ring, size_t size);
};

struct vconn_stats {
	uint64_t connections;       /* that came to be open */
	uint64_t to_guest, to_host; /* bytes */
	uint64_t resets;            /* RST packets to the guest */
	uint64_t stalls;            /* of the guest's credit */
	uint64_t bad_packets; /* addresses, types or operations that cannot be; more than the credit
			       */
};

struct vconns {
	const struct vconn_ops *ops;
	void *ctx;
	uint64_t guest_cid;
	unsigned max;
	bool reachable; /* the guest may connect to the host */
	bool cut;       /* the guest may not know that all its connections are gone; the caller's */
	uint64_t now;   /* ns; the caller's */
	uint8_t *rings; /* vconn_rings_size(max) bytes, the caller's */

	unsigned used, timed, asked; /* slots in use; with a deadline; of the supervisor */
	unsigned nfresh;             /* slots that were ever used */
	uint16_t free;               /* then: the list of free ones, by next */
	struct {
		uint16_t first, last; /* by prev and next */
	} list[VCONN_LISTS];
	uint32_t next_port;
	unsigned stray, nstrays;
	struct virtio_vsock_hdr strays[VCONN_STRAYS];
	struct vconn_stats stat;
	uint16_t bucket[VCONN_BUCKETS];
	struct vconn conn[VSOCK_MAX_CONNS];
};

/* ops, ctx, guest_cid, max, reachable, rings are filled in. All slots are free afterwards. */
void vconn_init(struct vconns *t);
/* Close everything, without a word to the guest: it has reset the device. */
void vconn_drop_all(struct vconns *t);

/* Names a slot and its use: an answer for an earlier use of the slot is told from one for this. */
uint32_t vconn_id(const struct vconns *t, const struct vconn *c);
/* NULL: the connection does not exist any more. */
struct vconn *vconn_find_id(struct vconns *t, uint32_t id);

/* ---- from the guest ---- */

/* Can a packet be taken? Not while too many resets are owed: the guest offers no buffers. */
bool vconn_may_take(const struct vconns *t);
/* One packet: its header (a copy), and exactly hdr->len bytes of payload in iov[]. While `cut`,
 * anything but a request is about a connection that is gone, and is dropped. */
void vconn_packet(struct vconns *t, const struct virtio_vsock_hdr *hdr, const struct iovec *iov,
		  unsigned niov);

/* ---- to the guest ---- */

struct vconn_buf { /* a buffer of the guest; header and payload may be cut anywhere */
	struct iovec *iov;
	unsigned niov;
	uint64_t len;  /* of all of iov, more than a header */
	uint32_t used; /* out */
};

/* Does somebody want a buffer? */
bool vconn_pending(const struct vconns *t);
/* One connection's turn: fills up to n (at least 1, at most VCONN_MAX_BUFS) buffers and returns how
 * many. 0: that connection had nothing after all; ask vconn_pending() again. */
unsigned vconn_fill(struct vconns *t, struct vconn_buf *b, unsigned n);

/* ---- from the host ---- */

/* Is there a slot? Without one the next two must not be called. */
bool vconn_has_room(const struct vconns *t);
/* A client has connected; it will say where to. `fd` belongs to the connection from here on, as in
 * the next one. */
void vconn_client(struct vconns *t, int fd);
/* A stream of the supervisor's for a port of the guest. */
void vconn_stream(struct vconns *t, int fd, uint32_t port);
/* The answer to ops->ask(). True: `fd` belongs to the connection now. False: there was an error, or
 * the connection does not exist any more; a descriptor stays the caller's. */
bool vconn_connected(struct vconns *t, uint32_t id, int error, int fd);
void vconn_readable(struct vconns *t, struct vconn *c);
void vconn_writable(struct vconns *t, struct vconn *c);
/* The host's end is closed in both directions; what it sent before may still be there to be read.
 */
void vconn_hangup(struct vconns *t, struct vconn *c);

/* Let go of what has waited too long. True: something still has a deadline, call again after
 * VCONN_TICK_NS. */
bool vconn_tick(struct vconns *t);

#endif
