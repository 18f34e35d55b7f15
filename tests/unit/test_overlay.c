/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copy on write, on a disk of the test's own: requests of two queues that are done in any order, in
 * pieces, with errors, while the process is killed at any request to the disk, and the machine
 * crashes and loses any part of what was not synced, sector by sector.
 *
 * The model: each sector says which write it is of. After a crash it may be the last one that a
 * flush was answered for, or any later one; nothing else, and never a part of one.
 *
 * INSULA_TEST_OVERLAY: how many crashes each seed has (200); INSULA_TEST_SEED: the first seed.
 */
#include <check.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <insula/stats.h>

#include <devices/blk/blk.h>

#include "fakedrv.h"

#define MEM_SIZE (16u << 20)
#define LANES 2u
#define QNUM 128u
#define SECTOR 512u
#define SECTORS 250u /* the last block is not a whole one */
#define CAPACITY (SECTORS * SECTOR)
#define SLOTS 24u
#define SLOT_SECTORS 20u
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define HEADER(i) (0x100000u + (i)*256u)
#define DATA(i) (0x200000u + (i) * (SLOT_SECTORS + 1) * SECTOR)
#define LOG 65536u
#define FEATURES \
	(DRV_F(VIRTIO_F_VERSION_1) | DRV_F(VIRTIO_BLK_F_FLUSH) | DRV_F(VIRTIO_RING_F_INDIRECT_DESC))

/* Check writes to a pipe at each of its assertions. */
#define must(ok, ...)                              \
	do {                                       \
		if (!(ok))                         \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

/* What a sector says: which write it is of. All zeros: it was zeroed. */
struct stamp {
	uint32_t sector, version; /* counted from 1; version 0: the base's */
};

struct slot {
	bool used;
	uint32_t type, sector, n, version;
	uint32_t covers[SECTORS]; /* of a flush: what was answered when it came */
};

static struct sim {
	/* the guest */
	struct guestmem gm;
	int mem_fd;
	struct drvq drv[LANES];
	struct slot slot[SLOTS];
	/* the process */
	struct helper h;
	struct blk b;
	struct blk_req *pool;
	uint8_t *gaps;
	struct blk_io *pending[BLK_POOL * 2];
	unsigned npending;
	/* what outlives it */
	struct blk_page *page;
	uint8_t *memory;
	/* the disks */
	struct overlay_layout at;
	uint8_t *base, *cache, *stable;
	struct write {
		uint32_t sector;
		uint8_t data[SECTOR];
	} * log; /* not synced */
	unsigned nlog, sync_from;
	/* the model */
	uint32_t rnd, version;
	uint32_t floor[SECTORS]; /* the last that a flush was answered for */
	uint32_t acked[SECTORS];
	uint32_t zeroed[SECTORS]; /* the last write of zeros */
	bool unsure[SECTORS];     /* a write has failed since, or was discarded */
	bool busy[SECTORS];
	unsigned in_flight;
	unsigned crashes, kills, requests, copied, bad_percent;
} x;

static uint32_t rnd(uint32_t n)
{
	x.rnd ^= x.rnd << 13;
	x.rnd ^= x.rnd >> 17;
	x.rnd ^= x.rnd << 5;
	return x.rnd % n;
}

static bool chance(unsigned percent)
{
	return rnd(100) < percent;
}

/* ---- sectors ---- */

static void write_stamp(uint8_t *p, uint32_t sector, uint32_t version)
{
	const struct stamp s = {sector + 1, version};

	for (unsigned i = 0; i < SECTOR; i += sizeof(s))
		memcpy(p + i, &s, sizeof(s));
}

static bool is_zero(const uint8_t *p)
{
	return mem_is_zero(p, SECTOR);
}

/* Which write a sector is of. A zeroed one: of the last that there was. */
static uint32_t stamp_of(const uint8_t *p, uint32_t sector)
{
	struct stamp s;

	if (is_zero(p)) {
		must(x.zeroed[sector], "sector %u is zeros, and never was zeroed", sector);
		return x.zeroed[sector];
	}
	memcpy(&s, p, sizeof(s));
	must(s.sector == sector + 1, "sector %u has what is sector %u's", sector, s.sector - 1);
	for (unsigned i = 0; i < SECTOR; i += sizeof(s))
		must(!memcmp(p + i, &s, sizeof(s)), "sector %u is torn", sector);
	must(s.version <= x.version, "sector %u: write %u", sector, s.version);
	return s.version;
}

/* ---- the disks ---- */

static void log_sector(uint64_t off, const uint8_t *data)
{
	struct write *w = &x.log[x.nlog++];

	must(x.nlog < LOG, "room");
	must(off % SECTOR == 0, "not a sector");
	w->sector = (uint32_t)(off / SECTOR);
	memcpy(w->data, data, SECTOR);
	memcpy(x.cache + off, data, SECTOR);
}

/* What was written when it began; seldom what came since. */
static void sync_log(void)
{
	unsigned n = chance(20) ? x.nlog : x.sync_from;

	for (unsigned i = 0; i < n; i++)
		memcpy(x.stable + (uint64_t)x.log[i].sector * SECTOR, x.log[i].data, SECTOR);
	x.nlog -= n;
	memmove(x.log, x.log + n, x.nlog * sizeof(*x.log));
}

/* Of each sector that was written since: any of its writes, or none. */
static void lose_some(void)
{
	memcpy(x.cache, x.stable, x.at.size);
	for (unsigned i = 0; i < x.nlog; i++) {
		if (chance(50))
			memcpy(x.cache + (uint64_t)x.log[i].sector * SECTOR, x.log[i].data, SECTOR);
	}
	memcpy(x.stable, x.cache, x.at.size);
	x.nlog = 0;
}

/* `most` bytes of it at the most. */
static int transfer(const struct blk_io *io, uint64_t most)
{
	uint8_t sector[SECTOR];
	uint64_t off = io->off, done = 0;
	unsigned have = 0;

	must(io->op == BLK_OP_READ || !io->base, "the base is written");
	for (unsigned i = 0; i < io->niov; i++) {
		uint8_t *p = io->iov[i].iov_base;

		for (size_t k = 0; k < io->iov[i].iov_len && done < most; k++, off++, done++) {
			must(off < (io->base ? CAPACITY : x.at.size), "beyond the end");
			if (io->op == BLK_OP_READ) {
				p[k] = (io->base ? x.base : x.cache)[off];
				continue;
			}
			sector[have++] = p[k];
			if (have == SECTOR)
				log_sector(off + 1 - SECTOR, sector);
			have %= SECTOR;
		}
	}
	x.copied += io->base && io->op == BLK_OP_READ;
	return (int)done;
}

static int execute(const struct blk_io *io, bool whole)
{
	static const uint8_t zeros[SECTOR];
	uint64_t most = whole ? UINT64_MAX : (1 + rnd(8)) * SECTOR;

	switch (io->op) {
	case BLK_OP_READ:
	case BLK_OP_WRITE:
		return transfer(io, most);
	case BLK_OP_SYNC:
		sync_log();
		return 0;
	case BLK_OP_PUNCH:
	case BLK_OP_ZERO:
		ck_assert_uint_ge(io->off, x.at.data_off);
		ck_assert_uint_le(io->off + io->len, x.at.size);
		for (uint64_t off = io->off; off < io->off + io->len; off += SECTOR)
			log_sector(off, zeros);
		return 0;
	default:
		ck_abort_msg("operation %u", io->op);
	}
}

static void sim_submit(struct blk_eng *g, struct blk_io *io)
{
	(void)g;
	must(x.npending < ARRAY_LEN(x.pending), "room");
	x.pending[x.npending++] = io;
	if (io->op == BLK_OP_SYNC)
		x.sync_from = x.nlog;
}

static const struct blk_engine_ops sim_engine = {.submit = sim_submit};

static struct blk_io *take_pending(unsigned i)
{
	struct blk_io *io = x.pending[i];

	x.pending[i] = x.pending[--x.npending];
	return io;
}

static void one_io(void)
{
	static const int errors[] = {-EIO, -ENOSPC, -EAGAIN, -EINTR, -EOPNOTSUPP};
	struct blk_io *io = take_pending(rnd(x.npending));
	int res;

	/* What fails may have done a part of it. */
	if (chance(x.bad_percent)) {
		if (io->op == BLK_OP_WRITE && chance(50))
			(void)execute(io, false);
		res = errors[rnd(ARRAY_LEN(errors))];
		if (res == -EOPNOTSUPP && (io->op == BLK_OP_WRITE || io->op == BLK_OP_READ))
			res = -EIO;
	} else {
		res = execute(io, chance(80));
	}
	blk_io_done(((struct blk_req *)(void *)io)->lane, io, res);
}

/* ---- a process ---- */

static void lane_birth(unsigned i, bool resume)
{
	struct blk_lane *l = &x.b.lane[i];
	struct err e = {0};

	x.b.w.nlanes = i + 1;
	x.b.w.lane[i].w = &x.b.w;
	x.b.w.lane[i].index = i;
	x.b.w.lane[i].ctl_fd = x.h.event_fd;
	blk_lane_init(&x.b, i);
	l->pool = x.pool + (size_t)i * l->depth;
	l->gaps = x.gaps + (size_t)i * l->depth * OVERLAY_BLOCK;
	ck_assert_int_eq(vq_start(l->q, &x.page->virtio.q[i], &x.gm, FEATURES, resume, &e), 0);
	l->resumed = vq_resumed(l->q);
}

/* Its memory. */
static void death(void)
{
	if (x.b.overlay.frozen)
		munmap(x.b.overlay.frozen, x.at.index_len);
	free((void *)(uintptr_t)x.b.zeros);
	x.b.overlay.frozen = NULL;
	x.b.zeros = NULL;
}

static void birth(bool resume)
{
	struct err e = {0};

	death();
	memset(&x.b, 0, sizeof(x.b));
	x.npending = 0;
	x.b.w.h = &x.h;
	x.b.w.gm = x.gm;
	x.b.ops = &sim_engine;
	x.b.page = x.page;
	x.b.w.front.v.st = &x.page->virtio;
	x.b.w.front.h = &x.h;
	x.b.conf = (struct msg_start_blk){.capacity = CAPACITY,
					  .nqueues = LANES,
					  .flags = BLK_OVERLAY,
					  .logical = SECTOR,
					  .physical = 4096,
					  .discard_align = 4096};
	x.b.zeros = calloc(1, BLK_ZERO_SIZE);
	blk_sync_init(&x.b.sync, -1);
	ck_assert_int_eq(blk_overlay_init(&x.b.overlay, CAPACITY, false, x.memory, &e), 0);
	for (unsigned i = 0; i < LANES; i++)
		lane_birth(i, resume);
	blk_sync_start(&x.b);
	atomic_store(&x.b.w.want, 1);
}

/* Requests that it has given to the kernel end, in whatever way, before the next one begins. */
static void kill_process(void)
{
	while (x.npending) {
		struct blk_io *io = take_pending(rnd(x.npending));

		if (chance(60))
			(void)execute(io, chance(60));
	}
	x.kills++;
	birth(true);
}

/* ---- the guest ---- */

static void boot(void)
{
	for (unsigned i = 0; i < LANES; i++) {
		struct vq_state *q = &x.page->virtio.q[i];

		drvq_init(&x.drv[i], &x.gm, RINGS(i), QNUM, false, -1);
		memset(q, 0, sizeof(*q));
		q->num = QNUM;
		q->ready = 1;
		q->desc = RINGS(i);
		q->driver = RINGS(i) + 0x1000;
		q->device = RINGS(i) + 0x2000;
	}
	x.page->virtio.driver_features = FEATURES;
	memset(x.slot, 0, sizeof(x.slot));
	memset(x.busy, 0, sizeof(x.busy));
	x.in_flight = 0;
}

static bool is_write(const struct slot *s)
{
	return s->type == VIRTIO_BLK_T_OUT || s->type == VIRTIO_BLK_T_WRITE_ZEROES ||
	       s->type == VIRTIO_BLK_T_DISCARD;
}

/* Sizes that meet in a block, and some that cover several. False: one of them is busy. */
static bool choose(struct slot *s)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_OUT,          VIRTIO_BLK_T_OUT,
					 VIRTIO_BLK_T_OUT,          VIRTIO_BLK_T_IN,
					 VIRTIO_BLK_T_IN,           VIRTIO_BLK_T_FLUSH,
					 VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD};

	s->type = types[rnd(ARRAY_LEN(types))];
	s->n = s->type == VIRTIO_BLK_T_FLUSH ? 0 : chance(70) ? 1 + rnd(3) : 1 + rnd(SLOT_SECTORS);
	s->sector = rnd(SECTORS - s->n + 1);
	for (uint32_t i = 0; i < s->n; i++) {
		if (x.busy[s->sector + i])
			return false;
	}
	return true;
}

static unsigned fill_data(struct slot *s, struct vring_desc *d)
{
	unsigned at = (unsigned)(s - x.slot), cut = s->n > 1 ? rnd(s->n) * SECTOR + rnd(SECTOR) : 0;
	struct virtio_blk_discard_write_zeroes *r = gm_ptr(&x.gm, HEADER(at) + 64, sizeof(*r));
	uint8_t *p = gm_ptr(&x.gm, DATA(at), SLOT_SECTORS * SECTOR);
	bool in = s->type == VIRTIO_BLK_T_IN;
	unsigned n = 0;

	if (s->type == VIRTIO_BLK_T_FLUSH)
		return 0;
	if (s->type == VIRTIO_BLK_T_WRITE_ZEROES || s->type == VIRTIO_BLK_T_DISCARD) {
		*r = (struct virtio_blk_discard_write_zeroes){.sector = s->sector,
							      .num_sectors = s->n};
		r->flags = s->type == VIRTIO_BLK_T_WRITE_ZEROES && chance(50);
		d[n++] = drv_desc(HEADER(at) + 64, sizeof(*r), false);
		return n;
	}
	for (uint32_t i = 0; i < s->n; i++)
		write_stamp(p + i * SECTOR, in ? UINT32_MAX : s->sector + i, s->version);
	/* In two pieces, the first of any length. */
	if (cut)
		d[n++] = drv_desc(DATA(at), cut, in);
	d[n++] = drv_desc(DATA(at) + cut, s->n * SECTOR - cut, in);
	return n;
}

static void submit(struct slot *s)
{
	unsigned at = (unsigned)(s - x.slot), n = 1;
	struct virtio_blk_outhdr *h = gm_ptr(&x.gm, HEADER(at), 64);
	struct vring_desc d[4];

	s->used = true;
	s->version = is_write(s) ? ++x.version : 0;
	memcpy(s->covers, x.acked, sizeof(s->covers));
	*h = (struct virtio_blk_outhdr){.type = s->type};
	if (s->type == VIRTIO_BLK_T_IN || s->type == VIRTIO_BLK_T_OUT)
		h->sector = s->sector;
	((uint8_t *)h)[32] = 0xee;
	d[0] = drv_desc(HEADER(at), 16, false);
	n += fill_data(s, d + 1);
	d[n++] = drv_desc(HEADER(at) + 32, 1, true);
	for (uint32_t i = 0; i < s->n; i++) {
		x.busy[s->sector + i] = true;
		if (s->type == VIRTIO_BLK_T_WRITE_ZEROES || s->type == VIRTIO_BLK_T_DISCARD)
			x.zeroed[s->sector + i] = s->version;
	}
	drvq_add(&x.drv[at % LANES], d, n, s);
	x.in_flight++;
	x.requests++;
}

static void check_read(const struct slot *s)
{
	const uint8_t *p = gm_ptr(&x.gm, DATA((unsigned)(s - x.slot)), SLOT_SECTORS * SECTOR);

	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t at = s->sector + i, v = stamp_of(p + i * SECTOR, at);

		if (x.unsure[at])
			must(v >= x.floor[at], "sector %u: %u was read, %u flushed", at, v,
			     x.floor[at]);
		else
			must(v == x.acked[at], "sector %u: %u was read, %u written", at, v,
			     x.acked[at]);
	}
}

static void complete(struct slot *s)
{
	uint8_t st = *((uint8_t *)gm_ptr(&x.gm, HEADER((unsigned)(s - x.slot)), 64) + 32);
	bool good = st == VIRTIO_BLK_S_OK;

	must(s->used && (good || st == VIRTIO_BLK_S_IOERR || st == VIRTIO_BLK_S_UNSUPP),
	     "status %u", st);
	must(good || x.bad_percent, "an error");
	if (s->type == VIRTIO_BLK_T_IN && good)
		check_read(s);
	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t at = s->sector + i;

		x.busy[at] = false;
		if (!is_write(s))
			continue;
		x.unsure[at] = !good || s->type == VIRTIO_BLK_T_DISCARD;
		if (!x.unsure[at])
			x.acked[at] = s->version;
	}
	for (uint32_t i = 0; s->type == VIRTIO_BLK_T_FLUSH && good && i < SECTORS; i++) {
		if (x.floor[i] < s->covers[i])
			x.floor[i] = s->covers[i];
	}
	s->used = false;
	x.in_flight--;
}

static void reap(void)
{
	uint16_t head;
	uint32_t len;
	void *cookie;

	for (unsigned i = 0; i < LANES; i++) {
		while (drvq_get(&x.drv[i], &head, &len, &cookie))
			complete(cookie);
	}
}

/* ---- the machine ---- */

/* What the first process does with the file: the index is what is stable. */
static void load_index(void)
{
	memset(x.memory, 0, x.at.memory);
	memcpy(x.memory + x.at.live_off, x.cache + x.at.index_off, x.at.index_len);
}

static const uint8_t *disk_sector(uint32_t sector)
{
	uint32_t block = sector / (OVERLAY_BLOCK / SECTOR);
	bool over = x.memory[x.at.live_off + block / 8] >> block % 8 & 1;

	return (over ? x.cache + x.at.data_off : x.base) + (uint64_t)sector * SECTOR;
}

static void check_after_crash(void)
{
	for (uint32_t s = 0; s < SECTORS; s++) {
		uint32_t v = stamp_of(disk_sector(s), s);

		must(v >= x.floor[s], "sector %u is write %u after a crash; %u was flushed", s, v,
		     x.floor[s]);
		x.floor[s] = x.acked[s] = v;
		if (!is_zero(disk_sector(s)))
			x.zeroed[s] = 0;
		x.unsure[s] = false;
	}
}

static void crash(void)
{
	while (x.npending) {
		struct blk_io *io = take_pending(rnd(x.npending));

		if (chance(50) && io->op != BLK_OP_SYNC)
			(void)execute(io, chance(60));
	}
	lose_some();
	load_index();
	check_after_crash();
	x.crashes++;
	boot();
	birth(false);
}

static void step(void)
{
	struct slot *s = &x.slot[rnd(SLOTS)];
	unsigned what = rnd(100);

	if (what < 35 && !s->used && choose(s))
		submit(s);
	else if (what < 60)
		(void)blk_turn(&x.b.lane[rnd(LANES)]);
	else if (what < 95 && x.npending)
		one_io();
	else
		reap();
}

/* The index is being written: here a mistake would tell. */
static bool delicate(void)
{
	const struct blk_overlay *o = &x.b.overlay;

	return o->first_page != o->end_page && o->step != OVERLAY_DATA;
}

/* All that is under way comes to its end by itself: nothing waits for ever. */
static void settle(void)
{
	for (unsigned n = 0; x.in_flight; n++) {
		must(n < 100000, "%u requests are never answered", x.in_flight);
		if (x.npending)
			one_io();
		(void)blk_turn(&x.b.lane[rnd(LANES)]);
		reap();
	}
	for (unsigned i = 0; i < LANES; i++)
		ck_assert_uint_eq(x.b.lane[i].in_flight, 0);
	ck_assert_ptr_null(x.b.overlay.queue);
}

static void setup(void)
{
	memset(&x, 0, sizeof(x));
	x.mem_fd = drv_memory(&x.gm, MEM_SIZE);
	x.at = overlay_layout(CAPACITY);
	x.page = calloc(1, sizeof(*x.page));
	x.memory = calloc(1, x.at.memory);
	x.base = calloc(1, CAPACITY);
	x.cache = calloc(1, x.at.size);
	x.stable = calloc(1, x.at.size);
	x.log = malloc(LOG * sizeof(*x.log));
	x.pool = calloc(BLK_POOL, sizeof(*x.pool));
	x.gaps = aligned_alloc(OVERLAY_BLOCK, BLK_POOL * OVERLAY_BLOCK);
	x.h.irq_fd[0] = event_create();
	x.h.nirqs = 1;
	x.h.event_fd = event_create();
	for (uint32_t s = 0; s < SECTORS; s++)
		write_stamp(x.base + s * SECTOR, s, 0);
	boot();
	birth(false);
}

static void teardown(void)
{
	death();
	gm_unmap(&x.gm);
	fd_close(&x.mem_fd);
	fd_close(&x.h.irq_fd[0]);
	fd_close(&x.h.event_fd);
	free(x.page);
	free(x.memory);
	free(x.base);
	free(x.cache);
	free(x.stable);
	free(x.log);
	free(x.pool);
	free(x.gaps);
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
	const char *s = getenv(name);

	return s ? (unsigned)strtoul(s, NULL, 0) : otherwise;
}

static void new_overlay(void)
{
	memset(x.cache, 0xdb, x.at.size); /* what is in a place that has no bit is nobody's */
	memset(x.cache, 0, x.at.data_off);
	memcpy(x.stable, x.cache, x.at.size);
	x.nlog = 0;
	load_index();
	memset(x.floor, 0, sizeof(x.floor));
	memset(x.acked, 0, sizeof(x.acked));
	memset(x.zeroed, 0, sizeof(x.zeroed));
	memset(x.unsure, 0, sizeof(x.unsure));
	boot();
	birth(false);
}

static void run(uint32_t seed, unsigned bad_percent)
{
	unsigned wanted = from_environment("INSULA_TEST_OVERLAY", 200);
	uint8_t *base = malloc(CAPACITY);

	memcpy(base, x.base, CAPACITY);
	x.rnd = seed;
	x.bad_percent = bad_percent;
	new_overlay();
	while (x.crashes < wanted) {
		/* At first there is much to be copied; later little. Begin again now and then. */
		if (x.crashes % 6 == 0 && !x.in_flight && chance(50))
			new_overlay();
		for (unsigned n = rnd(600); n; n--) {
			step();
			if (rnd(150) == 0)
				kill_process();
			if (delicate() && chance(3))
				crash();
		}
		if (chance(30))
			settle();
		if (chance(80))
			crash();
	}
	settle();
	ck_assert_mem_eq(base, x.base, CAPACITY);
	free(base);
	fprintf(stderr, "seed %u: %u crashes, %u kills, %u requests, %u reads of the base\n", seed,
		x.crashes, x.kills, x.requests, x.copied);
	ck_assert_uint_gt(x.copied, 0);
}

START_TEST(crashes_and_kills)
{
	run(from_environment("INSULA_TEST_SEED", 1) + (uint32_t)_i * 7919, 0);
}
END_TEST

START_TEST(crashes_kills_and_errors)
{
	run(from_environment("INSULA_TEST_SEED", 1) + 104729 + (uint32_t)_i * 7919, 4);
}
END_TEST

/* ---- what is in which place ---- */

START_TEST(runs)
{
	struct blk_overlay o;
	struct err e = {0};
	struct overlay_layout at = overlay_layout(300 * OVERLAY_BLOCK);
	uint8_t *memory = calloc(1, at.memory);
	bool over;

	ck_assert_int_eq(blk_overlay_init(&o, 300 * OVERLAY_BLOCK, true, memory, &e), 0);
	for (unsigned b = 10; b < 200; b++)
		memory[at.live_off + b / 8] |= (uint8_t)(1u << b % 8);
	ck_assert_uint_eq(blk_overlay_run(&o, 0, 300 * OVERLAY_BLOCK, &over), 10 * OVERLAY_BLOCK);
	ck_assert(!over);
	ck_assert_uint_eq(blk_overlay_run(&o, 512, 1024, &over), 1024);
	ck_assert_uint_eq(blk_overlay_run(&o, 9 * OVERLAY_BLOCK + 512, OVERLAY_BLOCK, &over),
			  OVERLAY_BLOCK - 512);
	ck_assert_uint_eq(blk_overlay_run(&o, 10 * OVERLAY_BLOCK, 290 * OVERLAY_BLOCK, &over),
			  190 * OVERLAY_BLOCK);
	ck_assert(over);
	ck_assert_uint_eq(blk_overlay_run(&o, 200 * OVERLAY_BLOCK, 512, &over), 512);
	ck_assert(!over);
	ck_assert(blk_overlay_has(&o, 10 * OVERLAY_BLOCK, 190 * OVERLAY_BLOCK));
	ck_assert(!blk_overlay_has(&o, 10 * OVERLAY_BLOCK - 512, 190 * OVERLAY_BLOCK));
	ck_assert(!blk_overlay_has(&o, 10 * OVERLAY_BLOCK, 190 * OVERLAY_BLOCK + 512));
	free(memory);
}
END_TEST

/* Two requests for a part of one block, of two queues: the second one waits, and finds what the
 * first one wrote. */
START_TEST(one_at_a_time)
{
	struct slot *a = &x.slot[0], *b = &x.slot[1];

	x.rnd = 1;
	*a = (struct slot){.type = VIRTIO_BLK_T_OUT, .sector = 1, .n = 1};
	*b = (struct slot){.type = VIRTIO_BLK_T_OUT, .sector = 3, .n = 1};
	submit(a);
	submit(b);
	(void)blk_turn(&x.b.lane[0]);
	(void)blk_turn(&x.b.lane[1]);
	ck_assert_uint_eq(x.npending, 1); /* of the first one alone */
	settle();
	ck_assert_uint_eq(stamp_of(disk_sector(1), 1), a->version);
	ck_assert_uint_eq(stamp_of(disk_sector(3), 3), b->version);
	for (unsigned s = 0; s < 8; s++) {
		if (s != 1 && s != 3)
			ck_assert_uint_eq(stamp_of(disk_sector(s), s), 0);
	}
}
END_TEST

/* A block that is there costs nothing: a write is one request to the disk. */
START_TEST(no_more_than_a_write)
{
	struct slot *a = &x.slot[0];

	x.rnd = 1;
	for (unsigned i = 0; i < 3; i++) {
		struct blk_io *io;

		/* Aligned at first: nothing is copied. Then anything in it. */
		*a = (struct slot){
			.type = VIRTIO_BLK_T_OUT, .sector = i ? 9 + i : 8, .n = i ? 3 : 8};
		submit(a);
		(void)blk_turn(&x.b.lane[0]);
		ck_assert_uint_eq(x.npending, 1);
		ck_assert_uint_eq(x.pending[0]->op, BLK_OP_WRITE);
		io = take_pending(0);
		blk_io_done(&x.b.lane[0], io, execute(io, true));
		ck_assert_uint_eq(x.npending, 0);
		(void)blk_turn(&x.b.lane[0]);
		reap();
	}
	ck_assert_uint_eq(x.copied, 0);
}
END_TEST

/* A flush with nothing new in the index is one sync; with something new it is two, and a write. */
START_TEST(syncs_of_a_flush)
{
	static const enum blk_op first[] = {BLK_OP_SYNC, BLK_OP_WRITE, BLK_OP_SYNC};
	struct slot *a = &x.slot[0];

	x.rnd = 1;
	*a = (struct slot){.type = VIRTIO_BLK_T_OUT, .sector = 8, .n = 8};
	submit(a);
	settle();
	for (unsigned round = 0; round < 2; round++) {
		*a = (struct slot){.type = VIRTIO_BLK_T_FLUSH};
		submit(a);
		(void)blk_turn(&x.b.lane[0]);
		for (unsigned i = 0; i < (round ? 1 : ARRAY_LEN(first)); i++) {
			struct blk_io *io;

			ck_assert_uint_eq(x.npending, 1);
			ck_assert_uint_eq(x.pending[0]->op, first[i]);
			io = take_pending(0);
			blk_io_done(&x.b.lane[0], io, execute(io, true));
		}
		ck_assert_uint_eq(x.npending, 0);
		(void)blk_turn(&x.b.lane[0]);
		reap();
		ck_assert_uint_eq(x.in_flight, 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("overlay");
	TCase *c = tcase_create("blocks"), *k = tcase_create("crashes");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, runs);
	tcase_add_test(c, one_at_a_time);
	tcase_add_test(c, no_more_than_a_write);
	tcase_add_test(c, syncs_of_a_flush);
	suite_add_tcase(s, c);
	tcase_add_checked_fixture(k, setup, teardown);
	tcase_set_timeout(k, 600);
	tcase_add_loop_test(k, crashes_and_kills, 0, 8);
	tcase_add_loop_test(k, crashes_kills_and_errors, 0, 8);
	suite_add_tcase(s, k);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
