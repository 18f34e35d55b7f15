/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The io_uring engine.
 *
 * The ring belongs to the I/O thread. It is made before the jail is sealed and locked down by the
 * kernel's own restrictions: only the operations below, only on the registered descriptors (disk,
 * command event, kicks), and nothing can be registered any more. So even with the one system call
 * that is left, io_uring_enter, the process can do no more with the ring than the device needs.
 *
 * A turn is one io_uring_enter: it submits what is queued and waits for completions, kicks and
 * commands at the same time. Kicks are multishot polls: the events are never read, each signal is
 * one completion.
 */
#include <errno.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "blk_engine.h"

/* Registered descriptors. */
#define FILE_DISK 0
#define FILE_EVENTS 1 /* the command event, then the kicks */
#define MAX_EVENTS (1 + VIRTIO_MAX_QUEUES)
#define MAX_FILES (FILE_EVENTS + MAX_EVENTS)

/* Workers for what cannot be done without blocking: buffered writes, fdatasync, fallocate. */
#define BOUNDED_WORKERS 16
#define UNBOUNDED_WORKERS 2

struct blk_eng {
	struct blk_engine_conf conf;
	struct io_uring ring;
};

static unsigned nevents(const struct blk_eng *g)
{
	return 1 + g->conf.nkicks;
}

static int uring_open(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e)
{
	struct blk_eng *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(e, -ENOMEM, "out of memory");
	g->conf = *c;
	*out = g;
	return 0;
}

/* liburing 2.3 as some distributions ship it lacks half of its wrappers in the shared library. */
static int ring_register(struct blk_eng *g, unsigned op, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, g->ring.ring_fd, op, arg, n) < 0 ? -errno : 0;
}

/* The best that the kernel has: task work runs when we ask for it (6.1), at system calls (5.19), or
 * at any time. */
static int make_ring(struct blk_eng *g)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int rc = -EINVAL;

	for (size_t i = 0; i < ARRAY_LEN(flags) && rc == -EINVAL; i++) {
		struct io_uring_params p = {.flags = flags[i] | IORING_SETUP_R_DISABLED |
						     IORING_SETUP_CLAMP};

		rc = io_uring_queue_init_params(g->conf.depth + MAX_EVENTS, &g->ring, &p);
	}
	return rc;
}

static int register_files(struct blk_eng *g)
{
	int fds[MAX_FILES] = {[FILE_DISK] = g->conf.disk_fd, [FILE_EVENTS] = g->conf.ctl_fd};

	for (unsigned i = 0; i < g->conf.nkicks; i++)
		fds[FILE_EVENTS + 1 + i] = g->conf.kick_fd[i];
	return ring_register(g, IORING_REGISTER_FILES, fds, FILE_EVENTS + nevents(g));
}

static int restrict_ring(struct blk_eng *g)
{
	static const uint8_t ops[] = {IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_READV,
				      /* and for a writable disk: */
				      IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_FSYNC,
				      IORING_OP_FALLOCATE};
	struct io_uring_restriction r[ARRAY_LEN(ops) + 2] = {
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
	};
	unsigned n = 2;

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (g->conf.readonly && (ops[i] == IORING_OP_WRITE || ops[i] == IORING_OP_WRITEV ||
					 ops[i] == IORING_OP_FALLOCATE))
			continue;
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n++].sqe_op = ops[i];
	}
	return ring_register(g, IORING_REGISTER_RESTRICTIONS, r, n);
}

static struct io_uring_sqe *get_sqe(struct blk_eng *g)
{
	struct io_uring_sqe *s = io_uring_get_sqe(&g->ring);

	/* There is one entry for every request and every poll. */
	if (!s)
		panic("io_uring: submission ring is full");
	return s;
}

static void poll_event(struct blk_eng *g, unsigned i)
{
	struct io_uring_sqe *s = get_sqe(g);

	io_uring_prep_poll_multishot(s, (int)(FILE_EVENTS + i), POLLIN);
	io_uring_sqe_set_flags(s, IOSQE_FIXED_FILE);
	/* Indices and pointers to requests cannot be confused: no request lies in the first page.
	 */
	s->user_data = i;
}

static int uring_enter(struct blk_eng *g, struct err *e)
{
	unsigned workers[2] = {BOUNDED_WORKERS, UNBOUNDED_WORKERS};
	int rc = make_ring(g);

	if (rc)
		return err_sys(e, rc, "io_uring_setup");
	rc = register_files(g);
	if (rc)
		return err_sys(e, rc, "io_uring: register descriptors");
	/* Older than 5.15: the kernel's own limit. */
	rc = ring_register(g, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2);
	if (rc && rc != -EINVAL)
		return err_sys(e, rc, "io_uring: limit of workers");
	rc = restrict_ring(g);
	if (rc)
		return err_sys(e, rc, "io_uring: restrictions");
	rc = ring_register(g, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (rc)
		return err_sys(e, rc, "io_uring: enable");
	for (unsigned i = 0; i < nevents(g); i++)
		poll_event(g, i);
	return 0;
}

static void prepare_rw(struct io_uring_sqe *s, const struct blk_io *io)
{
	bool w = io->op == BLK_OP_WRITE;
	const struct iovec *v = io->iov;

	/* One segment needs no copy of the vector in the kernel. */
	if (io->niov == 1 && w)
		io_uring_prep_write(s, FILE_DISK, v->iov_base, (unsigned)v->iov_len, io->off);
	else if (io->niov == 1)
		io_uring_prep_read(s, FILE_DISK, v->iov_base, (unsigned)v->iov_len, io->off);
	else if (w)
		io_uring_prep_writev(s, FILE_DISK, v, io->niov, io->off);
	else
		io_uring_prep_readv(s, FILE_DISK, v, io->niov, io->off);
}

static void uring_submit(struct blk_eng *g, struct blk_io *io)
{
	struct io_uring_sqe *s = get_sqe(g);

	switch (io->op) {
	case BLK_OP_READ:
	case BLK_OP_WRITE:
		prepare_rw(s, io);
		break;
	case BLK_OP_SYNC:
		io_uring_prep_fsync(s, FILE_DISK, IORING_FSYNC_DATASYNC);
		break;
	case BLK_OP_PUNCH:
		io_uring_prep_fallocate(s, FILE_DISK, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)io->off, (off_t)io->len);
		break;
	case BLK_OP_ZERO:
		io_uring_prep_fallocate(s, FILE_DISK, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
					(off_t)io->off, (off_t)io->len);
		break;
	}
	io_uring_sqe_set_flags(s, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(s, io);
}

static void take_completion(struct blk_eng *g, const struct io_uring_cqe *c)
{
	unsigned event = (unsigned)c->user_data;

	if (c->user_data >= MAX_EVENTS) {
		g->conf.done(g->conf.ctx, (struct blk_io *)(uintptr_t)c->user_data, c->res);
		return;
	}
	if (event > 0)
		(*g->conf.kicks)++;
	if (c->res < 0)
		panic("io_uring: poll of event %u failed: %d", event, c->res);
	/* A multishot poll can end, for want of room in the completion ring for example. */
	if (!(c->flags & IORING_CQE_F_MORE))
		poll_event(g, event);
}

static void uring_wait(struct blk_eng *g, bool block)
{
	struct io_uring_cqe *c;
	unsigned head, n = 0;
	int rc = block ? io_uring_submit_and_wait(&g->ring, 1)
		       : io_uring_submit_and_get_events(&g->ring);

	/* EINTR: a signal. EAGAIN, EBUSY: no memory, or completions have to be taken first; the
	 * rest stays queued. */
	if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
		panic("io_uring_enter: %d", rc);
	io_uring_for_each_cqe(&g->ring, head, c)
	{
		take_completion(g, c);
		n++;
	}
	io_uring_cq_advance(&g->ring, n);
}

static bool uring_ready(struct blk_eng *g)
{
	/* Completions that wait for task work are not in the ring yet, but the kernel says so. */
	return io_uring_cq_ready(&g->ring) ||
	       (__atomic_load_n(g->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN);
}

static void uring_rules(const struct blk_eng *g, struct rule_list *l)
{
	rule_fd(l, SYS_io_uring_enter, g->ring.ring_fd,
		"disk requests, kicks and commands; the ring is restricted");
}

const struct blk_engine_ops blk_uring = {
	.open = uring_open,
	.enter = uring_enter,
	.submit = uring_submit,
	.wait = uring_wait,
	.ready = uring_ready,
	.rules = uring_rules,
};

const struct blk_engine_ops *blk_engine_find(uint32_t kind)
{
	switch (kind) {
	case BLK_ENGINE_URING:
		return &blk_uring;
	case BLK_ENGINE_THREADS:
		return &blk_threads;
	default:
		return NULL;
	}
}
