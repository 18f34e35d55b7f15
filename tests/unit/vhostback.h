/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user back end for tests, in a thread: it does what it is told, writes down what it was
 * told, and can be made to misbehave at one request. Its "service" answers each chain with a used
 * length of ANSWER_LEN, in order, or as many and in the order that the test wants (vb_answer()).
 */
#ifndef TESTS_VHOSTBACK_H
#define TESTS_VHOSTBACK_H

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/scm.h>

#include <devices/vhost/vhost_proto.h>

#include "fakedrv.h"

#define VB_QUEUES 4u
#define VB_REQUESTS 48u
#define ANSWER_LEN 77u

enum vb_fault {
	VB_GOOD,
	VB_SILENT,   /* no answer, for ever */
	VB_CLOSE,    /* the connection */
	VB_SHORT,    /* an answer of half its length */
	VB_LONG,     /* of 300 bytes */
	VB_OTHER,    /* the answer to another question */
	VB_NO_FLAG,  /* an answer that is a request */
	VB_VERSION,  /* of another version */
	VB_HALF,     /* half an answer, and then nothing */
	VB_FD,       /* an answer with a descriptor (or without the one that was asked for) */
	VB_MANY_FDS, /* with 20 of them */
	VB_TWICE,    /* the answer, twice */
	VB_REFUSE,   /* done: no (REPLY_ACK), or a number that cannot be */
	VB_FAULTS
};

/* What it does wrong with what it holds. */
enum vb_held {
	VB_HELD_GOOD,
	VB_HELD_OWN,     /* it goes through a pipe of its own; that is no mistake */
	VB_HELD_REFUSED, /* it does not begin */
	VB_HELD_NO_PIPE, /* its own descriptor is none of a pipe */
	VB_HELD_NO_FD,   /* it says that there is one, and there is none */
	VB_HELD_ENDLESS, /* it writes for ever */
	VB_HELD_STUCK,   /* it never comes to an end; or does not read */
	VB_HELD_DIES,    /* in the middle */
	VB_HELD_LEAVES,  /* it closes its end, having read nothing */
	VB_HELD_CHECK,   /* and says that it was not all */
	VB_HELD_MUTE,    /* and then nothing */
	VB_HELD_FAULTS
};
#define VB_HELD_MAX (1u << 20)

struct vb_ring {
	uint32_t num, base, enabled;
	struct vhost_vring_addr addr;
	int kick, call, err;
	uint16_t last_avail;
	unsigned found; /* chains that were seen since it has the ring */
};

struct vback {
	int fd, back_fd, inflight_fd, mem_fd;
	pthread_t thread;
	_Atomic bool quit, ended;
	/* what it is */
	uint64_t features, protocol;
	uint64_t nqueues;
	uint8_t config[VHOST_CONFIG_MAX];
	uint32_t fault_at; /* enum vhost_request */
	enum vb_fault fault;
	bool hold; /* answer nothing by itself */
	enum vb_held held_fault;
	uint8_t *held; /* what it holds, or has got; NULL: nothing */
	size_t held_len;
	unsigned piece; /* it writes so many bytes at once */
	int held_fd;    /* its end of the pipe, while it is busy with that */
	pthread_t mover;
	bool moves;
	bool order_wrong;    /* a transfer while it had a ring, a ring that was enabled too early */
	struct guestmem *gm; /* the test's own view */
	/* what it was told */
	pthread_mutex_t lock;
	unsigned n[VB_REQUESTS];
	uint64_t got_features, got_protocol;
	struct vhost_mem_table mem;
	struct vhost_config_space set;
	struct vb_ring ring[VB_QUEUES];
	struct vhost_inflight inflight;
};

union vb_body {
	uint64_t u64;
	struct vhost_vring_state state;
	struct vhost_vring_addr addr;
	struct vhost_mem_table mem;
	struct vhost_config_space config;
	struct vhost_inflight inflight;
	struct vhost_transfer transfer;
	uint8_t bytes[512];
};

static inline void vb_write(int fd, const void *head, size_t nhead, const void *body, size_t n,
			    const int *fds, unsigned nfds)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)head, nhead}, {(void *)(uintptr_t)body, n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	union scm_buf ctl;

	scm_attach(&m, &ctl, fds, nfds);
	(void)!sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* An answer, as good or bad as it shall be. */
static inline void vb_reply(struct vback *b, const struct vhost_hdr *to, const void *body, size_t n,
			    int fd)
{
	struct vhost_hdr h = {to->request, VHOST_VERSION | VHOST_REPLY, (uint32_t)n};
	enum vb_fault fault = b->fault_at == to->request ? b->fault : VB_GOOD;
	static const uint8_t none[512];
	int fds[20] = {fd};
	unsigned nfds = fd >= 0;

	for (unsigned i = nfds; i < 20; i++)
		fds[i] = b->mem_fd >= 0 ? b->mem_fd : b->fd;
	if (fault == VB_SILENT)
		return;
	if (fault == VB_CLOSE) {
		shutdown(b->fd, SHUT_RDWR);
		return;
	}
	h.size = fault == VB_SHORT ? (uint32_t)n / 2 : fault == VB_LONG ? 300 : h.size;
	h.request = fault == VB_OTHER ? 47 : h.request;
	h.flags = fault == VB_NO_FLAG   ? VHOST_VERSION
		  : fault == VB_VERSION ? 2 | VHOST_REPLY
					: h.flags;
	nfds = fault == VB_FD ? !nfds : fault == VB_MANY_FDS ? 20 : nfds;
	vb_write(b->fd, &h, sizeof(h), fault == VB_LONG ? none : body,
		 fault == VB_HALF ? n / 2 : h.size, fds, nfds);
	if (fault == VB_TWICE)
		vb_write(b->fd, &h, sizeof(h), body, h.size, NULL, 0);
}

static inline void vb_put_fd(int *slot, int *fds, unsigned nfds)
{
	fd_close(slot);
	*slot = nfds ? fds[0] : -1;
	for (unsigned i = 1; i < nfds; i++)
		close(fds[i]);
}

/* ---- rings ---- */

static inline uint8_t *vb_at(struct vback *b, uint64_t user)
{
	return gm_ptr(b->gm, user, 8);
}

/* The test's drivers have descriptors in guest memory; all that is needed here are heads. */
static inline void vb_used(struct vback *b, struct vb_ring *r, uint16_t head)
{
	uint8_t *used = vb_at(b, r->addr.used);
	uint16_t idx = drv_load16(used + 2);
	uint32_t elem[2] = {head, ANSWER_LEN};

	memcpy(used + 4 + 8 * (size_t)(idx % r->num), elem, sizeof(elem));
	drv_store16(used + 2, (uint16_t)(idx + 1));
	if (r->call >= 0)
		event_signal(r->call);
}

static inline unsigned vb_avail(struct vback *b, struct vb_ring *r)
{
	return (uint16_t)(drv_load16(vb_at(b, r->addr.avail) + 2) - r->last_avail);
}

static inline uint16_t vb_next(struct vback *b, struct vb_ring *r)
{
	r->found++;
	return drv_load16(vb_at(b, r->addr.avail) + 4 + 2 * (r->last_avail++ % r->num));
}

static inline void vb_serve(struct vback *b, unsigned i)
{
	struct vb_ring *r = &b->ring[i];

	while (!b->hold && r->kick >= 0 && vb_avail(b, r))
		vb_used(b, r, vb_next(b, r));
}

/* ---- what it holds ---- */

static inline void *vb_writes(void *arg)
{
	struct vback *b = arg;
	size_t at = 0, n;

	do {
		n = b->held_len - at < b->piece ? b->held_len - at : b->piece;
		if (n && write(b->held_fd, b->held + at, n) != (ssize_t)n)
			break;
		at += n;
		if (b->held_fault == VB_HELD_ENDLESS && at == b->held_len)
			at = 0;
		if (b->held_fault == VB_HELD_DIES && at > b->held_len / 2) {
			shutdown(b->fd, SHUT_RDWR);
			break;
		}
	} while (at < b->held_len);
	while (b->held_fault == VB_HELD_STUCK && !b->quit)
		usleep(1000);
	close(b->held_fd);
	return NULL;
}

static inline void *vb_reads(void *arg)
{
	struct vback *b = arg;
	ssize_t n = 1;

	while (b->held_fault == VB_HELD_STUCK && !b->quit)
		usleep(1000);
	b->held = realloc(b->held, VB_HELD_MAX);
	b->held_len = 0;
	while (n > 0 && b->held_fault != VB_HELD_LEAVES) {
		n = read(b->held_fd, b->held + b->held_len, VB_HELD_MAX - b->held_len);
		b->held_len += n > 0 ? (size_t)n : 0;
		if (b->held_fault == VB_HELD_DIES) {
			shutdown(b->fd, SHUT_RDWR);
			break;
		}
	}
	close(b->held_fd);
	return NULL;
}

static inline void vb_transfer(struct vback *b, const struct vhost_hdr *h,
			       const struct vhost_transfer *t, int fd)
{
	bool save = t->direction == VHOST_TRANSFER_SAVE;
	uint64_t ours = VHOST_TRANSFER_OURS, refused = ours | 1, theirs = 0;
	int end[2] = {-1, -1};

	for (unsigned i = 0; i < VB_QUEUES; i++)
		b->order_wrong |= b->ring[i].kick >= 0;
	b->order_wrong |= t->phase != VHOST_TRANSFER_STOPPED || t->direction > 1 || fd < 0;
	if (b->held_fault == VB_HELD_REFUSED || b->held_fault == VB_HELD_NO_PIPE ||
	    b->held_fault == VB_HELD_NO_FD) {
		close(fd);
		if (b->held_fault == VB_HELD_REFUSED)
			vb_reply(b, h, &refused, sizeof(refused), -1);
		else
			vb_reply(b, h, &theirs, sizeof(theirs),
				 b->held_fault == VB_HELD_NO_FD ? -1 : b->mem_fd);
		return;
	}
	if (b->held_fault == VB_HELD_OWN) {
		close(fd);
		if (pipe(end))
			fc_die("pipe");
		fd = end[save];
	}
	b->held_fd = fd;
	b->moves = !pthread_create(&b->mover, NULL, save ? vb_writes : vb_reads, b);
	vb_reply(b, h, end[0] < 0 ? &ours : &theirs, sizeof(ours), end[0] < 0 ? -1 : end[!save]);
	if (end[0] >= 0)
		close(end[!save]);
}

static inline void vb_check(struct vback *b, const struct vhost_hdr *h)
{
	uint64_t failed = !b->moves || b->held_fault == VB_HELD_CHECK;

	if (b->moves)
		pthread_join(b->mover, NULL);
	b->moves = false;
	if (b->held_fault != VB_HELD_MUTE)
		vb_reply(b, h, &failed, sizeof(failed), -1);
}

/* ---- requests ---- */

static inline void vb_state(struct vback *b, const struct vhost_hdr *h, union vb_body *m)
{
	struct vb_ring *r = &b->ring[m->state.index % VB_QUEUES];
	bool refuse = b->fault_at == h->request && b->fault == VB_REFUSE;

	switch (h->request) {
	case VHOST_SET_VRING_NUM:
		r->num = m->state.num;
		break;
	case VHOST_SET_VRING_BASE:
		r->base = m->state.num;
		r->last_avail = (uint16_t)m->state.num;
		r->found = 0;
		break;
	case VHOST_SET_VRING_ENABLE:
		r->enabled = m->state.num;
		break;
	case VHOST_GET_VRING_BASE:
		fd_close(&r->kick);
		m->state.num = r->last_avail;
		m->state.index += refuse;
		vb_reply(b, h, &m->state, sizeof(m->state), -1);
		break;
	default:
		break;
	}
}

static inline void vb_question(struct vback *b, const struct vhost_hdr *h, union vb_body *m)
{
	bool refuse = b->fault_at == h->request && b->fault == VB_REFUSE;
	uint64_t n = h->request == VHOST_GET_FEATURES            ? b->features
		     : h->request == VHOST_GET_PROTOCOL_FEATURES ? b->protocol
								 : b->nqueues;

	n = refuse ? 0 : n;
	if (h->request == VHOST_GET_CONFIG) {
		memcpy(m->config.bytes, b->config, m->config.size);
		m->config.size += refuse;
		vb_reply(b, h, m, h->size, -1);
	} else if (h->request == VHOST_GET_INFLIGHT_FD) {
		int fd = memfd_create("inflight", MFD_CLOEXEC);

		m->inflight.size = refuse ? 0 : 4096;
		(void)!ftruncate(fd, 4096);
		vb_reply(b, h, m, sizeof(m->inflight), fd);
		close(fd);
	} else {
		vb_reply(b, h, &n, sizeof(n), -1);
	}
}

static inline void vb_note(struct vback *b, const struct vhost_hdr *h, union vb_body *m, int *fds,
			   unsigned nfds)
{
	struct vb_ring *r = &b->ring[m->u64 % VB_QUEUES];

	if (h->request == VHOST_SET_FEATURES)
		b->got_features = m->u64;
	else if (h->request == VHOST_SET_PROTOCOL_FEATURES)
		b->got_protocol = m->u64;
	else if (h->request == VHOST_SET_MEM_TABLE)
		b->mem = m->mem, vb_put_fd(&b->mem_fd, fds, nfds);
	else if (h->request == VHOST_SET_VRING_ADDR)
		b->ring[m->addr.index % VB_QUEUES].addr = m->addr;
	else if (h->request == VHOST_SET_VRING_KICK)
		b->order_wrong |= r->enabled != 0, vb_put_fd(&r->kick, fds, nfds);
	else if (h->request == VHOST_SET_VRING_CALL)
		vb_put_fd(&r->call, fds, nfds);
	else if (h->request == VHOST_SET_VRING_ERR)
		vb_put_fd(&r->err, fds, nfds);
	else if (h->request == VHOST_SET_BACKEND_REQ_FD)
		vb_put_fd(&b->back_fd, fds, nfds);
	else if (h->request == VHOST_SET_INFLIGHT_FD)
		b->inflight = m->inflight, vb_put_fd(&b->inflight_fd, fds, nfds);
	else if (h->request == VHOST_SET_CONFIG)
		b->set = m->config,
		memcpy(b->config + m->config.offset, m->config.bytes, m->config.size);
	else
		vb_put_fd(&(int){-1}, fds, nfds);
	vb_state(b, h, m);
}

static inline bool vb_is_question(uint32_t r)
{
	return r == VHOST_GET_FEATURES || r == VHOST_GET_PROTOCOL_FEATURES ||
	       r == VHOST_GET_QUEUE_NUM || r == VHOST_GET_CONFIG || r == VHOST_GET_INFLIGHT_FD;
}

/* False: the front end has gone. */
static inline bool vb_message(struct vback *b)
{
	struct vhost_hdr h;
	union vb_body m = {0};
	struct iovec iov = {&h, sizeof(h)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;
	int fds[SCM_MAX_FDS];
	unsigned nfds = 0;
	uint64_t failed;

	scm_expect(&msg, &ctl, SCM_MAX_FDS);
	if (recvmsg(b->fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(h))
		return false;
	scm_take(&msg, fds, &nfds, SCM_MAX_FDS);
	if (h.size > sizeof(m) ||
	    (h.size && recv(b->fd, &m, h.size, MSG_WAITALL) != (ssize_t)h.size))
		return false;
	pthread_mutex_lock(&b->lock);
	b->n[h.request % VB_REQUESTS]++;
	if (vb_is_question(h.request))
		vb_question(b, &h, &m);
	else if (h.request == VHOST_SET_DEVICE_STATE_FD)
		vb_transfer(b, &h, &m.transfer, nfds ? fds[0] : -1);
	else if (h.request == VHOST_CHECK_DEVICE_STATE)
		vb_check(b, &h);
	else
		vb_note(b, &h, &m, fds, nfds);
	failed = b->fault_at == h.request && b->fault == VB_REFUSE;
	if (h.flags & VHOST_NEED_REPLY)
		vb_reply(b, &h, &failed, sizeof(failed), -1);
	pthread_mutex_unlock(&b->lock);
	return true;
}

/* Its front end has closed the connection: the rings are somebody else's now. */
static inline bool vb_is_left(const struct vback *b)
{
	struct pollfd p = {.fd = b->fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP);
}

static inline void *vb_main(void *arg)
{
	struct vback *b = arg;
	bool goes_on = true;

	while (goes_on && !b->quit) {
		struct pollfd p[1 + VB_QUEUES] = {{.fd = b->fd, .events = POLLIN}};

		for (unsigned i = 0; i < VB_QUEUES; i++)
			p[1 + i] = (struct pollfd){.fd = b->ring[i].kick, .events = POLLIN};
		poll(p, 1 + VB_QUEUES, 20);
		pthread_mutex_lock(&b->lock);
		for (unsigned i = 0; i < VB_QUEUES; i++) {
			if (p[1 + i].revents && b->ring[i].kick >= 0)
				event_drain(b->ring[i].kick);
			if (p[1 + i].revents && !vb_is_left(b))
				vb_serve(b, i);
		}
		pthread_mutex_unlock(&b->lock);
		if (p[0].revents)
			goes_on = vb_message(b);
	}
	b->ended = true;
	return NULL;
}

/* Of a disk with everything that the protocol has. */
static inline void vb_init(struct vback *b, struct guestmem *gm)
{
	*b = (struct vback){.fd = -1,
			    .back_fd = -1,
			    .inflight_fd = -1,
			    .mem_fd = -1,
			    .features = DRV_COMMON | DRV_F(VHOST_F_PROTOCOL_FEATURES) |
					DRV_F(VHOST_F_LOG_ALL) | DRV_F(VIRTIO_F_RING_PACKED) |
					0x1e46,
			    .protocol = ~UINT64_C(0) & ~DRV_F(VHOST_P_INFLIGHT_SHMFD),
			    .nqueues = VB_QUEUES,
			    .piece = VB_HELD_MAX,
			    .gm = gm};
	for (unsigned i = 0; i < sizeof(b->config); i++)
		b->config[i] = (uint8_t)(i + 1);
	for (unsigned i = 0; i < VB_QUEUES; i++)
		b->ring[i] = (struct vb_ring){.kick = -1, .call = -1, .err = -1};
	pthread_mutex_init(&b->lock, NULL);
}

/* Begin to work; the front end's end of the connection, the caller's. */
static inline int vb_start(struct vback *b)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		fc_die("socketpair");
	fcntl(pair[1], F_SETFL, O_NONBLOCK);
	b->fd = pair[0];
	if (pthread_create(&b->thread, NULL, vb_main, b))
		fc_die("thread");
	return pair[1];
}

/* As if it were killed. */
static inline void vb_kill(struct vback *b)
{
	b->quit = true;
	shutdown(b->fd, SHUT_RDWR);
	pthread_join(b->thread, NULL);
	if (b->moves)
		pthread_join(b->mover, NULL);
	b->moves = false;
	free(b->held);
	b->held = NULL;
	fd_close(&b->fd);
	fd_close(&b->back_fd);
	fd_close(&b->inflight_fd);
	fd_close(&b->mem_fd);
	for (unsigned i = 0; i < VB_QUEUES; i++) {
		fd_close(&b->ring[i].kick);
		fd_close(&b->ring[i].call);
		fd_close(&b->ring[i].err);
	}
}

#endif
