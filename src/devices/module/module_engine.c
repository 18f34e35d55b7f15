/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine of a storage module: hands requests to it, and its answers back. See module_dev.h.
 *
 * A turn: connections that have come, what the module's library has to say, then its answers. The
 * module may answer inside submit(); blk_req.c hears it later, in the turn, so that nothing here is
 * entered twice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "module_dev.h"

#define MODULE_GATHER 8 /* times that a server is let run before the guest hears of it */

struct blk_eng {
	struct module_lane l;
};

/* ---- what a flush is worth ---- */

int module_flush_begins(struct module_page *p, uint64_t *written)
{
	*written = atomic_load(&p->written);
	if (atomic_exchange(&p->lost, 0)) {
		/* Told: who asked writes it again, or gives it up. */
		atomic_store(&p->flushed, *written);
		return -EIO;
	}
	return *written != atomic_load(&p->flushed);
}

int module_flush_done(struct module_page *p, uint64_t written, int res)
{
	if (res)
		return res;
	/* Through this or another connection; the flush may have gone to the server that came after
	 * it. */
	if (atomic_exchange(&p->lost, 0))
		res = -EIO;
	atomic_store(&p->flushed, written);
	return res;
}

void module_page_lost(struct module_page *p)
{
	if (atomic_load(&p->written) != atomic_load(&p->flushed))
		atomic_store(&p->lost, 1);
}

void module_lost(struct module_lane *l)
{
	module_page_lost(l->m->page);
}

/* ---- requests ---- */

static void finish(struct module_lane *l, struct module_req *r, int res)
{
	struct blk_io *io = r->io;

	io->res = res;
	r->next = NULL;
	*l->finished_end = r;
	l->finished_end = &r->next;
}

/* What the server may still lose is counted before the guest hears of it. */
static void changed(struct module_lane *l, const struct module_req *r)
{
	if (r->op != MODULE_READ && !r->fua && (l->m->page->disk.flags & MODULE_DISK_FLUSH))
		atomic_fetch_add(&l->m->page->written, 1);
}

void module_done(struct module_lane *l, struct module_req *r, int res)
{
	const struct blk_io *io = r->io;

	if (r->op == MODULE_FLUSH)
		res = module_flush_done(l->m->page, r->written, res);
	else if (!res)
		changed(l, r);
	/* An answer in bytes, as of the other engines. */
	if (!res && (io->op == BLK_OP_READ || io->op == BLK_OP_WRITE))
		res = (int)r->len;
	l->out--;
	finish(l, r, res);
}

static struct module_req *new_req(struct module_lane *l, struct blk_io *io)
{
	static const enum module_op op[] = {
		[BLK_OP_READ] = MODULE_READ,   [BLK_OP_WRITE] = MODULE_WRITE,
		[BLK_OP_SYNC] = MODULE_FLUSH,  [BLK_OP_PUNCH] = MODULE_ZEROES,
		[BLK_OP_ZERO] = MODULE_ZEROES, [BLK_OP_DISCARD] = MODULE_DISCARD,
	};
	struct module_req *r = l->free;

	if (!r)
		panic("more than %u requests", l->conf.depth);
	l->free = r->next;
	*r = (struct module_req){.op = op[io->op],
				 .unmap = io->op == BLK_OP_PUNCH,
				 .off = io->off,
				 .born_ns = clock_ns(),
				 .io = io};
	if (r->op == MODULE_READ || r->op == MODULE_WRITE) {
		r->iov = io->iov;
		r->niov = io->niov;
		for (unsigned i = 0; i < io->niov; i++)
			r->len += io->iov[i].iov_len;
	} else if (r->op != MODULE_FLUSH) {
		r->len = io->len;
	}
	return r;
}

static void module_engine_submit(struct blk_eng *g, struct blk_io *io)
{
	struct module_lane *l = &g->l;
	struct module_req *r = new_req(l, io);
	uint32_t flags = l->m->page->disk.flags;
	int rc = 1;

	if (r->op == MODULE_FLUSH)
		rc = flags & MODULE_DISK_FLUSH ? module_flush_begins(l->m->page, &r->written) : 0;
	else if (r->op == MODULE_ZEROES && !(flags & MODULE_DISK_ZEROES))
		rc = -EOPNOTSUPP;
	if (rc <= 0) {
		finish(l, r, rc);
		return;
	}
	/* A driver without flushes gets its writes stable one by one. */
	r->fua = l->m->blk.writethrough && (flags & MODULE_DISK_FUA) &&
		 (r->op == MODULE_WRITE || r->op == MODULE_ZEROES);
	l->out++;
	l->m->ops->submit(l->own, r);
}

static void module_answers(struct module_lane *l)
{
	while (l->finished) {
		struct module_req *r = l->finished;
		struct blk_io *io = r->io;

		l->finished = r->next;
		if (!l->finished)
			l->finished_end = &l->finished;
		r->next = l->free;
		l->free = r;
		l->conf.done(l->conf.ctx, io, io->res);
	}
}

/* ---- a turn ---- */

static bool module_looks(struct module_lane *l)
{
	return l->out && l->m->ops->look && l->m->ops->look(l->own);
}

static bool module_has_news(struct module_lane *l)
{
	return l->finished || atomic_load_explicit(&l->incoming, memory_order_relaxed) >= 0;
}

static bool module_engine_ready(struct blk_eng *g)
{
	return module_has_news(&g->l) || module_looks(&g->l);
}

/* With one processor a server that answers many requests gets no further than the first answer: it
 * wakes us, we the guest. So it is let run as long as each time more answers are there. */
static void module_gather(struct module_lane *l)
{
	if (l->m->blk.w.h->spin || !l->m->ops->look || !l->finished || !l->out ||
	    !blk_aside_try(&l->aside))
		return;
	for (unsigned n = 0; n < MODULE_GATHER && l->out; n++) {
		unsigned before = l->out;

		blk_aside_step(&l->aside);
		if (module_looks(l))
			l->m->ops->ready(l->own, NULL, 0);
		if (!n)
			blk_aside_learn(&l->aside, l->out < before);
		if (l->out == before)
			return;
	}
}

static void module_news(struct module_lane *l)
{
	int fd = -1;

	if (atomic_load_explicit(&l->incoming, memory_order_relaxed) >= 0)
		fd = atomic_exchange(&l->incoming, -1);
	if (fd >= 0) {
		l->asked = false;
		l->m->ops->lane_connection(l->own, fd);
	}
	if (l->blk->in_flight && l->m->ops->abort && !lane_runs(l->blk->l))
		l->m->ops->abort(l->own);
}

static void module_sleep(struct module_lane *l, struct pollfd *p, unsigned n, int timeout)
{
	if (poll(p, n, timeout) <= 0) {
		for (unsigned i = 0; i < n; i++)
			p[i].revents = 0;
	}
	if (p[0].revents)
		event_drain(p[0].fd);
	if (p[1].revents) {
		event_drain(p[1].fd);
		(*l->conf.kicks)++;
	}
}

static int module_sooner(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void module_engine_wait(struct blk_eng *g, int ms)
{
	struct module_lane *l = &g->l;
	struct pollfd p[2 + MODULE_MAX_POLL] = {{.fd = l->conf.ctl_fd, .events = POLLIN},
						{.fd = l->conf.kick_fd, .events = POLLIN}};
	const struct module_ops *ops = l->m->ops;
	bool open = __atomic_load_n(&l->open, __ATOMIC_ACQUIRE);
	unsigned n = 0;
	int timeout = -1;

	if (open)
		module_news(l);
	if (open && ops->poll)
		n = ops->poll(l->own, p + 2, &timeout);
	if (ms && !module_has_news(l))
		module_sleep(l, p, 2 + n, module_sooner(ms, timeout));
	if (open && ops->ready)
		ops->ready(l->own, p + 2, n);
	if (open)
		module_gather(l);
	module_answers(l);
}

static int module_engine_enter(struct blk_eng *g, struct err *e)
{
	(void)g;
	(void)e;
	return 0;
}

static int module_engine_open(struct blk_eng **out, const struct blk_engine_conf *c, struct err *e)
{
	struct blk_lane *blk = c->ctx;
	struct module *m = (struct module *)(void *)blk->b;
	struct module_lane *l = &m->lane[blk->l->index];

	l->m = m;
	l->blk = blk;
	l->conf = *c;
	l->incoming = -1;
	l->finished_end = &l->finished;
	l->pool = reserve_memory(c->depth * sizeof(*l->pool), true);
	if (!l->pool)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned i = c->depth; i-- > 0;) {
		l->pool[i].next = l->free;
		l->free = &l->pool[i];
	}
	*out = (struct blk_eng *)(void *)l;
	return 0;
}

static void module_engine_rules(const struct blk_eng *g, struct rule_list *l)
{
	rule_fd(l, SYS_read, g->l.conf.ctl_fd, "a lane's thread: commands, news");
	rule_fd(l, SYS_read, g->l.conf.kick_fd, "a lane's thread: kicks");
}

static void module_engine_disk_rules(const struct blk_engine_conf *c, struct rule_list *l)
{
	(void)c;
	rule_any(l, SYS_sched_yield, "one processor: the guest goes first");
	rule_any(l, SYS_clock_nanosleep, "the same: the guest, or the server");
}

const struct blk_engine_ops module_engine = {
	.no_disk = true,
	.by_processes = true,
	.stack = MODULE_STACK,
	.open = module_engine_open,
	.enter = module_engine_enter,
	.submit = module_engine_submit,
	.wait = module_engine_wait,
	.ready = module_engine_ready,
	.rules = module_engine_rules,
	.disk_rules = module_engine_disk_rules,
};
