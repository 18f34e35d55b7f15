/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hostile core and a hostile guest against the helpers: device page, virtio registers,
 * virtqueues, requests to the disk and for random numbers, both consoles, the balloon, restarts. The
 * disk is an array; everything runs in one thread. What lies beside guest memory is shared memory,
 * too, so that a hole that is cut there is seen.
 *
 * The first byte chooses the device, and in its highest bit the bus; then each byte is an action that takes its operands from what
 * follows. Some actions do what a real driver does, so that the fuzzer need not guess a whole
 * negotiation.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <insula/base.h>
#include <insula/log.h>

#include <devices/balloon/balloon.h>
#include <devices/blk/blk.h>
#include <devices/console/console.h>
#include <devices/console/vcon.h>
#include <devices/rng/rng.h>
#include <devices/virtio/virtio_pci.h>

#include "../unit/boardmem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_SIZE (16u << 20)
#define DISK_SIZE (256u << 10)
#define NQUEUES 2
#define MAX_QUEUES 4 /* of the balloon, as Linux has them */
#define VECTORS (MAX_QUEUES + 1)
#define FENCE 4096u
#define QNUM 16
#define RINGS(q) (0x1000u + (q)*0x3000u) /* table, driver area + 0x1000, device area + 0x2000 */
#define MAX_ACTIONS 400
#define MAX_TURNS 128 /* for what one turn can leave to do: more is a loop without a bound */

static struct {
	const uint8_t *p;
	size_t n;
} in;

enum kind { DISK, UART, RNG, VCON, BALLOON };

static struct {
	enum kind kind;
	struct guestmem gm;
	int mem_fd;
	uint8_t *page, *disk;
	struct dp_ctrl *ctrl;
	struct dp_post *ring;
	struct helper h;
	struct blk b;
	struct blk_req *pool;
	uint8_t *bounce;
	struct overlay_layout at; /* of the disk with copy on write: */
	uint8_t *over, *over_memory, *gaps;
	struct blk_io *first, *last; /* submitted to the engine */
	uint8_t chaos;               /* the engine's results are bent by this */
	struct rng r;
	struct vcon v;
	struct balloon bal;
	uint8_t *fence[2]; /* before and behind guest memory */
	unsigned reads;    /* how often the output's reader takes something yet */
	struct uart uart;
	struct console_state *cs;
	uint16_t avail[MAX_QUEUES];
} x;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static uint64_t take(unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in.n; i++, in.p++, in.n--)
		v |= (uint64_t)*in.p << (8 * i);
	return v;
}

/* ---- an engine on an array ---- */

static void mem_submit(struct blk_eng *g, struct blk_io *io)
{
	(void)g;
	io->next = NULL;
	if (x.first)
		x.last->next = io;
	else
		x.first = io;
	x.last = io;
}

/* A part of a block that is being completed, or of the index. */
static bool of_overlay(const uint8_t *p, size_t n)
{
	const struct blk_overlay *o = &x.b.overlay;
	const uint8_t *frozen = (const uint8_t *)o->frozen;
	size_t ngaps = (size_t)NQUEUES * x.b.lane->depth * OVERLAY_BLOCK;

	if (!o->on)
		return false;
	if (p >= x.gaps && p < x.gaps + ngaps)
		return (size_t)(p - x.gaps) % OVERLAY_BLOCK + n <= OVERLAY_BLOCK;
	return frozen && p >= frozen && n <= x.at.index_len &&
	       (size_t)(p - frozen) <= x.at.index_len - n;
}

static bool in_guest_or_own(const struct iovec *v)
{
	const uint8_t *p = v->iov_base;

	for (unsigned i = 0; i < x.gm.nregions; i++) {
		const struct gm_region *r = &x.gm.region[i];

		if (p >= r->host && v->iov_len <= r->size &&
		    (uint64_t)(p - r->host) <= r->size - v->iov_len)
			return true;
	}
	for (unsigned i = 0; i < NQUEUES * BLK_BOUNCES; i++) {
		if (p == x.bounce + i * BLK_BOUNCE_SIZE && v->iov_len <= BLK_BOUNCE_SIZE)
			return true;
	}
	return (p == x.b.zeros && v->iov_len <= BLK_ZERO_SIZE) || of_overlay(p, v->iov_len);
}

/* The disk that the device writes, or the base that it only reads. */
static uint8_t *disk_of(const struct blk_io *io, uint64_t *size)
{
	must(!io->base || (x.b.overlay.on && io->op == BLK_OP_READ), "the base is written");
	*size = x.b.overlay.on && !io->base ? x.at.size : DISK_SIZE;
	return x.b.overlay.on && !io->base ? x.over : x.disk;
}

static int move(const struct blk_io *io)
{
	uint64_t off = io->off, done = 0, size;
	uint8_t *disk = disk_of(io, &size);

	for (unsigned i = 0; i < io->niov; i++) {
		const struct iovec *v = &io->iov[i];

		must(in_guest_or_own(v), "a segment outside of guest memory");
		must(off <= size && v->iov_len <= size - off, "a transfer outside of the disk");
		if (io->op == BLK_OP_READ)
			memcpy(v->iov_base, disk + off, v->iov_len);
		else
			memcpy(disk + off, v->iov_base, v->iov_len);
		off += v->iov_len;
		done += v->iov_len;
	}
	/* Now and then it is a short one. */
	if (x.chaos & 1 && done > 512)
		done = 512;
	return (int)done;
}

static int execute(const struct blk_io *io)
{
	static const int errors[] = {-EIO, -EINTR, -EAGAIN, -EOPNOTSUPP, -ENOSPC, 0};
	uint64_t size;
	uint8_t *disk;

	if (x.chaos & 2 && x.chaos >> 2 < ARRAY_LEN(errors)) {
		int e = errors[x.chaos >> 2];

		x.chaos = 0; /* EINTR for ever would be for ever */
		return io->op != BLK_OP_READ && io->op != BLK_OP_WRITE ? (e ? e : -EIO) : e;
	}
	if (io->op == BLK_OP_SYNC)
		return 0;
	if (io->op == BLK_OP_READ || io->op == BLK_OP_WRITE)
		return move(io);
	disk = disk_of(io, &size);
	must(io->off <= size && io->len <= size - io->off, "fallocate outside of the disk");
	memset(disk + io->off, 0, io->len);
	return 0;
}

static void mem_wait(struct blk_eng *g, int ms)
{
	(void)g;
	(void)ms;
	while (x.first) {
		struct blk_io *io = x.first;

		x.first = io->next;
		blk_io_done(((struct blk_req *)(void *)io)->lane, io, execute(io));
	}
}

static const struct blk_engine_ops mem_engine = {.submit = mem_submit, .wait = mem_wait};

/* ---- disk and random numbers, without their threads ---- */

static struct worker *worker_of(void)
{
	return x.kind == RNG       ? &x.r.w
	       : x.kind == VCON    ? &x.v.w
	       : x.kind == BALLOON ? &x.bal.w
				   : &x.b.w;
}

static unsigned queues(void)
{
	return x.kind == BALLOON ? MAX_QUEUES : NQUEUES;
}

static bool balloon_more(void)
{
	bool any = balloon_turn(&x.bal);

	if (!lane_runs(x.bal.w.lane))
		return any;
	for (unsigned i = 0; i < MAX_QUEUES; i++)
		any |= lane_arm(x.bal.w.lane, i) && x.bal.queue[BALLOON_REPORTS] == i;
	return any || x.bal.busy;
}

/* The output's reader takes everything at once, or (chaos) nothing; at last nothing, because one
 * buffer can have gigabytes. */
static bool vcon_more(void)
{
	struct ends_rings *r = &x.v.st->rings;
	bool any = vcon_turn(&x.v);

	must(x.v.ends.out_head - atomic_load(&r->out_tail) <= CONSOLE_OUT_LEN, "the output ring");
	must(atomic_load(&r->in_head) - atomic_load(&r->in_tail) <= CONSOLE_IN_LEN,
	     "the input ring");
	if (!(x.chaos & 4) && x.reads && x.reads--)
		atomic_store(&r->out_tail, x.v.ends.out_head);
	return vcon_rest(&x.v) == 0 || any;
}

static bool more(void)
{
	bool any = false;

	if (x.kind == VCON)
		return vcon_more();
	if (x.kind == BALLOON)
		return balloon_more();
	if (x.kind == RNG)
		return rng_turn(&x.r) || (lane_runs(x.r.w.lane) && lane_arm(x.r.w.lane, 0));
	for (unsigned i = 0; i < NQUEUES; i++)
		any |= blk_turn(&x.b.lane[i]) || blk_arm(&x.b.lane[i]);
	for (unsigned i = 0; i < NQUEUES; i++)
		any |= atomic_load(&x.b.lane[i].settled) || atomic_load(&x.b.lane[i].granted);
	return any || x.first;
}

static bool in_flight(void)
{
	for (unsigned i = 0; i < NQUEUES; i++) {
		if (x.b.lane[i].in_flight)
			return true;
	}
	return false;
}

static void turns(void)
{
	unsigned n = 0;

	x.reads = MAX_TURNS / 2;
	do {
		mem_wait(NULL, 0);
		must(++n < MAX_TURNS, "turns without an end");
	} while (more());
}

static void model_start(void *dev)
{
	struct worker *w = dev;

	atomic_fetch_add(&w->want, 1);
}

static void model_stop(void *dev)
{
	struct worker *w = dev;

	atomic_fetch_add(&w->want, 1);
	turns();
	must(x.kind != DISK || !in_flight(), "requests in flight after the stop");
	event_drain(w->quiet_fd);
	atomic_store(&w->fault, NULL);
}

/* As helper_attach(). */
static bool catch_up(struct worker *w)
{
	if (port_run(&x.h.port) < 0)
		return false;
	worker_resume(w);
	return true;
}

static void lane_birth(unsigned i, int ctl)
{
	struct blk_lane *l = &x.b.lane[i];

	x.b.w.nlanes = i + 1;
	x.b.w.lane[i].w = &x.b.w;
	x.b.w.lane[i].index = i;
	x.b.w.lane[i].ctl_fd = ctl;
	blk_lane_init(&x.b, i);
	l->pool = x.pool + i * l->depth;
	l->gaps = x.gaps + (size_t)i * l->depth * OVERLAY_BLOCK;
	for (; l->nbounce < BLK_BOUNCES; l->nbounce++)
		l->bounce[l->nbounce] =
			x.bounce + (size_t)(i * BLK_BOUNCES + l->nbounce) * BLK_BOUNCE_SIZE;
}

/* A new process on the same page: everything else is fresh. False: it refuses the page. */
static bool blk_birth(uint8_t flags)
{
	struct blk *b = &x.b;
	int ctl = b->w.lane->ctl_fd, quiet = b->w.quiet_fd;
	const uint8_t *zeros = b->zeros;
	struct err e;

	if (port_open(&x.h.port, x.page, BLK_TAG, NULL))
		return false;
	if (b->overlay.frozen)
		munmap(b->overlay.frozen, x.at.index_len);
	memset(b, 0, sizeof(*b));
	/* What is in the memory an earlier process may have left, or a file may have had. */
	must(!(flags & 16) ||
		     !blk_overlay_init(&b->overlay, DISK_SIZE, flags & 32, x.over_memory, &e),
	     "overlay");
	b->w.h = &x.h;
	b->w.quiet_fd = quiet;
	b->zeros = zeros;
	b->ops = &mem_engine;
	blk_sync_init(&b->sync, -1);
	b->page = x.h.port.dev_state;
	if (!x.h.port.resumed)
		b->page->sync_failed = 0;
	b->w.gm = x.gm;
	b->conf = (struct msg_start_blk){.capacity = DISK_SIZE,
					 .nqueues = NQUEUES,
					 .flags = flags &
						  (flags & 16 ? BLK_DIRECT : BLK_RO | BLK_DIRECT),
					 .logical = flags & 4 ? 4096 : 512,
					 .physical = 4096,
					 .discard_align = flags & 8 ? 0 : 4096};
	for (unsigned i = 0; i < NQUEUES; i++)
		lane_birth(i, ctl);
	b->config = blk_config_space(&b->conf);
	worker_describe(&b->w, 2, blk_features(&b->conf), NQUEUES, &b->config, sizeof(b->config));
	b->w.model.start = model_start;
	b->w.model.stop = model_stop;
	x.first = NULL;
	port_attach(&x.h.port, &worker_helper_ops.regs, &b->w);
	return catch_up(&b->w);
}

/* Its rate is one that no input reaches: the result must not depend on the time. */
static bool rng_birth(void)
{
	struct rng *r = &x.r;

	if (port_open(&x.h.port, x.page, RNG_TAG, NULL))
		return false;
	memset(r, 0, sizeof(*r));
	bucket_init(&r->bucket, 1ull << 40, 1ull << 40, clock_ns());
	r->w.h = &x.h;
	r->w.nlanes = 1;
	r->w.lane->w = &r->w;
	r->w.lane->queues = 1;
	r->w.lane->ctl_fd = x.b.w.lane->ctl_fd;
	r->w.quiet_fd = x.b.w.quiet_fd;
	r->w.gm = x.gm;
	worker_describe(&r->w, VIRTIO_ID_RNG, 0, 1, NULL, 0);
	r->w.model.start = model_start;
	r->w.model.stop = model_stop;
	port_attach(&x.h.port, &worker_helper_ops.regs, &r->w);
	return catch_up(&r->w);
}

static void balloon_begin_serving(void *dev)
{
	balloon_prepare(dev);
	model_start(dev);
}

static bool balloon_birth(uint8_t flags)
{
	const struct msg_start_balloon m = {.pages = 7, .flags = flags & BALLOON_REPORT};
	struct balloon *b = &x.bal;

	if (port_open(&x.h.port, x.page, BALLOON_TAG, NULL))
		return false;
	memset(b, 0, sizeof(*b));
	b->w.h = &x.h;
	b->w.nlanes = 1;
	b->w.lane->w = &b->w;
	b->w.lane->queues = (1u << BALLOON_QUEUES) - 1;
	b->w.lane->ctl_fd = x.b.w.lane->ctl_fd;
	b->w.quiet_fd = x.b.w.quiet_fd;
	b->w.gm = x.gm;
	balloon_describe(b, &m);
	b->w.model.start = balloon_begin_serving;
	b->w.model.stop = model_stop;
	port_attach(&x.h.port, &b->ops.regs, &b->w);
	if (port_run(&x.h.port) < 0)
		return false;
	b->ops.resume(&b->w);
	return true;
}

/* What was typed is anything. */
static bool vcon_birth(void)
{
	struct vcon *v = &x.v;
	struct ends_rings *r;

	if (port_open(&x.h.port, x.page, VCON_TAG, NULL))
		return false;
	memset(v, 0, sizeof(*v));
	v->w.h = &x.h;
	v->w.nlanes = 1;
	v->w.lane->w = &v->w;
	v->w.lane->queues = 3;
	v->w.lane->ctl_fd = x.b.w.lane->ctl_fd;
	v->w.quiet_fd = x.b.w.quiet_fd;
	v->w.gm = x.gm;
	v->strict = true; /* nothing depends on the time */
	v->st = (void *)((uint8_t *)x.h.port.dev_state + VCON_STATE_OFF);
	r = &v->st->rings;
	ends_rings(&v->ends, r, x.h.port.resumed);
	v->ends.out_event = v->ends.in_event = x.h.event_fd;
	if (atomic_load(&r->in_head) == atomic_load(&r->in_tail))
		atomic_fetch_add(&r->in_head, (uint32_t)take(2) % CONSOLE_IN_LEN);
	worker_describe(&v->w, VIRTIO_ID_CONSOLE, 0, VCON_QUEUES, NULL, 0);
	v->w.model.start = model_start;
	v->w.model.stop = model_stop;
	port_attach(&x.h.port, &worker_helper_ops.regs, &v->w);
	return catch_up(&v->w);
}

/* ---- the UART, without its threads ---- */

static size_t tx_room(void *ctx)
{
	(void)ctx;
	return x.chaos & 4 ? x.chaos : 1u << 16;
}

static void tx(void *ctx, uint8_t byte)
{
	(void)ctx;
	x.disk[byte] = byte;
}

static void rx_back(void *ctx, const uint8_t *buf, size_t n)
{
	(void)ctx;
	must(n <= UART_FIFO, "more given back than was there");
	memcpy(x.disk, buf, n);
}

static void uart_irq(void *ctx)
{
	(void)ctx;
}

static const struct uart_ops uart_ops = {tx_room, tx, rx_back, uart_irq};

static void uart_reg_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	(void)size;
	uart_write(dev, off, (uint8_t)val);
}

static uint64_t uart_reg_read(void *dev, uint32_t off, uint32_t size)
{
	(void)size;
	return uart_read(dev, off);
}

static void uart_reg_settle(void *dev)
{
	uart_settle(dev);
}

static const struct dev_ops uart_regs = {uart_reg_write, uart_reg_read, uart_reg_settle, NULL};

static bool uart_birth(void)
{
	if (port_open(&x.h.port, x.page, CONSOLE_TAG, NULL))
		return false;
	x.cs = x.h.port.dev_state;
	if (!x.h.port.resumed)
		uart_reset_state(&x.cs->uart);
	uart_init(&x.uart, &x.cs->uart, x.h.port.shadow, &uart_ops, NULL);
	port_attach(&x.h.port, &uart_regs, &x.uart);
	return true;
}

/* ---- actions ---- */

static void call(uint32_t op, uint32_t off, uint32_t size, uint64_t val)
{
	x.ctrl->req_op = op;
	x.ctrl->req_offset = off;
	x.ctrl->req_size = size;
	x.ctrl->req_value = val;
	atomic_fetch_add(&x.ctrl->req_seq, 1);
}

static bool reg(uint32_t off, uint32_t val)
{
	call(DP_OP_WRITE, off, 4, val);
	return port_run(&x.h.port) >= 0;
}

/* The same on PCI, where one more queue may come and go while the others run. */
static void put(uint32_t off, uint32_t size, uint64_t val)
{
	call(DP_OP_WRITE, off, size, val);
	(void)port_run(&x.h.port);
}

static void set_up_queue(unsigned q)
{
	put(VPCI_QUEUE_SELECT, 2, q);
	put(VPCI_QUEUE_SIZE, 2, QNUM);
	put(VPCI_QUEUE_VECTOR, 2, q + 1);
	for (unsigned i = 0; i < 3; i++)
		put(VPCI_QUEUE_DESC + 8 * i, 8, RINGS(q) + i * 0x1000);
	put(VPCI_QUEUE_ENABLE, 2, 1);
	memset(gm_ptr(&x.gm, RINGS(q), 0x3000), 0, 0x3000);
	x.avail[q] = 0;
}

static void bring_up_pci(uint32_t low)
{
	put(VPCI_STATUS, 1, 0);
	put(VPCI_STATUS, 1, 3);
	put(VPCI_CONFIG_VECTOR, 2, 0);
	put(VPCI_DRIVER_FEATURE_SELECT, 4, 1);
	put(VPCI_DRIVER_FEATURE, 4, 1 | UINT64_C(1) << (VIRTIO_F_RING_RESET - 32));
	put(VPCI_DRIVER_FEATURE_SELECT, 4, 0);
	put(VPCI_DRIVER_FEATURE, 4, low & (uint32_t)(worker_of()->model.features | 3u << 28));
	put(VPCI_STATUS, 1, 11);
	for (unsigned q = 0; q < queues(); q++)
		set_up_queue(q);
	put(VPCI_STATUS, 1, 15);
}

static void reset_queue(void)
{
	unsigned q = (unsigned)take(1);

	put(VPCI_QUEUE_SELECT, 2, q % queues());
	put(VPCI_QUEUE_RESET, 2, 1);
	if (q & 0x80)
		set_up_queue(q % queues());
}

/* Registers of PCI are close together, and of all sizes. */
static void write_some(void)
{
	uint32_t v = (uint32_t)take(2);

	if (x.h.msix)
		call(v & 0x2000 ? DP_OP_READ : DP_OP_WRITE,
		     v & 0x1000 ? v % DP_SHADOW_SIZE : v % 0x48, 1u << (v >> 14), take(4));
	else
		call(DP_OP_WRITE, v, 4, take(4));
}

static void bring_up_mmio(uint32_t low)
{
	static const uint32_t area[] = {VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
					VIRTIO_MMIO_QUEUE_USED_LOW};

	reg(VIRTIO_MMIO_STATUS, 0);
	reg(VIRTIO_MMIO_STATUS, 3);
	reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	reg(VIRTIO_MMIO_DRIVER_FEATURES, low & (uint32_t)(worker_of()->model.features | 3u << 28));
	reg(VIRTIO_MMIO_STATUS, 11);
	for (unsigned q = 0; q < queues(); q++) {
		reg(VIRTIO_MMIO_QUEUE_SEL, q);
		reg(VIRTIO_MMIO_QUEUE_NUM, QNUM);
		for (unsigned i = 0; i < 3; i++)
			reg(area[i], RINGS(q) + i * 0x1000);
		reg(VIRTIO_MMIO_QUEUE_READY, 1);
		memset(gm_ptr(&x.gm, RINGS(q), 0x3000), 0, 0x3000);
		x.avail[q] = 0;
	}
	reg(VIRTIO_MMIO_STATUS, 15);
}

/* A request as a driver makes it, with fields from the input, and descriptors from there if it
 * wants to. */
static void add_request(void)
{
	unsigned q = take(1) % queues(), n = 1 + take(1) % 6;
	uint8_t *avail = gm_ptr(&x.gm, RINGS(q) + 0x1000, 0x1000);
	struct vring_desc *d = gm_ptr(&x.gm, RINGS(q), QNUM * sizeof(*d));
	uint16_t head = (uint16_t)(x.avail[q] * 6 % QNUM), idx;
	struct virtio_blk_outhdr hdr = {.type = (uint32_t)take(1), .sector = take(2)};

	if (hdr.sector == 0xffff)
		hdr.sector = take(8);
	memcpy(gm_ptr(&x.gm, 0x100000 + head * 64u, 16), &hdr, 16);
	for (unsigned i = 0; i < n; i++) {
		unsigned at = (head + i) % QNUM;
		uint8_t how = (uint8_t)take(1);

		d[at] = (struct vring_desc){.addr = 0x200000 + at * 0x10000u +
						    (how & 4 ? take(1) : 0),
					    .len = 512 * (1 + (how >> 5)),
					    .flags = (uint16_t)(how & 3),
					    .next = (uint16_t)((at + 1) % QNUM)};
		if (how & 8) {
			d[at].addr = take(4);
			d[at].len = (uint32_t)take(4);
			/* Not because longer ones would do harm: they take long. */
			if (x.kind == BALLOON && d[at].len < MEM_SIZE)
				d[at].len &= 0xffff;
			d[at].flags = (uint16_t)take(1);
			d[at].next = (uint16_t)take(1);
		}
	}
	if (x.kind == BALLOON) {
		uint32_t pfn[] = {(uint32_t)take(3), (uint32_t)take(1), (uint32_t)take(1)};

		memcpy(gm_ptr(&x.gm, 0x200000 + head * 0x10000u, sizeof(pfn)), pfn, sizeof(pfn));
	}
	if (take(1) & 1) {
		d[head].addr = 0x100000 + head * 64u;
		d[head].len = 16;
		d[head].flags = VRING_DESC_F_NEXT;
	}
	memcpy(avail + 4 + 2 * (x.avail[q] % QNUM), &head, 2);
	idx = ++x.avail[q];
	memcpy(avail + 2, &idx, 2);
}

static void write_guest(void)
{
	uint64_t gpa = take(3) % MEM_SIZE, n = take(1) % 64;
	uint8_t *p = gm_ptr(&x.gm, gpa, n);

	for (uint64_t i = 0; p && i < n; i++)
		p[i] = (uint8_t)take(1);
}

static void hostile_ctrl(void)
{
	uint32_t v = (uint32_t)take(4);

	switch (take(1) % 6) {
	case 0:
		atomic_store(&x.ctrl->ring_head, v);
		break;
	case 1:
		atomic_store(&x.ctrl->req_seq, v);
		break;
	case 2:
		atomic_store(&x.ctrl->ring_tail, v);
		break;
	case 3:
		atomic_store(&x.ctrl->ack_seq, v);
		break;
	case 4:
		x.ctrl->magic = v;
		break;
	case 5:
		atomic_fetch_add(&x.ctrl->lost, 1);
		break;
	}
}

static void post(void)
{
	uint32_t head = atomic_load(&x.ctrl->ring_head);

	x.ring[head % DP_RING_LEN] =
		(struct dp_post){(uint32_t)take(2), 1u << take(1) % 5, take(4)};
	atomic_store(&x.ctrl->ring_head, head + 1);
}

/* A predecessor that was taken over may have written anything into the state. */
static void hostile_state(void)
{
	uint32_t at = (uint32_t)take(2), off = DP_STATE_OFF + at % (DP_STATE_SIZE - 8);
	uint64_t v = take(8);

	/* The index and its flags: of these few are looked at. */
	if (x.kind == DISK && x.b.overlay.on && at & 0x8000)
		memcpy(x.over_memory + (at & 1 ? x.at.live_off + at % 8 : x.at.flags_off), &v,
		       take(1) % 9);
	else
		memcpy(x.page + off, &v, take(1) % 9);
}

static bool birth(void)
{
	if (x.kind == DISK)
		return blk_birth((uint8_t)take(1));
	if (x.kind == VCON)
		return vcon_birth();
	if (x.kind == BALLOON)
		return balloon_birth((uint8_t)take(1));
	return x.kind == UART ? uart_birth() : rng_birth();
}

static bool action(void)
{
	bool uart = x.kind == UART;

	switch (take(1) % 12) {
	case 0:
		post();
		break;
	case 1:
		write_some();
		break;
	case 2:
		call((uint32_t)take(1) % 4, (uint32_t)take(2), (uint32_t)take(1), take(8));
		break;
	case 3:
		hostile_ctrl();
		break;
	case 4:
		write_guest();
		break;
	case 5:
		x.chaos = (uint8_t)take(1);
		break;
	case 6:
		if (x.h.msix)
			bring_up_pci((uint32_t)take(4));
		else if (!uart)
			bring_up_mmio((uint32_t)take(4));
		break;
	case 7:
		if (x.h.msix && in.n && *in.p & 0x40) {
			reset_queue();
			break;
		}
		/* fall through */
	case 8:
		if (!uart)
			add_request();
		break;
	case 9:
		if (!uart)
			turns();
		else
			uart_rx(&x.uart, (const uint8_t *)"0123456789abcdef0123456789",
				take(1) % 26);
		break;
	case 10:
		hostile_state();
		/* fall through: only a new process reads the state */
	case 11:
		return birth();
	}
	return port_run(&x.h.port) >= 0;
}

/* A page of shared memory right there: what guest memory is made of, too. */
static uint8_t *put_fence(uint8_t *at)
{
	struct err e;
	int fd = shm_create("fence", FENCE, &e);
	void *p = mmap(at, FENCE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);

	must(fd >= 0 && p == at, "no room for a fence");
	memset(at, 0x5a, FENCE);
	return at;
}

static void look_at_fences(void)
{
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; i < FENCE; i += 8)
			must(x.fence[k][i] == 0x5a, "a hole outside of guest memory");
	}
}

static void init_once(void)
{
	struct err e;

	if (x.page)
		return;
	log_setup("", LOG_LVL_ERROR);
	x.mem_fd = shm_create("fuzz", MEM_SIZE, &e);
	must(x.mem_fd >= 0 && board_gm_map(&x.gm, x.mem_fd, MEM_SIZE, &e) == 0, "guest memory");
	x.fence[0] = put_fence(x.gm.region[0].host - FENCE);
	x.fence[1] = put_fence(x.gm.region[0].host + MEM_SIZE);
	x.page = aligned_alloc(4096, DP_SIZE);
	x.disk = malloc(DISK_SIZE);
	x.pool = malloc(BLK_POOL * sizeof(*x.pool));
	x.b.zeros = calloc(1, BLK_ZERO_SIZE);
	x.bounce = malloc(NQUEUES * BLK_BOUNCES * BLK_BOUNCE_SIZE);
	x.at = overlay_layout(DISK_SIZE);
	x.over = calloc(1, x.at.size);
	x.over_memory = calloc(1, x.at.memory);
	x.gaps = aligned_alloc(OVERLAY_BLOCK, BLK_POOL * OVERLAY_BLOCK);
	must(x.page && x.disk && x.pool && x.b.zeros && x.bounce, "memory");
	must(x.over && x.over_memory && x.gaps, "memory");
	x.ctrl = (struct dp_ctrl *)(void *)(x.page + DP_CTRL_OFF);
	x.ring = (struct dp_post *)(void *)(x.page + DP_RING_OFF);
	for (unsigned i = 0; i < VECTORS; i++)
		x.h.irq_fd[i] = event_create();
	x.h.event_fd = event_create();
	x.b.w.lane->ctl_fd = event_create();
	x.b.w.quiet_fd = event_create();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum kind kinds[] = {DISK, UART, RNG, VCON, BALLOON};
	uint8_t first;
	bool ok;

	init_once();
	in.p = data;
	in.n = size;
	memset(x.page, 0, DP_SIZE);
	memset(x.over_memory, 0, x.at.memory);
	must(madvise(x.gm.region[0].host, MEM_SIZE, MADV_REMOVE) == 0, "MADV_REMOVE");
	x.ctrl->magic = DP_MAGIC;
	x.ctrl->size = DP_SIZE;
	x.chaos = 0;
	first = (uint8_t)take(1);
	x.kind = kinds[(first & 0x7f) % ARRAY_LEN(kinds)];
	x.h.msix = first & 0x80 && x.kind != UART;
	x.h.nirqs = x.h.msix ? VECTORS : 1;
	ok = birth();
	for (unsigned i = 0; ok && in.n && i < MAX_ACTIONS; i++)
		ok = action();
	look_at_fences();
	for (unsigned i = 0; i < VECTORS; i++)
		event_drain(x.h.irq_fd[i]);
	event_drain(x.h.event_fd);
	event_drain(x.b.w.quiet_fd);
	return 0;
}
