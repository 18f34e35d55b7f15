/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The io_uring engine.
 *
 * Each I/O thread has a ring of its own. It is made before the jail is sealed and locked down by
 * the kernel's own restrictions: only the operations below, only on the registered descriptors
 * (disk, an overlay's base, which is open to be read, command event, kicks of its queue), and
 * nothing can be registered any more. So even with
 * the one system call that is left, io_uring_enter, the process can do no more with the ring than
 * the device needs. fallocate is not among the operations: the ring cannot tell its modes apart,
 * and with one of them a file gets space without a limit. So what changes ranges is done by the
 * threads of a pool.
 *
 * A turn is one io_uring_enter: it submits what is queued and waits for completions, kicks and
 * commands at the same time. Kicks are multishot polls: the events are never read, each signal is
 * one completion.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "blk.h"
#include "blk_disk.h"
#include "blk_pool.h"

_Static_assert(_Alignof(struct blk_io) >= BLK_PARTS && BLK_MAX_DATA <= INT32_MAX,
	       "the low bits of a pointer tell the part; a request's bytes fit into a result");

/* Registered descriptors. */
#define FILE_DISK 0
#define FILE_BASE 1   /* of an overlay; else nothing */
#define FILE_EVENTS 2 /* the command event, the pool's, then the kicks */
#define EVENT_POOL 1
#define EVENT_KICKS 2
#define NEVENTS 3
#define NFILES (FILE_EVENTS + NEVENTS)

#define POOL_THREADS 2 /* of all rings together */

/* Workers of a ring for what cannot be done without blocking: buffered writes, fdatasync. */
#define BOUNDED_WORKERS 16
#define UNBOUNDED_WORKERS 2

struct blk_eng {
	struct blk_engine_conf conf;
	struct io_uring ring;
	struct blk_pool_end end;
};

static int uring_open(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e)
{
	struct blk_eng *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(e, -ENOMEM, "out of memory");
	g->conf = *c;
	*out = g;
	return blk_pool_join(&g->end, c->pool, e);
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
		/* Room for every part of every request: what does not fit would need memory. */
		struct io_uring_params p = {.flags = flags[i] | IORING_SETUP_R_DISABLED |
						     IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
					    .cq_entries = g->conf.depth * BLK_PARTS + 2 * NEVENTS};

		rc = io_uring_queue_init_params(g->conf.depth + NEVENTS, &g->ring, &p);
	}
	return rc;
}

static int register_files(struct blk_eng *g)
{
	const int fds[NFILES] = {[FILE_DISK] = g->conf.disk_fd,
				 [FILE_BASE] = g->conf.base_fd,
				 [FILE_EVENTS] = g->conf.ctl_fd,
				 [FILE_EVENTS + EVENT_POOL] = g->end.done_fd,
				 [FILE_EVENTS + EVENT_KICKS] = g->conf.kick_fd};

	return ring_register(g, IORING_REGISTER_FILES, fds, NFILES);
}

static int restrict_ring(struct blk_eng *g)
{
	static const uint8_t ops[] = {IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_READV,
				      IORING_OP_FSYNC,
				      /* and for a writable disk: */
				      IORING_OP_WRITE, IORING_OP_WRITEV};
	struct io_uring_restriction r[ARRAY_LEN(ops) + 2] = {
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE},
		{.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
	};
	unsigned n = 2;

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (g->conf.readonly && (ops[i] == IORING_OP_WRITE || ops[i] == IORING_OP_WRITEV))
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
	for (unsigned i = 0; i < NEVENTS; i++)
		poll_event(g, i);
	return 0;
}

static void prepare_rw(struct io_uring_sqe *s, const struct blk_io *io, const struct iovec *v,
		       unsigned n, uint64_t off)
{
	bool w = io->op == BLK_OP_WRITE;
	int file = io->base ? FILE_BASE : FILE_DISK;

	/* One segment needs no copy of the vector in the kernel. */
	if (n == 1 && w)
		io_uring_prep_write(s, file, v->iov_base, (unsigned)v->iov_len, off);
	else if (n == 1)
		io_uring_prep_read(s, file, v->iov_base, (unsigned)v->iov_len, off);
	else if (w)
		io_uring_prep_writev(s, file, v, n, off);
	else
		io_uring_prep_readv(s, file, v, n, off);
}

/* The next piece of what is left: whole segments, up to `max` bytes, but at least one. */
static unsigned cut(const struct iovec *v, unsigned n, uint64_t max, uint64_t *len)
{
	unsigned k = 0;

	*len = 0;
	while (k < n && (k == 0 || *len + v[k].iov_len <= max))
		*len += v[k++].iov_len;
	return k;
}

/*
 * The kernel does not split a request that must not block: it refuses it, and has one of its worker
 * threads do all of the work once more. So a request that is larger than the disk takes at once
 * goes down in parts. The last one has all that is left. Every request has an entry of its own;
 * parts take what is over.
 */
static void submit_rw(struct blk_eng *g, struct blk_io *io)
{
	const struct iovec *v = io->iov;
	unsigned left = io->niov, spare = io_uring_sq_space_left(&g->ring);
	uint64_t off = io->off;

	spare = spare > g->conf.depth + NEVENTS ? spare - g->conf.depth - NEVENTS : 0;
	io->nparts = 0;
	do {
		struct blk_part *p = &io->part[io->nparts];
		bool last = io->nparts == BLK_PARTS - 1 || io->nparts == spare;
		uint64_t max = last || !g->conf.max_io ? UINT64_MAX : g->conf.max_io;
		unsigned n = cut(v, left, max, &p->len);
		struct io_uring_sqe *s = get_sqe(g);

		prepare_rw(s, io, v, n, off);
		io_uring_sqe_set_flags(s, IOSQE_FIXED_FILE);
		s->user_data = (uintptr_t)io | io->nparts++;
		off += p->len;
		v += n;
		left -= n;
	} while (left);
	io->pending = io->nparts;
}

static void submit_sync(struct blk_eng *g, struct blk_io *io)
{
	struct io_uring_sqe *s = get_sqe(g);

	io_uring_prep_fsync(s, FILE_DISK, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_flags(s, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(s, io);
	io->nparts = io->pending = 1;
	io->part[0].len = 0;
}

static void uring_submit(struct blk_eng *g, struct blk_io *io)
{
	if (io->op == BLK_OP_READ || io->op == BLK_OP_WRITE)
		submit_rw(g, io);
	else if (io->op == BLK_OP_SYNC)
		submit_sync(g, io);
	else
		blk_pool_submit(&g->end, io);
}

/* As one system call would have answered: bytes from the beginning on without a gap, or the error
 * of the first part. What was moved behind a gap is moved again. */
static int outcome(const struct blk_io *io)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < io->nparts; i++) {
		const struct blk_part *p = &io->part[i];

		if (p->res < 0)
			return total ? (int)total : p->res;
		total += (uint64_t)p->res;
		if ((uint64_t)p->res < p->len)
			break;
	}
	return (int)total;
}

static void take_part(struct blk_eng *g, uint64_t data, int res)
{
	struct blk_io *io = (struct blk_io *)(uintptr_t)(data & ~(uint64_t)(BLK_PARTS - 1));

	io->part[data & (BLK_PARTS - 1)].res = res;
	if (--io->pending == 0)
		g->conf.done(g->conf.ctx, io, outcome(io));
}

static void take_from_pool(struct blk_eng *g)
{
	struct blk_io *next;

	for (struct blk_io *io = blk_pool_take(&g->end); io; io = next) {
		next = io->next;
		g->conf.done(g->conf.ctx, io, io->res);
	}
}

static void take_completion(struct blk_eng *g, const struct io_uring_cqe *c)
{
	unsigned event = (unsigned)c->user_data;

	if (c->user_data >= NEVENTS) {
		take_part(g, c->user_data, c->res);
		return;
	}
	if (event >= EVENT_KICKS)
		(*g->conf.kicks)++;
	if (c->res < 0)
		panic("io_uring: poll of event %u failed: %d", event, c->res);
	/* A multishot poll can end, for want of room in the completion ring for example. */
	if (!(c->flags & IORING_CQE_F_MORE))
		poll_event(g, event);
}

static bool uring_ready(struct blk_eng *g)
{
	/* Completions that wait for task work are not in the ring yet, but the kernel says so. */
	return io_uring_cq_ready(&g->ring) || blk_pool_ready(&g->end) ||
	       (__atomic_load_n(g->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN);
}

static int call_ring(struct blk_eng *g, int ms)
{
	struct __kernel_timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000LL};
	struct io_uring_cqe *c;

	if (ms < 0)
		return io_uring_submit_and_wait(&g->ring, 1);
	/* The time is an argument of the call, and no request: all kernels that have multishot polls
	 * can do that (5.11). */
	return ms ? io_uring_submit_and_wait_timeout(&g->ring, &c, 1, &t, NULL)
		  : io_uring_submit_and_get_events(&g->ring);
}

static void uring_wait(struct blk_eng *g, int ms)
{
	struct io_uring_cqe *c;
	unsigned head, n = 0;
	int rc;

	if (!ms && !io_uring_sq_ready(&g->ring) && !uring_ready(g))
		return; /* nothing to tell the kernel, and nothing that it has to tell */
	rc = call_ring(g, ms);

	/* EINTR: a signal. ETIME: as long as was said. EAGAIN, EBUSY: no memory, or completions have
	 * to be taken first; the rest stays queued. */
	if (rc < 0 && rc != -EINTR && rc != -ETIME && rc != -EAGAIN && rc != -EBUSY)
		panic("io_uring_enter: %d", rc);
	io_uring_for_each_cqe(&g->ring, head, c)
	{
		take_completion(g, c);
		n++;
	}
	io_uring_cq_advance(&g->ring, n);
	if (blk_pool_ready(&g->end))
		take_from_pool(g);
}

static void uring_rules(const struct blk_eng *g, struct rule_list *l)
{
	rule_fd(l, SYS_io_uring_enter, g->ring.ring_fd,
		"disk requests, kicks and commands; the ring is restricted");
	rule_fd(l, SYS_write, g->end.done_fd, "a pool thread tells an I/O thread");
}

static void uring_disk_rules(const struct blk_engine_conf *c, struct rule_list *l)
{
	rule_any(l, SYS_sched_yield, "one processor: the guest goes first");
	blk_side_rules(c, l);
}

const struct blk_engine_ops blk_uring = {
	.pool_threads = POOL_THREADS,
	.open = uring_open,
	.enter = uring_enter,
	.submit = uring_submit,
	.wait = uring_wait,
	.ready = uring_ready,
	.rules = uring_rules,
	.disk_rules = uring_disk_rules,
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
