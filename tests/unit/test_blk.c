/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-blk with both engines on real files, and with copy on write over one: every kind of
 * request, every kind of mistake, random traffic against a model, and processes that are killed
 * hundreds of times under it; limits. What a crash of the machine leaves of an overlay: test_overlay.c.
 */
#include <check.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/stats.h>

#include <devices/blk/blk.h>

#include "fakedrv.h"

#define MEM_SIZE (64u << 20)
#define DISK_SIZE (8u << 20)
#define NQUEUES 4
#define QNUM 128
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define HEADERS 0x100000u /* one 64-byte slot per request: header, then status at + 32 */
#define DATA 0x1000000u
#define WAIT_MS 60000
#define USUAL (DRV_COMMON | DRV_F(VIRTIO_BLK_F_FLUSH))

static const uint32_t engines[] = {BLK_ENGINE_URING, BLK_ENGINE_THREADS};

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[NQUEUES];
static int mem_fd, disk_fd, kick[NQUEUES], chan[2];
/* With copy on write disk_fd is the base. */
static bool overlaid;
static int over_fd, index_fd;
static struct overlay_layout lay;
static uint8_t *index_memory;
static char disk_path[] = "/tmp/insula-test-blk-XXXXXX";
static struct rig { /* fresh for every start */
	struct helper h;
	struct blk b;
} * rig;
static pthread_t thread;
static bool threaded;
static struct msg_start_blk conf;

static bool uring_works(void)
{
	struct io_uring_params p = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 4, &p);

	if (fd < 0) {
		fprintf(stderr, "io_uring: not possible here (%s), not tested\n", strerror(errno));
		return false;
	}
	close(fd);
	return true;
}

/* ---- an engine that counts syncs, and refuses them and others ---- */

static bool spied;
static atomic_bool no_sync;
static atomic_uint syncs, op_count[BLK_OP_DISCARD + 1];
static unsigned refused_ops; /* 1 << op: as a disk that cannot */
static int other_fd;         /* BLK_OTHER */
static struct blk_engine_ops spy;
static atomic_bool hold; /* a sync waits in its I/O thread before it reaches the disk */
static atomic_uint held;
static void (*real_submit)(struct blk_eng *g, struct blk_io *io);

static void spy_submit(struct blk_eng *g, struct blk_io *io)
{
	atomic_fetch_add(&op_count[io->op], 1);
	if (refused_ops >> io->op & 1) {
		blk_io_done(((struct blk_req *)(void *)io)->lane, io, -EOPNOTSUPP);
		return;
	}
	if (io->op != BLK_OP_SYNC) {
		real_submit(g, io);
		return;
	}
	atomic_fetch_add(&syncs, 1);
	atomic_fetch_add(&held, 1);
	while (hold)
		usleep(100);
	if (no_sync)
		blk_io_done(((struct blk_req *)(void *)io)->lane, io, -EIO);
	else
		real_submit(g, io);
}

/* ---- the device, in a thread or in a process ---- */

static void *loop(void *arg)
{
	return (void *)(intptr_t)helper_loop(arg, chan[1]);
}

/* The base is only read, whatever the device does. */
static void add_base(struct start_fds *fds)
{
	char self[40];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", disk_fd);
	start_add(fds, START_OWN,
		  open(self, O_RDONLY | O_CLOEXEC | (conf.flags & BLK_DIRECT ? O_DIRECT : 0)));
	start_add(fds, START_OWN, dup(index_fd));
}

static int open_rig(int disk)
{
	bool other = conf.flags & BLK_OTHER;
	struct start_fds fds = drv_start_fds(&core, mem_fd);
	const char *step;
	struct err e = {0};

	for (unsigned i = 0; i < conf.nqueues; i++)
		start_add(&fds, START_KICK, dup(kick[i]));
	start_add(&fds, START_OWN, disk);
	if (other)
		start_add(&fds, START_OWN, dup(other_fd));
	if (overlaid)
		add_base(&fds);
	rig = calloc(1, sizeof(*rig));
	if (!rig || blk_check_conf(&conf, &e) ||
	    blk_open(&rig->b, &rig->h, &conf, &fds, &step, &e)) {
		fprintf(stderr, "blk_open: %s\n", e.text);
		return -1;
	}
	if (spied) {
		spy = *rig->b.ops;
		real_submit = spy.submit;
		spy.submit = spy_submit;
		rig->b.ops = &spy;
	}
	return blk_attach(&rig->b, &rig->h, &e);
}

static void start_device(void)
{
	struct err e = {0};

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan), 0);
	ck_assert_int_eq(open_rig(dup(overlaid ? over_fd : disk_fd)), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, loop, &rig->h), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
	threaded = true;
}

static struct msg_stats stop_device(void)
{
	struct msg_stats s;
	struct err e = {0};

	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_STOPPED, &s, sizeof(s), NULL, 0, &e), 0);
	if (threaded)
		pthread_join(thread, NULL);
	return s;
}

/* ---- a disk and a driver ---- */

static uint8_t pattern(uint64_t seed, size_t i)
{
	return (uint8_t)((seed * 0x9e3779b97f4a7c15u + i * 0x2545f4914f6cdd1du) >> 56);
}

static void fill(void *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = pattern(seed, i);
}

/* Check writes to a pipe at every assertion: one per comparison of many bytes, not one per byte. */
static void expect_fill_at(const void *p, size_t n, uint64_t seed, size_t first)
{
	const uint8_t *b = p;
	size_t i = 0;

	while (i < n && b[i] == pattern(seed, first + i))
		i++;
	ck_assert_msg(i == n, "byte %zu of %zu differs", i, n);
}

static void expect_fill(const void *p, size_t n, uint64_t seed)
{
	expect_fill_at(p, n, seed, 0);
}

static void expect_bytes(const void *p, size_t n, uint8_t byte)
{
	const uint8_t *b = p;
	size_t i = 0;

	while (i < n && b[i] == byte)
		i++;
	ck_assert_msg(i == n, "byte %zu of %zu is %#x", i, n, b[i]);
}

static void make_disk(int flags)
{
	uint8_t *buf = malloc(DISK_SIZE);
	int fd;

	strcpy(disk_path, "/tmp/insula-test-blk-XXXXXX");
	fd = mkstemp(disk_path);
	ck_assert_int_ge(fd, 0);
	fill(buf, DISK_SIZE, 1);
	ck_assert_int_eq(write_full(fd, buf, DISK_SIZE), 0);
	free(buf);
	disk_fd = open(disk_path, flags | O_CLOEXEC);
	close(fd);
}

static void setup(void)
{
	fc_open(&core);
	threaded = spied = false;
	no_sync = hold = false;
	syncs = held = 0;
	refused_ops = 0;
	for (unsigned i = 0; i < ARRAY_LEN(op_count); i++)
		op_count[i] = 0;
	other_fd = over_fd = index_fd = -1;
	overlaid = false;
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < NQUEUES; i++)
		kick[i] = event_create();
	make_disk(O_RDWR);
	conf = (struct msg_start_blk){.head.mem = board_map(MEM_SIZE),
				      .capacity = DISK_SIZE,
				      .nqueues = NQUEUES,
				      .logical = 512,
				      .physical = 4096,
				      .discard_align = 4096,
				      .serial = "serial-0123456789"};
}

static void teardown(void)
{
	unlink(disk_path);
	fd_close(&disk_fd);
	fd_close(&over_fd);
	fd_close(&index_fd);
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < NQUEUES; i++)
		fd_close(&kick[i]);
	close(chan[0]);
	close(chan[1]);
	fc_close(&core);
}

static void bring_up(uint64_t features)
{
	ck_assert(drv_negotiate(&core, features));
	for (unsigned i = 0; i < NQUEUES; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, features & DRV_F(VIRTIO_RING_F_EVENT_IDX),
			  kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}

/* As the supervisor makes it. */
static void make_overlay(void)
{
	char path[] = "/tmp/insula-test-over-XXXXXX";
	struct err e = {0};
	void *p;

	overlaid = true;
	conf.flags |= BLK_OVERLAY;
	lay = overlay_layout(conf.capacity);
	over_fd = mkstemp(path);
	ck_assert_int_ge(over_fd, 0);
	unlink(path);
	ck_assert_int_eq(ftruncate(over_fd, (off_t)lay.size), 0);
	index_fd = shm_create("index", lay.memory, &e);
	ck_assert_int_ge(index_fd, 0);
	ck_assert_int_eq(shm_map(index_fd, lay.memory, 0, lay.memory, true, &p, &e), 0);
	index_memory = p;
	if (conf.flags & BLK_DIRECT) {
		char self[40];
		int fd;

		snprintf(self, sizeof(self), "/proc/self/fd/%d", over_fd);
		fd = open(self, O_RDWR | O_DIRECT | O_CLOEXEC);
		close(over_fd);
		over_fd = fd;
	}
}

/* The second half of the variants is with copy on write. False: io_uring is not possible on this
 * machine. */
static bool choose_variant(int i)
{
	conf.engine = engines[i % (int)ARRAY_LEN(engines)];
	if (conf.engine == BLK_ENGINE_URING && !uring_works())
		return false;
	if (i >= (int)ARRAY_LEN(engines))
		make_overlay();
	return true;
}

static bool start(int i)
{
	if (!choose_variant(i))
		return false;
	start_device();
	bring_up(USUAL);
	return true;
}

static struct virtio_blk_outhdr *header(unsigned slot, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr *h = gm_ptr(&gm, HEADERS + slot * 64, 64);

	*h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	((uint8_t *)h)[32] = 0xee;
	return h;
}

static volatile uint8_t *status_of(unsigned slot)
{
	return (uint8_t *)gm_ptr(&gm, HEADERS + slot * 64, 64) + 32;
}

/* A driver that sleeps until the interrupt: one that is lost hangs it. */
static void wait_irq(void)
{
	struct pollfd p = {.fd = core.irq_fd, .events = POLLIN};

	ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "no interrupt came");
	event_drain(core.irq_fd);
}

static void get_one(struct drvq *q, uint32_t *len)
{
	uint16_t head;
	void *cookie;

	while (!drvq_get(q, &head, len, &cookie))
		wait_irq();
}

/* Offer descriptors as they are, wait, and return the status byte of slot 0. */
static uint8_t run_chain(const struct vring_desc *d, unsigned n, uint32_t *len)
{
	uint16_t old = drv[0].avail_idx;

	drvq_add(&drv[0], d, n, NULL);
	drvq_kick(&drv[0], old);
	get_one(&drv[0], len);
	return *status_of(0);
}

/* One request with n bytes of data at DATA; the used length must be what was written. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t n, bool write)
{
	struct vring_desc d[3] = {drv_desc(HEADERS, 16, false), drv_desc(DATA, n, write),
				  drv_desc(HEADERS + 32, 1, true)};
	uint8_t st;
	uint32_t len;

	header(0, type, sector);
	if (n == 0)
		d[1] = d[2];
	st = run_chain(d, n ? 3 : 2, &len);
	ck_assert_uint_eq(len, st == VIRTIO_BLK_S_OK && write ? n + 1 : 1);
	return st;
}

static void *data(uint32_t off)
{
	return gm_ptr(&gm, DATA + off, 1);
}

/* What the guest's disk has there. */
static void read_disk(uint8_t *buf, size_t n, uint64_t off)
{
	int fd = open(disk_path, O_RDONLY | O_CLOEXEC); /* disk_fd may be direct, buf is anywhere */

	ck_assert_int_eq(read_full(fd, buf, n, off), 0);
	close(fd);
	for (size_t i = 0; overlaid && i < n; i++) {
		uint64_t block = (off + i) / OVERLAY_BLOCK;
		size_t k = OVERLAY_BLOCK - (off + i) % OVERLAY_BLOCK;
		uint8_t whole[OVERLAY_BLOCK] __attribute__((aligned(OVERLAY_BLOCK)));

		if (k > n - i)
			k = n - i;
		if (index_memory[lay.live_off + block / 8] >> block % 8 & 1) {
			ck_assert_int_eq(read_full(over_fd, whole, sizeof(whole),
						   lay.data_off + block * OVERLAY_BLOCK),
					 0);
			memcpy(buf + i, whole + (off + i) % OVERLAY_BLOCK, k);
		}
		i += k - 1;
	}
}

static void expect_disk(uint64_t off, size_t n, uint64_t seed)
{
	uint8_t *buf = malloc(n);

	if (disk_path[0])
		read_disk(buf, n, off);
	else
		ck_assert_int_eq(read_full(disk_fd, buf, n, off), 0);
	expect_fill(buf, n, seed);
	free(buf);
}

static void expect_zeros(uint64_t off, size_t n)
{
	uint8_t *buf = malloc(n);

	if (disk_path[0])
		read_disk(buf, n, off);
	else
		ck_assert_int_eq(read_full(disk_fd, buf, n, off), 0);
	expect_bytes(buf, n, 0);
	free(buf);
}

/* ---- requests ---- */

START_TEST(configuration)
{
	struct virtio_blk_config *c = (void *)(core.page + VIRTIO_MMIO_CONFIG);

	conf.opt_io = 16;
	if (!start(_i))
		return;
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_DEVICE_ID), 2);
	ck_assert_uint_eq(c->capacity, DISK_SIZE / 512);
	ck_assert_uint_eq(c->seg_max, 254);
	ck_assert_uint_eq(c->blk_size, 512);
	ck_assert_uint_eq(c->physical_block_exp, 3);
	ck_assert_uint_eq(c->min_io_size, 8);
	ck_assert_uint_eq(c->opt_io_size, 16);
	ck_assert_uint_eq(c->num_queues, NQUEUES);
	ck_assert_uint_eq(c->discard_sector_alignment, 8);
	ck_assert_uint_eq(c->write_zeroes_may_unmap, 1);
	ck_assert_uint_eq(drv_features(&core),
			  DRV_COMMON | DRV_F(VIRTIO_BLK_F_SEG_MAX) | DRV_F(VIRTIO_BLK_F_SIZE_MAX) |
				  DRV_F(VIRTIO_BLK_F_BLK_SIZE) | DRV_F(VIRTIO_BLK_F_TOPOLOGY) |
				  DRV_F(VIRTIO_BLK_F_FLUSH) | DRV_F(VIRTIO_BLK_F_MQ) |
				  DRV_F(VIRTIO_BLK_F_DISCARD) | DRV_F(VIRTIO_BLK_F_WRITE_ZEROES));
	stop_device();
}
END_TEST

START_TEST(read_write_flush)
{
	struct msg_stats s;

	if (!start(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 65536, true), VIRTIO_BLK_S_OK);
	expect_fill(data(0), 65536, 1);
	fill(data(0), 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_OK);
	expect_disk(9 * 512, 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	/* The last sector, and nothing at all. */
	fill(data(0), 512, 8);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, DISK_SIZE / 512 - 1, 512, false),
			  VIRTIO_BLK_S_OK);
	expect_disk(DISK_SIZE - 512, 512, 8);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512, 0, true), VIRTIO_BLK_S_OK);
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_BLK_READS], 2);
	ck_assert_uint_eq(s.n[STAT_BLK_WRITES], 2);
	ck_assert_uint_eq(s.n[STAT_BLK_FLUSHES], 1);
	ck_assert_uint_eq(s.n[STAT_BLK_READ_BYTES], 65536);
	ck_assert_uint_eq(s.n[STAT_BLK_WRITTEN_BYTES], 4096 + 512);
	ck_assert_uint_eq(s.n[STAT_BLK_ERRORS], 0);
	ck_assert_uint_ge(s.n[STAT_BLK_KICKS], 1); /* several rings may be one event */
	ck_assert_uint_ge(s.n[STAT_IRQS], 1);
}
END_TEST

static uint8_t change(uint32_t type, uint64_t sector, uint32_t nsect)
{
	*(struct virtio_blk_discard_write_zeroes *)data(0) =
		(struct virtio_blk_discard_write_zeroes){.sector = sector, .num_sectors = nsect};
	return request(type, 0, sizeof(struct virtio_blk_discard_write_zeroes), false);
}

/* A driver that did not accept FLUSH has no other means: what is answered is stable. */
START_TEST(without_flush_writes_are_stable)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};

	spied = true;
	if (!start(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(syncs, 0);
	bring_up(DRV_COMMON);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 9, 4096, true), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(syncs, 0);
	fill(data(0), 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(syncs, 1);
	expect_disk(9 * 512, 4096, 7);
	for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
		ck_assert_uint_eq(change(types[i], 1024 + 8 * i, 8), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(syncs, 2 + i);
		expect_zeros((1024 + 8 * i) * 512, 4096);
	}
	no_sync = true;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(change(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8), VIRTIO_BLK_S_IOERR);
	stop_device();
}
END_TEST

/* The page says that an earlier process has not told the guest of an error: the first flush does.
 */
START_TEST(error_of_an_earlier_process)
{
	if (!start(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	rig->b.page->sync_failed = 1;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	stop_device();
	ck_assert_uint_eq(rig->b.page->sync_failed, 0);
}
END_TEST

/* An error that is not told yet is in the page; one that was told is not. */
START_TEST(error_is_written_down)
{
	struct blk_lane *l;

	spied = true;
	no_sync = true;
	if (!start(_i))
		return;
	l = &rig->b.lane[0];
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
	no_sync = false;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	stop_device();
	ck_assert_uint_eq(rig->b.page->sync_failed, 0);
	/* Without the turn that publishes the answer, as if killed there. */
	l->in_flight = 1;
	l->pool[0] = (struct blk_req){
		.lane = l, .type = VIRTIO_BLK_T_FLUSH, .status = gm_ptr(&gm, HEADERS, 1)};
	vq_start(l->q, &rig->b.w.front.v.st->q[0], &gm, USUAL, true, NULL);
	no_sync = true;
	blk_sync_begin(&l->pool[0]);
	ck_assert_uint_eq(rig->b.page->sync_failed, 1);
	ck_assert_uint_eq(l->in_flight, 0);
	blk_sync_published(l);
	ck_assert_uint_eq(rig->b.page->sync_failed, 0);
}
END_TEST

/* An earlier process had requests of two queues: until both are answered, the failure is in the
 * page. By hand, because the order of the two matters. */
START_TEST(error_for_all_that_resume)
{
	struct blk_lane *l;

	if (!start(_i))
		return;
	stop_device();
	rig->b.page->sync_failed = 1;
	for (unsigned i = 0; i < 3; i++) {
		l = &rig->b.lane[i];
		l->in_flight = l->resumed = i < 2;
		l->pool[0] = (struct blk_req){.lane = l,
					      .type = VIRTIO_BLK_T_FLUSH,
					      .resumed = i < 2,
					      .status = gm_ptr(&gm, HEADERS + i, 1)};
		vq_start(l->q, &rig->b.w.front.v.st->q[i], &gm, USUAL, true, NULL);
	}
	blk_sync_start(&rig->b);
	for (unsigned i = 0; i < 2; i++) {
		l = &rig->b.lane[i];
		blk_sync_published(l);
		ck_assert_uint_eq(rig->b.page->sync_failed, 1);
		blk_sync_begin(&l->pool[0]);
		ck_assert_uint_eq(*(uint8_t *)gm_ptr(&gm, HEADERS + i, 1), VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(rig->b.page->sync_failed, 1);
		blk_sync_published(l);
		ck_assert_uint_eq(rig->b.page->sync_failed, i == 0);
	}
	/* A lane that has resumed nothing of the kind does not end it: nobody has been told. */
	rig->b.page->sync_failed = 1;
	rig->b.lane[0].resumed = 1;
	blk_sync_start(&rig->b);
	rig->b.lane[0].resumed = 0;
	blk_sync_published(&rig->b.lane[0]);
	ck_assert_uint_eq(rig->b.page->sync_failed, 1);
}
END_TEST

/* What an earlier process was told by the kernel: the other descriptor is asked, once. A pipe
 * cannot be synced. */
START_TEST(first_flush_asks_the_other_descriptor)
{
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	other_fd = p[0];
	conf.flags |= BLK_OTHER;
	if (!start(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	stop_device();
	close(p[0]);
	close(p[1]);
}
END_TEST

START_TEST(other_descriptor_is_asked_once)
{
	other_fd = disk_fd;
	conf.flags |= BLK_OTHER;
	spied = true;
	if (!start(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	stop_device();
	ck_assert_uint_eq(op_count[BLK_OP_SYNC_OTHER], 1);
	ck_assert_uint_eq(op_count[BLK_OP_SYNC], 2);
}
END_TEST

START_TEST(bounds)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {{DISK_SIZE / 512, 512},
		   {DISK_SIZE / 512 - 1, 1024},
		   {UINT64_MAX, 512},
		   {UINT64_MAX / 512, 512},
		   {UINT64_MAX - 7, 4096},
		   {UINT64_C(1) << 55, 512},
		   {0, 100},
		   {0, 513}};

	if (!start(_i))
		return;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, bad[i].sector, bad[i].len, true),
				  VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, bad[i].sector, bad[i].len, false),
				  VIRTIO_BLK_S_IOERR);
	}
	expect_disk(0, DISK_SIZE, 1);
	ck_assert_uint_eq(stop_device().n[STAT_BLK_ERRORS], 2 * ARRAY_LEN(bad));
}
END_TEST

START_TEST(identity_and_unknown)
{
	if (!start(_i))
		return;
	memset(data(0), 'x', 64);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(data(0), conf.serial, 20);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, 5, true), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(2, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_SECURE_ERASE, 0, 512, false), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(request(UINT32_MAX, 0, 512, false), VIRTIO_BLK_S_UNSUPP);
	stop_device();
}
END_TEST

/* 2.7.4.2: where one buffer ends and the next begins means nothing. */
START_TEST(any_layout)
{
	struct vring_desc d[40];
	unsigned n = 0;
	uint32_t len;

	if (!start(_i))
		return;
	/* A header in three pieces, data in sixteen odd ones, the last of them with the status byte
	 * at its end. */
	header(0, VIRTIO_BLK_T_IN, 3);
	d[n++] = drv_desc(HEADERS, 1, false);
	d[n++] = drv_desc(HEADERS + 1, 7, false);
	d[n++] = drv_desc(HEADERS + 8, 8, false);
	for (unsigned i = 0; i < 15; i++)
		d[n++] = drv_desc(DATA + i * 31, 31, true);
	d[n++] = drv_desc(DATA + 15 * 31, 512 - 15 * 31 + 1, true);
	memset(data(512), 0xee, 1);
	run_chain(d, n, &len);
	ck_assert_uint_eq(len, 513);
	ck_assert_uint_eq(*(uint8_t *)data(512), VIRTIO_BLK_S_OK);
	expect_fill_at(data(0), 512, 1, 3 * 512);
	/* Header and data to write in one piece. */
	n = 0;
	*(struct virtio_blk_outhdr *)data(0) =
		(struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_OUT, .sector = 5};
	fill(data(16), 1024, 3);
	*status_of(0) = 0xee;
	d[n++] = drv_desc(DATA, 16 + 1024, false);
	d[n++] = drv_desc(HEADERS + 32, 1, true);
	ck_assert_uint_eq(run_chain(d, n, &len), VIRTIO_BLK_S_OK);
	expect_disk(5 * 512, 1024, 3);
	stop_device();
}
END_TEST

static struct virtio_blk_discard_write_zeroes range(uint64_t sector, uint32_t n, uint32_t flags)
{
	return (struct virtio_blk_discard_write_zeroes){
		.sector = sector, .num_sectors = n, .flags = flags};
}

static uint8_t ranges(uint32_t type, const struct virtio_blk_discard_write_zeroes *r, unsigned n)
{
	memcpy(data(0), r, n * sizeof(*r));
	return request(type, 0, (uint32_t)(n * sizeof(*r)), false);
}

static void check_ranges(void)
{
	const uint64_t end = DISK_SIZE / 512;
	struct virtio_blk_discard_write_zeroes r[BLK_RANGES + 1] = {0};

	/* Two ranges, an empty one between. */
	r[0] = range(8, 16, 0);
	r[1] = range(0, 0, 0);
	r[2] = range(end - 8, 8, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 3), VIRTIO_BLK_S_OK);
	expect_zeros(8 * 512, 16 * 512);
	expect_zeros(DISK_SIZE - 8 * 512, 8 * 512);
	expect_disk(0, 8 * 512, 1);
	/* Not aligned to anything but the sector, larger than one write of the fallback, and
	 * unmapped. */
	r[0] = range(101, 5003, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_OK);
	expect_zeros(101 * 512, 5003 * 512);
	r[0] = range(6000, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_OK);
	expect_zeros(6000 * 512, 8 * 512);
	r[0] = range(7000, 1000, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_OK);
	expect_zeros(7000 * 512, 1000 * 512);
	/* Mistakes. */
	r[0] = range(0, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_UNSUPP);
	r[0] = range(0, 8, 2);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_UNSUPP);
	r[0] = range(end, 1, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_IOERR);
	r[0] = range(UINT64_MAX, 8, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_IOERR);
	r[0] = range(0, UINT32_MAX, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_IOERR);
	r[0] = range(0, 8, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, r, BLK_RANGES + 1), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, 15, false), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, 0, false), VIRTIO_BLK_S_IOERR);
	/* A bad range behind a good one: nothing is done. */
	r[0] = range(0, 8, 0);
	r[1] = range(end, 8, 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 2), VIRTIO_BLK_S_IOERR);
	expect_disk(0, 8 * 512, 1);
}

/* A device that can do nothing of it: a discard is refused and not sold as zeros, zeros are made
 * with what there is. */
START_TEST(ranges_of_a_device)
{
	struct virtio_blk_discard_write_zeroes r = range(0, 8, 0);

	spied = true;
	conf.flags |= BLK_DEVICE;
	if (!start(_i))
		return;
	refused_ops = 1u << BLK_OP_DISCARD;
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, &r, 1), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(op_count[BLK_OP_DISCARD], 1);
	ck_assert_uint_eq(op_count[BLK_OP_PUNCH] + op_count[BLK_OP_ZERO], 0);
	expect_disk(0, 8 * 512, 1);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(op_count[BLK_OP_PUNCH], 0);
	ck_assert_uint_ge(op_count[BLK_OP_ZERO], 1);
	expect_zeros(0, 8 * 512);
	r = range(128, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	refused_ops |= 1u << BLK_OP_PUNCH;
	op_count[BLK_OP_ZERO] = 0;
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(op_count[BLK_OP_PUNCH], 1);
	ck_assert_uint_ge(op_count[BLK_OP_ZERO], 1);
	expect_zeros(128 * 512, 8 * 512);
	r.sector = 256;
	refused_ops |= 1u << BLK_OP_ZERO;
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_ge(op_count[BLK_OP_WRITE], 1);
	expect_zeros(256 * 512, 8 * 512);
	stop_device();
}
END_TEST

START_TEST(discard_and_write_zeroes)
{
	struct stat before, after;

	if (!start(_i))
		return;
	fstat(disk_fd, &before);
	check_ranges();
	fstat(disk_fd, &after);
	ck_assert_int_eq(after.st_size, DISK_SIZE);
	ck_assert_int_lt(after.st_blocks, before.st_blocks); /* the discarded blocks are free */
	stop_device();
}
END_TEST

/* tmpfs cannot zero a range: zeros are written instead. */
START_TEST(write_zeroes_without_the_file_system)
{
	uint8_t *buf = malloc(DISK_SIZE);

	unlink(disk_path);
	disk_path[0] = 0;
	close(disk_fd);
	disk_fd = memfd_create("disk", MFD_CLOEXEC);
	ck_assert_int_eq(fallocate(disk_fd, 0, 0, DISK_SIZE), 0);
	fill(buf, DISK_SIZE, 1);
	ck_assert_int_eq(write_full(disk_fd, buf, DISK_SIZE), 0);
	free(buf);
	if (!start(_i))
		return;
	check_ranges();
	stop_device();
}
END_TEST

START_TEST(read_only)
{
	struct virtio_blk_discard_write_zeroes r = range(0, 8, 0);

	close(disk_fd);
	disk_fd = open(disk_path, O_RDONLY | O_CLOEXEC);
	conf.flags = BLK_RO;
	if (!start(_i))
		return;
	ck_assert_uint_eq(drv_features(&core) &
				  (DRV_F(VIRTIO_BLK_F_RO) | DRV_F(VIRTIO_BLK_F_DISCARD) |
				   DRV_F(VIRTIO_BLK_F_WRITE_ZEROES)),
			  DRV_F(VIRTIO_BLK_F_RO));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, &r, 1), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	expect_fill(data(0), 512, 1);
	expect_disk(0, DISK_SIZE, 1);
	stop_device();
}
END_TEST

START_TEST(no_discard)
{
	struct virtio_blk_discard_write_zeroes r = range(0, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);

	conf.discard_align = 0;
	if (!start(_i))
		return;
	ck_assert_uint_eq(drv_features(&core) & DRV_F(VIRTIO_BLK_F_DISCARD), 0);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_OK);
	expect_zeros(0, 8 * 512);
	r.flags = 0;
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, &r, 1), VIRTIO_BLK_S_UNSUPP);
	stop_device();
}
END_TEST

/* Somebody has cut the file: an error, no loop. */
START_TEST(file_became_shorter)
{
	if (!start(_i))
		return;
	ck_assert_int_eq(ftruncate(disk_fd, 4096 + 512), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 8192, true), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 64, 512, true), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
	stop_device();
}
END_TEST

/* ---- direct I/O ---- */

/* False: not possible here. */
static bool start_direct(int i)
{
	close(disk_fd);
	disk_fd = open(disk_path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk_fd < 0) {
		fprintf(stderr, "direct: the file system of /tmp cannot do it, not tested\n");
		return false;
	}
	conf.flags = BLK_DIRECT;
	return start(i);
}

/* A request in n segments of 4 KiB from DATA on. */
static uint8_t request_in_segments(uint32_t type, uint64_t sector, unsigned n)
{
	struct vring_desc d[66];
	uint32_t len;

	header(0, type, sector);
	d[0] = drv_desc(HEADERS, 16, false);
	for (unsigned i = 0; i < n; i++)
		d[1 + i] = drv_desc(DATA + i * 4096, 4096, type == VIRTIO_BLK_T_IN);
	d[1 + n] = drv_desc(HEADERS + 32, 1, true);
	return run_chain(d, n + 2, &len);
}

/* What is larger than the disk takes at once: every part in its place, however many there are. */
START_TEST(direct_in_parts)
{
	conf.max_io = 3 * 4096;
	if (!start_direct(_i))
		return;
	for (unsigned n = 1; n <= 64; n += 7) {
		memset(data(0), 0x5c, 65 * 4096);
		ck_assert_uint_eq(request_in_segments(VIRTIO_BLK_T_IN, 8, n), VIRTIO_BLK_S_OK);
		expect_fill_at(data(0), n * 4096, 1, 4096);
		expect_bytes(data(n * 4096), 4096, 0x5c);
	}
	fill(data(0), 64 * 4096, 9);
	ck_assert_uint_eq(request_in_segments(VIRTIO_BLK_T_OUT, 16, 64), VIRTIO_BLK_S_OK);
	memset(data(0), 0, 64 * 4096);
	ck_assert_uint_eq(request_in_segments(VIRTIO_BLK_T_IN, 16, 64), VIRTIO_BLK_S_OK);
	expect_fill(data(0), 64 * 4096, 9);
	/* The disk ends in the second part, at a boundary of blocks and elsewhere. */
	ck_assert_int_eq(ftruncate(disk_fd, 4 * 4096), 0);
	ck_assert_uint_eq(request_in_segments(VIRTIO_BLK_T_IN, 0, 16), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(ftruncate(disk_fd, 4 * 4096 + 100), 0);
	ck_assert_uint_eq(request_in_segments(VIRTIO_BLK_T_IN, 0, 16), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request_in_segments(VIRTIO_BLK_T_IN, 0, 4), VIRTIO_BLK_S_OK);
	stop_device();
}
END_TEST

START_TEST(direct)
{
	struct vring_desc d[4];
	uint32_t len;
	struct msg_stats s;

	if (!start_direct(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 1u << 20, true), VIRTIO_BLK_S_OK);
	expect_fill(data(0), 1u << 20, 1);
	/* Buffers that are not aligned, in pieces, larger than a bounce buffer: up to the last byte
	 * and not beyond. */
	header(0, VIRTIO_BLK_T_IN, 1);
	*(uint8_t *)data(5 + (1u << 20)) = 0x11;
	d[0] = drv_desc(HEADERS, 16, false);
	d[1] = drv_desc(DATA + 5, 100, true);
	d[2] = drv_desc(DATA + 105, (1u << 20) - 100, true);
	d[3] = drv_desc(HEADERS + 32, 1, true);
	ck_assert_uint_eq(run_chain(d, 4, &len), VIRTIO_BLK_S_OK);
	expect_fill_at(data(5), 1u << 20, 1, 512);
	ck_assert_uint_eq(*(uint8_t *)data(5 + (1u << 20)), 0x11);
	fill(data(5), 1u << 20, 9);
	header(0, VIRTIO_BLK_T_OUT, 2);
	d[1].flags = d[2].flags = 0;
	ck_assert_uint_eq(run_chain(d, 4, &len), VIRTIO_BLK_S_OK);
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_BLK_BOUNCED], 2);
	close(disk_fd);
	disk_fd = open(disk_path, O_RDWR | O_CLOEXEC);
	expect_disk(1024, 1u << 20, 9);
}
END_TEST

/* More unaligned requests than bounce buffers at the same time: they wait for each other. */
START_TEST(direct_bounce_queue)
{
	enum { N = 5 * BLK_BOUNCES };

	if (!start_direct(_i))
		return;
	for (unsigned i = 0; i < N; i++) {
		struct vring_desc d[3] = {drv_desc(HEADERS + i * 64, 16, false),
					  drv_desc(DATA + i * 0x40000 + 3, 0x20000, true),
					  drv_desc(HEADERS + i * 64 + 32, 1, true)};

		header(i, VIRTIO_BLK_T_IN, i * 8);
		drvq_add(&drv[0], d, 3, NULL);
	}
	event_signal(kick[0]);
	for (unsigned i = 0; i < N; i++) {
		uint32_t len;

		get_one(&drv[0], &len);
		ck_assert_uint_eq(len, 0x20001);
	}
	for (unsigned i = 0; i < N; i++) {
		ck_assert_uint_eq(*status_of(i), VIRTIO_BLK_S_OK);
		expect_fill_at(data(i * 0x40000 + 3), 0x20000, 1, i * 4096);
	}
	ck_assert_uint_eq(stop_device().n[STAT_BLK_BOUNCED], N);
}
END_TEST

START_TEST(direct_alignment_of_offsets)
{
	conf.logical = 4096;
	if (!start_direct(_i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 1, 4096, true), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 8, 4096, true), VIRTIO_BLK_S_OK);
	stop_device();
}
END_TEST

/* ---- mistakes of the driver ---- */

static void wait_needs_reset(void)
{
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;

	while (!(drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		ck_assert(clock_ns() < until);
		usleep(500);
	}
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG,
			  VIRTIO_MMIO_INT_CONFIG);
}

static void bad_chain(const struct vring_desc *d, unsigned n)
{
	drvq_add(&drv[0], d, n, NULL);
	event_signal(kick[0]);
	wait_needs_reset();
	/* A reset heals it. */
	bring_up(USUAL);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}

START_TEST(mistakes_need_a_reset)
{
	struct vring_desc d[3];

	if (!start(_i))
		return;
	header(0, VIRTIO_BLK_T_IN, 0);
	/* A header that is too short; no status byte; a buffer outside of memory; a readable
	 * status. */
	d[0] = drv_desc(HEADERS, 15, false);
	d[1] = drv_desc(HEADERS + 32, 1, true);
	bad_chain(d, 2);
	d[0] = drv_desc(HEADERS, 16, false);
	bad_chain(d, 1);
	d[1] = drv_desc(MEM_SIZE - 1, 2, true);
	bad_chain(d, 2);
	d[1] = drv_desc(HEADERS + 32, 1, true);
	d[2] = drv_desc(DATA, 512, false);
	bad_chain(d, 3);
	/* The same head twice. */
	drvq_add(&drv[0], d, 2, NULL);
	drv_store16(drv[0].avail + 4 + 2 * (drv[0].avail_idx % QNUM),
		    drv_load16(drv[0].avail + 4 + 2 * ((drv[0].avail_idx - 1u) % QNUM)));
	drv_store16(drv[0].avail + 2, ++drv[0].avail_idx);
	event_signal(kick[0]);
	wait_needs_reset();
	stop_device();
}
END_TEST

START_TEST(configurations_refused)
{
	const struct msg_start_blk good = {.head.mem = board_map(MEM_SIZE),
					   .capacity = 512,
					   .nqueues = 1,
					   .engine = BLK_ENGINE_THREADS,
					   .logical = 512,
					   .physical = 512};
	struct msg_start_blk m[17];
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		m[i] = good;
	ck_assert_int_eq(blk_check_conf(&m[0], &e), 0);
	m[0].capacity = 0;
	m[1].capacity = 513;
	m[2].capacity = UINT64_MAX - 511;
	m[3].nqueues = 0;
	m[4].nqueues = VIRTIO_MAX_QUEUES + 1;
	m[5].flags = 64;
	m[6].engine = 0;
	m[7].logical = 256;
	m[8].logical = 8192;
	m[9].physical = 256;
	m[10].discard_align = 100;
	m[11].engine = UINT32_MAX;
	m[12].max_io = 100;
	m[13].flags = BLK_OVERLAY | BLK_RO;
	m[14].flags = BLK_OVERLAY;
	m[14].capacity = OVERLAY_MOST + 512;
	m[15].limit.rate = LIMIT_MOST + 1;
	m[16].limit.ops = UINT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		ck_assert_int_eq(blk_check_conf(&m[i], &e), -EINVAL);
}
END_TEST

/* ---- random traffic against a model ---- */

#define BLOCK 4096u
#define NBLOCKS (DISK_SIZE / BLOCK)
#define SLOTS 48
#define MAX_BLOCKS 4
#define MAX_UNITS 20
/* With copy on write in sectors, so that requests meet in a block. */
#define UNIT (overlaid ? 512u : BLOCK)
#define NUNITS (DISK_SIZE / UNIT)
#define ZEROED UINT32_MAX

static struct traffic {
	uint32_t version[DISK_SIZE / 512]; /* of a unit; 0: as made */
	bool busy[DISK_SIZE / 512];
	struct slot {
		bool used, write, flush, zero;
		uint32_t first, n, version;
	} slot[SLOTS];
	unsigned in_flight;
	uint64_t submitted, completed;
	uint32_t next_version, rnd;
	bool indirect;
} * tr;

static uint32_t rnd(void)
{
	tr->rnd ^= tr->rnd << 13;
	tr->rnd ^= tr->rnd >> 17;
	tr->rnd ^= tr->rnd << 5;
	return tr->rnd;
}

/* Enough of a block to tell it from every other block and version. */
static uint8_t content(uint32_t block, uint32_t version, size_t i)
{
	if (version == ZEROED)
		return 0;
	if (version == 0)
		return pattern(1, (size_t)block * UNIT + i);
	return pattern(((uint64_t)version << 32) | block, i);
}

static void expect_content(const uint8_t *p, uint32_t block)
{
	uint32_t v = tr->version[block];
	size_t k = 0;

	while (k < UNIT && p[k] == content(block, v, k))
		k++;
	if (k != UNIT)
		ck_abort_msg("block %u version %u differs at %zu", block, v, k);
}

static uint8_t *slot_data(const struct slot *s)
{
	return data((uint32_t)(s - tr->slot) * MAX_BLOCKS * BLOCK);
}

static bool choose(struct slot *s)
{
	s->flush = rnd() % 16 == 0;
	s->write = !s->flush && rnd() % 2;
	s->zero = overlaid && s->write && rnd() % 8 == 0;
	s->n = s->flush ? 0 : 1 + rnd() % (overlaid ? MAX_UNITS : MAX_BLOCKS);
	s->first = rnd() % (NUNITS - s->n);
	for (uint32_t i = 0; i < s->n; i++) {
		if (tr->busy[s->first + i])
			return false;
	}
	return true;
}

static void submit_chain(struct drvq *q, struct slot *s, const struct vring_desc *d, unsigned n)
{
	unsigned at = (unsigned)(s - tr->slot);
	uint16_t old = q->avail_idx;

	if (tr->indirect) {
		gpa_t table = HEADERS + 0x80000 + at * 0x400;
		struct vring_desc in, *t = gm_ptr(&gm, table, 0x400);

		for (unsigned i = 0; i < n; i++) {
			t[i] = d[i];
			if (i + 1 < n) {
				t[i].flags |= VRING_DESC_F_NEXT;
				t[i].next = (uint16_t)(i + 1);
			}
		}
		in = drv_desc(table, n * 16, false);
		in.flags = VRING_DESC_F_INDIRECT;
		drvq_add(q, &in, 1, s);
	} else {
		drvq_add(q, d, n, s);
	}
	drvq_kick(q, old);
}

static unsigned describe_data(struct slot *s, struct vring_desc *d)
{
	gpa_t at = DATA + (unsigned)(s - tr->slot) * MAX_BLOCKS * BLOCK;
	uint8_t *p = slot_data(s);
	unsigned n = 0;

	if (s->zero) {
		*(struct virtio_blk_discard_write_zeroes *)(void *)p =
			(struct virtio_blk_discard_write_zeroes){
				.sector = s->first, .num_sectors = s->n, .flags = rnd() % 2};
		d[n++] = drv_desc(at, sizeof(struct virtio_blk_discard_write_zeroes), false);
		return n;
	}
	for (uint32_t i = 0; i < s->n; i++) {
		for (size_t k = 0; k < UNIT; k++)
			p[i * UNIT + k] = s->write ? content(s->first + i, s->version, k) : 0xaa;
		if (!overlaid)
			d[n++] = drv_desc(at + i * BLOCK, BLOCK, !s->write);
	}
	if (overlaid && s->n)
		d[n++] = drv_desc(at, s->n * UNIT, !s->write);
	return n;
}

static void submit(struct slot *s)
{
	unsigned at = (unsigned)(s - tr->slot), n = 0;
	struct vring_desc d[2 + MAX_BLOCKS];

	s->used = true;
	s->version = s->zero ? ZEROED : s->write ? ++tr->next_version : 0;
	header(at,
	       s->flush   ? VIRTIO_BLK_T_FLUSH
	       : s->zero  ? VIRTIO_BLK_T_WRITE_ZEROES
	       : s->write ? VIRTIO_BLK_T_OUT
			  : VIRTIO_BLK_T_IN,
	       s->zero ? 0 : (uint64_t)s->first * (UNIT / 512));
	d[n++] = drv_desc(HEADERS + at * 64, 16, false);
	for (uint32_t i = 0; i < s->n; i++)
		tr->busy[s->first + i] = true;
	n += describe_data(s, d + n);
	d[n++] = drv_desc(HEADERS + at * 64 + 32, 1, true);
	submit_chain(&drv[at % NQUEUES], s, d, n);
	tr->submitted++;
	tr->in_flight++;
}

static void complete(struct slot *s)
{
	const uint8_t *p = slot_data(s);

	ck_assert(s->used);
	s->used = false;
	ck_assert_uint_eq(*status_of((unsigned)(s - tr->slot)), VIRTIO_BLK_S_OK);
	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t b = s->first + i;

		if (s->write)
			tr->version[b] = s->version;
		else
			expect_content(p + i * UNIT, b);
		tr->busy[b] = false;
	}
	tr->completed++;
	tr->in_flight--;
}

static bool reap(void)
{
	bool any = false;
	uint16_t head;
	uint32_t len;
	void *cookie;

	for (unsigned i = 0; i < NQUEUES; i++) {
		while (drvq_get(&drv[i], &head, &len, &cookie)) {
			complete(cookie);
			any = true;
		}
	}
	return any;
}

static void reap_until(unsigned left)
{
	while (tr->in_flight > left) {
		if (!reap())
			wait_irq();
	}
}

static void some_traffic(unsigned n)
{
	while (n) {
		struct slot *s = &tr->slot[rnd() % SLOTS];

		if (!s->used && choose(s)) {
			submit(s);
			n--;
		}
		if (rnd() % 4 == 0)
			reap();
		if (tr->in_flight == SLOTS)
			reap_until(rnd() % SLOTS);
	}
}

/* Nobody has written to it. */
static void expect_base(void)
{
	uint8_t *buf = malloc(DISK_SIZE);
	int fd = open(disk_path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(read_full(fd, buf, DISK_SIZE, 0), 0);
	close(fd);
	expect_fill(buf, DISK_SIZE, 1);
	free(buf);
}

static void verify_disk(void)
{
	uint8_t *buf = malloc(DISK_SIZE);

	read_disk(buf, DISK_SIZE, 0);
	for (uint32_t b = 0; b < NUNITS; b++)
		expect_content(buf + (size_t)b * UNIT, b);
	free(buf);
	if (overlaid)
		expect_base();
}

static void start_traffic(uint32_t seed)
{
	tr = calloc(1, sizeof(*tr));
	ck_assert_ptr_nonnull(tr);
	tr->rnd = seed;
}

/* With every way to lay out a queue. */
static void traffic(void)
{
	static const uint64_t least = DRV_F(VIRTIO_F_VERSION_1) | DRV_F(VIRTIO_BLK_F_FLUSH);
	const uint64_t features[] = {USUAL, least, least | DRV_F(VIRTIO_RING_F_INDIRECT_DESC)};
	struct msg_stats s;

	start_traffic(12345);
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		bring_up(features[i]);
		tr->indirect = features[i] & DRV_F(VIRTIO_RING_F_INDIRECT_DESC);
		some_traffic(2000);
		reap_until(0);
	}
	s = stop_device();
	verify_disk();
	ck_assert_uint_eq(s.n[STAT_BLK_READS] + s.n[STAT_BLK_WRITES] + s.n[STAT_BLK_FLUSHES] +
				  s.n[STAT_BLK_ZEROES],
			  tr->submitted);
	free(tr);
}

START_TEST(random_traffic)
{
	if (start(_i))
		traffic();
}
END_TEST

/* Most requests are larger than the disk takes at once. */
START_TEST(random_traffic_in_parts)
{
	conf.max_io = 2 * BLOCK;
	if (start_direct(_i))
		traffic();
}
END_TEST

/* A reset with requests under way: when it is answered nothing touches guest memory any more. */
START_TEST(reset_under_traffic)
{
	if (!start(_i))
		return;
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 32; i++) {
			struct vring_desc d[3] = {drv_desc(HEADERS + i * 64, 16, false),
						  drv_desc(DATA + i * 0x10000, 0x10000, true),
						  drv_desc(HEADERS + i * 64 + 32, 1, true)};

			header(i, VIRTIO_BLK_T_IN, i * 128);
			drvq_add(&drv[i % NQUEUES], d, 3, NULL);
		}
		for (unsigned i = 0; i < NQUEUES; i++)
			event_signal(kick[i]);
		usleep(round * 20);
		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
		memset(data(0), 0x5c, 32 * 0x10000);
		usleep(500);
		expect_bytes(data(0), 32 * 0x10000, 0x5c);
		bring_up(USUAL);
	}
	stop_device();
}
END_TEST

/* ---- several queues ---- */

/* A request of its own for each queue, in slot `queue`, with its own data. */
static void offer(unsigned queue, uint32_t type, uint64_t sector, uint32_t n)
{
	bool write = type == VIRTIO_BLK_T_IN;
	struct vring_desc d[3] = {drv_desc(HEADERS + queue * 64, 16, false),
				  drv_desc(DATA + queue * 0x10000, n, write),
				  drv_desc(HEADERS + queue * 64 + 32, 1, true)};
	uint16_t old = drv[queue].avail_idx;

	header(queue, type, sector);
	if (n == 0)
		d[1] = d[2];
	drvq_add(&drv[queue], d, n ? 3 : 2, NULL);
	drvq_kick(&drv[queue], old);
}

static bool answered(unsigned queue)
{
	uint16_t head;
	uint32_t len;
	void *cookie;

	return drvq_get(&drv[queue], &head, &len, &cookie);
}

static uint8_t answer_of(unsigned queue)
{
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;

	while (!answered(queue)) {
		ck_assert(clock_ns() < until);
		usleep(100);
	}
	return *status_of(queue);
}

/* One driver for each queue, at the same time, each in its own part of the disk. */
static void *drive(void *arg)
{
	unsigned q = (unsigned)(uintptr_t)arg;
	uint64_t first = q * (DISK_SIZE / 512 / NQUEUES);
	uint8_t *p = data(q * 0x10000);

	for (unsigned round = 0; round < 200; round++) {
		uint64_t seed = q * 1000 + round, sector = first + round * 8;

		fill(p, 4096, seed);
		offer(q, VIRTIO_BLK_T_OUT, sector, 4096);
		if (answer_of(q) != VIRTIO_BLK_S_OK)
			return "write";
		memset(p, 0, 4096);
		if (round % 8 == q) {
			offer(q, VIRTIO_BLK_T_FLUSH, 0, 0);
			if (answer_of(q) != VIRTIO_BLK_S_OK)
				return "flush";
		}
		offer(q, VIRTIO_BLK_T_IN, sector, 4096);
		if (answer_of(q) != VIRTIO_BLK_S_OK)
			return "read";
		for (size_t i = 0; i < 4096; i++) {
			if (p[i] != pattern(seed, i))
				return "data";
		}
	}
	return NULL;
}

START_TEST(queues_at_once)
{
	pthread_t t[NQUEUES];
	struct msg_stats s;

	if (!start(_i))
		return;
	for (unsigned q = 0; q < NQUEUES; q++)
		ck_assert_int_eq(pthread_create(&t[q], NULL, drive, (void *)(uintptr_t)q), 0);
	for (unsigned q = 0; q < NQUEUES; q++) {
		void *bad;

		pthread_join(t[q], &bad);
		ck_assert_msg(!bad, "queue %u: %s", q, (const char *)bad);
	}
	s = stop_device();
	for (unsigned q = 0; q < NQUEUES; q++) {
		for (unsigned round = 0; round < 200; round++)
			expect_disk((q * (DISK_SIZE / 512 / NQUEUES) + round * 8) * 512ull, 4096,
				    q * 1000 + round);
	}
	/* All I/O threads' counters together. */
	ck_assert_uint_eq(s.n[STAT_BLK_READS], 200 * NQUEUES);
	ck_assert_uint_eq(s.n[STAT_BLK_WRITES], 200 * NQUEUES);
	ck_assert_uint_eq(s.n[STAT_BLK_FLUSHES], 25 * NQUEUES);
}
END_TEST

static void wait_held(unsigned n)
{
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;

	while (held < n) {
		ck_assert(clock_ns() < until);
		usleep(100);
	}
}

/* A flush that comes while the disk is synced for another queue is not covered by that sync: the
 * write before it may have been answered too late for it. And all that wait share one. */
START_TEST(flush_of_another_queue)
{
	spied = true;
	if (!start(_i))
		return;
	hold = true;
	offer(0, VIRTIO_BLK_T_FLUSH, 0, 0);
	wait_held(1);
	offer(1, VIRTIO_BLK_T_OUT, 9, 4096);
	ck_assert_uint_eq(answer_of(1), VIRTIO_BLK_S_OK);
	offer(1, VIRTIO_BLK_T_FLUSH, 0, 0);
	offer(2, VIRTIO_BLK_T_FLUSH, 0, 0);
	/* Behind them in their queues, so that they have been taken when these are answered. */
	for (unsigned q = 1; q <= 2; q++) {
		struct vring_desc d[3] = {drv_desc(HEADERS + 0x1000 + q * 64, 16, false),
					  drv_desc(DATA + 0x100000 * q, 512, true),
					  drv_desc(HEADERS + 0x1000 + q * 64 + 32, 1, true)};
		uint16_t old = drv[q].avail_idx;

		header(64 + q, VIRTIO_BLK_T_IN, 0);
		drvq_add(&drv[q], d, 3, NULL);
		drvq_kick(&drv[q], old);
		ck_assert_uint_eq(answer_of(q),
				  0xee); /* the flush is not answered: another one is */
		ck_assert_uint_eq(*status_of(64 + q), VIRTIO_BLK_S_OK);
	}
	ck_assert(!answered(0));
	ck_assert_uint_eq(syncs, 1);
	hold = false;
	for (unsigned q = 0; q <= 2; q++)
		ck_assert_uint_eq(answer_of(q), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(syncs, 2);
	stop_device();
}
END_TEST

/* The kernel tells one sync of an error: every flush that came before the guest was told fails. */
START_TEST(failed_flush_of_another_queue)
{
	spied = true;
	no_sync = true;
	if (!start(_i))
		return;
	hold = true;
	offer(0, VIRTIO_BLK_T_FLUSH, 0, 0);
	wait_held(1);
	for (unsigned q = 1; q < NQUEUES; q++) {
		struct vring_desc d[2] = {drv_desc(HEADERS + 0x1000 + q * 64, 16, false),
					  drv_desc(HEADERS + 0x1000 + q * 64 + 32, 1, true)};

		offer(q, VIRTIO_BLK_T_FLUSH, 0, 0);
		header(64 + q, VIRTIO_BLK_T_OUT, 0); /* of no bytes */
		drvq_add(&drv[q], d, 2, NULL);
		event_signal(kick[q]);
		ck_assert_uint_eq(answer_of(q), 0xee);
	}
	hold = false;
	for (unsigned q = 0; q < NQUEUES; q++)
		ck_assert_uint_eq(answer_of(q), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(syncs, 1);
	/* Told: it is over, in the page too. */
	no_sync = false;
	for (unsigned q = 0; q < NQUEUES; q++) {
		offer(q, VIRTIO_BLK_T_FLUSH, 0, 0);
		ck_assert_uint_eq(answer_of(q), VIRTIO_BLK_S_OK);
	}
	stop_device();
	ck_assert_uint_eq(rig->b.page->sync_failed, 0);
}
END_TEST

/* A mistake in one queue breaks the device, whatever the others do. */
START_TEST(mistake_beside_traffic)
{
	struct vring_desc bad = drv_desc(HEADERS, 15, false);

	if (!start(_i))
		return;
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned q = 0; q < NQUEUES - 1; q++) {
			for (unsigned i = 0; i < 4; i++)
				offer(q, VIRTIO_BLK_T_IN, 128 * i, 0x10000);
		}
		drvq_add(&drv[NQUEUES - 1], &bad, 1, NULL);
		event_signal(kick[NQUEUES - 1]);
		wait_needs_reset();
		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
		memset(data(0), 0x5c, NQUEUES * 0x10000);
		usleep(200);
		expect_bytes(data(0), NQUEUES * 0x10000, 0x5c);
		bring_up(USUAL);
	}
	stop_device();
}
END_TEST

/* More than the pool holds. */
START_TEST(more_requests_than_the_pool)
{
	enum { N = 200 };

	if (!start(_i))
		return;
	ck_assert(drv_negotiate(&core, USUAL));
	for (unsigned i = 0; i < NQUEUES; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), 256, true, kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
	for (unsigned q = 0; q < NQUEUES; q++) {
		for (unsigned i = 0; i < N; i++) {
			unsigned at = q * N + i;
			gpa_t table = HEADERS + 0x80000 + at * 64;
			struct vring_desc in = drv_desc(table, 48, false),
					  *t = gm_ptr(&gm, table, 64);

			header(at, VIRTIO_BLK_T_IN, at * 8);
			t[0] = drv_desc(HEADERS + at * 64, 16, false);
			t[1] = drv_desc(DATA + at * BLOCK, BLOCK, true);
			t[2] = drv_desc(HEADERS + at * 64 + 32, 1, true);
			t[0].flags |= VRING_DESC_F_NEXT;
			t[0].next = 1;
			t[1].flags |= VRING_DESC_F_NEXT;
			t[1].next = 2;
			in.flags = VRING_DESC_F_INDIRECT;
			drvq_add(&drv[q], &in, 1, NULL);
		}
	}
	event_signal(kick[1]);
	event_signal(kick[0]);
	for (unsigned i = 0; i < 2 * N; i++) {
		uint32_t len;

		get_one(&drv[i / N], &len);
	}
	expect_fill(data(0), 2 * N * BLOCK, 1);
	stop_device();
}
END_TEST

/* ---- a snapshot is made ---- */

static struct msg_quiet quiet_order;

static bool said_quiet(int ms)
{
	struct pollfd p = {.fd = chan[0], .events = POLLIN};
	struct err e = {0};
	struct msg_quiet m;

	if (poll(&p, 1, ms) != 1)
		return false;
	ck_assert_int_eq(msg_expect(chan[0], MSG_IS_QUIET, &m, sizeof(m), NULL, 0, &e), 0);
	ck_assert_uint_eq(m.no, quiet_order.no);
	return true;
}

static void say_quiet(void)
{
	quiet_order.no++;
	ck_assert_int_eq(msg_send(chan[0], MSG_QUIET, &quiet_order, sizeof(quiet_order), NULL, 0),
			 0);
}

static void say(enum msg_type t)
{
	ck_assert_int_eq(msg_send(chan[0], t, NULL, 0, NULL, 0), 0);
}

/* Nothing is in flight when it is said, and everything that was is answered. */
START_TEST(quiet_waits_for_what_is_in_flight)
{
	struct vring_desc d[2] = {drv_desc(HEADERS, 16, false), drv_desc(HEADERS + 32, 1, true)};
	uint16_t old = 0;
	uint32_t len;

	spied = true;
	if (!start(_i))
		return;
	hold = true;
	header(0, VIRTIO_BLK_T_FLUSH, 0);
	drvq_add(&drv[0], d, 2, NULL);
	drvq_kick(&drv[0], old);
	while (!held)
		usleep(100);
	say_quiet();
	ck_assert(!said_quiet(100));
	ck_assert_uint_eq(*status_of(0), 0xee);
	hold = false;
	ck_assert(said_quiet(WAIT_MS));
	ck_assert_uint_eq(*status_of(0), VIRTIO_BLK_S_OK);
	get_one(&drv[0], &len);
	say(MSG_RESUME);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
	stop_device();
}
END_TEST

/* What the driver asks for meanwhile waits, whatever it kicks. */
START_TEST(nothing_is_taken_while_quiet)
{
	struct vring_desc d[3] = {drv_desc(HEADERS, 16, false), drv_desc(DATA, 4096, false),
				  drv_desc(HEADERS + 32, 1, true)};
	uint16_t old = 0;
	uint32_t len;

	if (!start(_i))
		return;
	say_quiet();
	ck_assert(said_quiet(WAIT_MS));
	header(0, VIRTIO_BLK_T_OUT, 0);
	fill(data(0), 4096, 77);
	drvq_add(&drv[0], d, 3, NULL);
	drvq_kick(&drv[0], old);
	for (unsigned i = 0; i < NQUEUES; i++)
		event_signal(kick[i]);
	usleep(100000);
	ck_assert_uint_eq(*status_of(0), 0xee);
	expect_disk(0, 4096, 1);
	/* Twice is once. */
	ck_assert_int_eq(msg_send(chan[0], MSG_QUIET, &quiet_order, sizeof(quiet_order), NULL, 0),
			 0);
	ck_assert(!said_quiet(50));
	say(MSG_RESUME);
	get_one(&drv[0], &len);
	ck_assert_uint_eq(*status_of(0), VIRTIO_BLK_S_OK);
	expect_disk(0, 4096, 77);
	/* An end is an end. */
	say_quiet();
	ck_assert(said_quiet(WAIT_MS));
	stop_device();
}
END_TEST

/* ---- limits ---- */

static void say_limit(uint64_t rate, uint64_t ops)
{
	const struct msg_limit m = {rate, ops};

	ck_assert_int_eq(msg_send(chan[0], MSG_LIMIT, &m, sizeof(m), NULL, 0), 0);
}

static void offer_read(unsigned i, unsigned slot)
{
	struct vring_desc d[3] = {drv_desc(HEADERS + slot * 64, 16, false),
				  drv_desc(DATA + slot * 4096, 4096, true),
				  drv_desc(HEADERS + slot * 64 + 32, 1, true)};
	uint16_t old = drv[i].avail_idx;

	header(slot, VIRTIO_BLK_T_IN, 0);
	drvq_add(&drv[i], d, 3, NULL);
	drvq_kick(&drv[i], old);
}

/* At 1024 bytes a second this is owed for longer than any test waits. */
static void get_into_debt(void)
{
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 1 << 20, true), VIRTIO_BLK_S_OK);
}

static void expect_held(unsigned first, unsigned n)
{
	usleep(100000);
	for (unsigned i = first; i < first + n; i++)
		ck_assert_uint_eq(*status_of(i), 0xee);
}

/* What is held back stays in the queue. So nothing waits for the bucket: no snapshot, no reset, and
 * not the end; and a driver gets no fresh one for a reset. */
START_TEST(held_back)
{
	struct msg_stats s;
	uint32_t len;

	conf.limit.rate = 1024;
	if (!start(_i))
		return;
	get_into_debt();
	for (unsigned i = 0; i < NQUEUES; i++)
		offer_read(i, 1 + i);
	expect_held(1, NQUEUES);
	say_quiet();
	ck_assert(said_quiet(WAIT_MS));
	say(MSG_RESUME);
	expect_held(1, NQUEUES);
	bring_up(USUAL);
	offer_read(0, 1);
	expect_held(1, 1);
	say_limit(0, 0);
	get_one(&drv[0], &len);
	ck_assert_uint_eq(*status_of(1), VIRTIO_BLK_S_OK);
	say_limit(1024, 0);
	while (!blk_limit_on(&rig->b.limit))
		usleep(100);
	get_into_debt();
	offer_read(0, 1);
	expect_held(1, 1);
	s = stop_device();
	ck_assert_uint_ge(s.n[STAT_BLK_THROTTLED], NQUEUES);
	ck_assert_uint_le(s.n[STAT_BLK_THROTTLED], 200); /* it does not look again and again */
}
END_TEST

/* The debt of one queue is another one's; a flush is a request, too, and a discard no bytes. */
START_TEST(what_counts)
{
	struct vring_desc d[2] = {drv_desc(HEADERS + 64, 16, false),
				  drv_desc(HEADERS + 96, 1, true)};
	struct virtio_blk_discard_write_zeroes *w = data(0);
	uint64_t begin;
	uint16_t old;
	uint32_t len;

	conf.limit.rate = 1024;
	if (!start(_i))
		return;
	*w = (struct virtio_blk_discard_write_zeroes){.sector = 64, .num_sectors = 8192};
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, sizeof(*w), false),
				  VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	get_into_debt();
	/* A flush behind it waits as all do. */
	old = drv[1].avail_idx;
	header(1, VIRTIO_BLK_T_FLUSH, 0);
	drvq_add(&drv[1], d, 2, NULL);
	drvq_kick(&drv[1], old);
	expect_held(1, 1);
	say_limit(0, 20);
	get_one(&drv[1], &len);
	/* 20 a second: two at once, and then it takes its time. */
	begin = clock_ns();
	for (unsigned i = 0; i < 12; i++)
		ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_ge(clock_ns() - begin, 400000000);
	stop_device();
}
END_TEST

START_TEST(messages_about_limits)
{
	const struct msg_limit m = {1, 1};

	if (!start(_i))
		return;
	ck_assert_int_eq(blk_message(&rig->b, MSG_LIMIT, &m, sizeof(m) - 1, NULL, 0), -EPROTO);
	ck_assert_int_eq(blk_message(&rig->b, MSG_NET_PEER, &m, sizeof(m), NULL, 0), -EPROTO);
	ck_assert_int_eq(blk_message(&rig->b, MSG_LIMIT, &m, sizeof(m), &(int){dup(0)}, 1),
			 -EPROTO);
	ck_assert(!blk_limit_on(&rig->b.limit));
	stop_device();
}
END_TEST

/* Again and again, right behind each other, under load on all queues: while it is said to be quiet
 * neither the page nor guest memory changes, and each request is answered once. */
START_TEST(quiet_under_load)
{
	enum { ROUNDS = 60, EACH = 16 };
	static uint8_t page[DP_SIZE];
	uint8_t *memory;
	uint32_t len;

	if (!start(_i))
		return;
	memory = malloc(DATA);
	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; i < NQUEUES * EACH; i++) {
			struct vring_desc d[3] = {drv_desc(HEADERS + i * 64, 16, false),
						  drv_desc(DATA + i * 4096, 4096, i & 1),
						  drv_desc(HEADERS + i * 64 + 32, 1, true)};

			header(i, i & 1 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i * 8);
			drvq_add(&drv[i % NQUEUES], d, 3, NULL);
		}
		for (unsigned i = 0; i < NQUEUES; i++)
			event_signal(kick[i]);
		for (unsigned twice = 0; twice < 2; twice++) {
			say_quiet();
			ck_assert(said_quiet(WAIT_MS));
			memcpy(page, core.page, DP_SIZE);
			memcpy(memory, gm_ptr(&gm, 0, DATA), DATA);
			usleep(300);
			ck_assert_int_eq(memcmp(page + DP_STATE_OFF, core.page + DP_STATE_OFF,
						DP_STATE_SIZE),
					 0);
			ck_assert_int_eq(memcmp(memory, gm_ptr(&gm, 0, DATA), DATA), 0);
			say(MSG_RESUME);
		}
		for (unsigned i = 0; i < NQUEUES * EACH; i++)
			get_one(&drv[i % NQUEUES], &len);
		for (unsigned i = 0; i < NQUEUES * EACH; i++)
			ck_assert_uint_eq(*status_of(i), VIRTIO_BLK_S_OK);
	}
	free(memory);
	stop_device();
}
END_TEST

/* ---- kills ---- */

static int kills_wanted(void)
{
	const char *s = getenv("INSULA_TEST_KILLS");

	return s ? atoi(s) : 150;
}

static struct {
	pid_t pid;
	_Atomic int kills;
	_Atomic bool end;
	uint32_t rnd;
} killer;

/* A generation of the disk as the supervisor makes it: its own description and a lock that lasts as
 * long as anything (an I/O of a dead process included) refers to it. */
static int disk_generation(void)
{
	struct flock l = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1LL << 40, .l_len = 1};
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", overlaid ? over_fd : disk_fd);
	fd = open(path, O_RDWR | O_CLOEXEC | (conf.flags & BLK_DIRECT ? O_DIRECT : 0));

	if (fd < 0 || fcntl(fd, F_OFD_SETLK, &l))
		fc_die("generation of the disk");
	return fd;
}

static void wait_quiet(void)
{
	for (;;) {
		struct flock l = {
			.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1LL << 40, .l_len = 1};

		if (fcntl(overlaid ? over_fd : disk_fd, F_OFD_GETLK, &l))
			fc_die("F_OFD_GETLK");
		if (l.l_type == F_UNLCK)
			return;
		usleep(100);
	}
}

static void spawn_device(void)
{
	int disk = disk_generation();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, chan))
		fc_die("socketpair");
	killer.pid = fork();
	if (killer.pid == 0) {
		close(chan[0]);
		if (open_rig(disk))
			_exit(1);
		_exit(helper_loop(&rig->h, chan[1]) ? 1 : 0);
	}
	close(chan[1]);
	close(disk);
}

static void kill_device(void)
{
	int status;

	kill(killer.pid, SIGKILL);
	waitpid(killer.pid, &status, 0);
	if (!WIFSIGNALED(status))
		fc_die("the device ended by itself");
	close(chan[0]);
	wait_quiet();
	killer.kills++;
}

/* False: it hangs, and is to be killed. Not the device's fault: ASan's allocator may have been
 * locked by another thread when this one forked, and clang 14's does not look after that. */
static bool comes_up(void)
{
	struct err e;
#ifdef INSULA_SANITIZE
	struct pollfd p = {.fd = chan[0], .events = POLLIN};

	if (poll(&p, 1, 5000) == 0)
		return false;
#endif
	if (msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e))
		fc_die(e.text);
	return true;
}

/* ---- copy on write ---- */

static bool index_is_stable(void)
{
	uint8_t *file = malloc(lay.index_len);
	bool same;

	ck_assert_int_eq(read_full(over_fd, file, lay.index_len, lay.index_off), 0);
	same = !memcmp(file, index_memory + lay.live_off, lay.index_len);
	free(file);
	return same;
}

/* What no flush has asked for is made stable at the end. */
START_TEST(overlay_at_the_end)
{
	if (!start((int)ARRAY_LEN(engines) + _i))
		return;
	fill(data(0), 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_OK);
	ck_assert(!index_is_stable());
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	ck_assert(index_is_stable());
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 900, 4096, false), VIRTIO_BLK_S_OK);
	ck_assert(!index_is_stable());
	stop_device();
	ck_assert(index_is_stable());
	expect_disk(900 * 512, 4096, 7);
}
END_TEST

/* The next process knows what the one before had not made stable. */
START_TEST(overlay_of_a_killed_process)
{
	if (!choose_variant((int)ARRAY_LEN(engines) + _i))
		return;
	do {
		spawn_device();
	} while (!comes_up());
	bring_up(USUAL);
	fill(data(0), 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_OK);
	kill_device();
	ck_assert(!index_is_stable());
	do {
		spawn_device();
	} while (!comes_up());
	expect_disk(9 * 512, 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 9, 4096, true), VIRTIO_BLK_S_OK);
	expect_fill(data(0), 4096, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	ck_assert(index_is_stable());
	stop_device();
	waitpid(killer.pid, NULL, 0);
}
END_TEST

/* Nothing of it is read when the VM has ended. */
START_TEST(overlay_thrown_away)
{
	conf.flags |= BLK_THROWN_AWAY;
	spied = true;
	if (!start((int)ARRAY_LEN(engines) + _i))
		return;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 9, 4096, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	bring_up(DRV_COMMON); /* without flushes */
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 900, 4096, false), VIRTIO_BLK_S_OK);
	stop_device();
	ck_assert_uint_eq(syncs, 0);
	ck_assert(!index_is_stable());
}
END_TEST

/* Zeros hide the base; a discard gives back what is there, and leaves the base alone. */
START_TEST(overlay_zeroes_and_discards)
{
	struct virtio_blk_discard_write_zeroes r = range(101, 999, 0);
	struct stat before, after;

	if (!start((int)ARRAY_LEN(engines) + _i))
		return;
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_OK);
	expect_zeros(101 * 512, 999 * 512);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 100, 512, true), VIRTIO_BLK_S_OK);
	expect_fill_at(data(0), 512, 1, 100 * 512);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 1100, 512, true), VIRTIO_BLK_S_OK);
	expect_fill_at(data(0), 512, 1, 1100 * 512);
	r = range(3000, 1001, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r, 1), VIRTIO_BLK_S_OK);
	expect_zeros(3000 * 512, 1001 * 512);
	fill(data(0), 1u << 20, 7);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 8000, 1u << 20, false), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(fsync(over_fd), 0);
	fstat(over_fd, &before);
	r = range(7000, 9384, 0); /* to the end: of the base, of what was written, of the base */
	ck_assert_uint_eq(ranges(VIRTIO_BLK_T_DISCARD, &r, 1), VIRTIO_BLK_S_OK);
	fstat(over_fd, &after);
	ck_assert_int_lt(after.st_blocks, before.st_blocks);
	expect_zeros(8000 * 512, 1u << 20);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 7000, 512000, true), VIRTIO_BLK_S_OK);
	expect_fill_at(data(0), 512000, 1, 7000 * 512);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 10048, 4096, true), VIRTIO_BLK_S_OK);
	expect_fill_at(data(0), 4096, 1, 10048 * 512);
	stop_device();
}
END_TEST

/* ---- killed again and again ---- */

static void *killer_main(void *arg)
{
	(void)arg;
	while (!killer.end) {
		killer.rnd = killer.rnd * 1664525 + 1013904223;
		/* Most of the time let it come up, sometimes kill it while it does. */
		if (killer.rnd >> 16 & 7)
			(void)comes_up();
		usleep((killer.rnd >> 20) % 3000);
		kill_device();
		spawn_device();
	}
	while (!comes_up()) {
		kill_device();
		spawn_device();
	}
	return NULL;
}

/* Once an overlay has all blocks, nothing is copied any more: so often it is a new one. */
#define OVERLAYS 6

static void under_kills(uint32_t seed)
{
	int wanted = overlaid ? kills_wanted() / OVERLAYS + 1 : kills_wanted();
	pthread_t t;
	uint64_t resets = 0;

	killer.kills = 0;
	killer.end = false;
	killer.rnd = seed;
	start_traffic(seed);
	/* The lock must be this process's business alone: disk_fd has none. */
	spawn_device();
	ck_assert_int_eq(pthread_create(&t, NULL, killer_main, NULL), 0);
	bring_up(USUAL);
	while (killer.kills < wanted) {
		tr->indirect = rnd() % 2;
		some_traffic(200 + rnd() % 200);
		/* Registers too: a reset and a new negotiation under kills. */
		if (rnd() % 4 == 0) {
			reap_until(0);
			bring_up(USUAL);
			resets++;
		}
	}
	killer.end = true;
	pthread_join(t, NULL);
	reap_until(0);
	ck_assert_uint_eq(tr->submitted, tr->completed);
	/* Nobody needed a reset, and nothing comes twice or late. */
	ck_assert_uint_eq(drv_status(&core), 0xf);
	usleep(20000);
	ck_assert(!reap());
	stop_device();
	ck_assert(!reap());
	waitpid(killer.pid, NULL, 0);
	wait_quiet();
	verify_disk();
	fprintf(stderr, "%d kills, %llu requests, %llu resets\n", (int)killer.kills,
		(unsigned long long)tr->completed, (unsigned long long)resets);
	free(tr);
}

START_TEST(killed_again_and_again)
{
	if (choose_variant(_i))
		under_kills(4711 + (uint32_t)_i);
}
END_TEST

/* Flushes of two queues were taken when the process died, and one sync had failed for both. */
START_TEST(killed_before_all_were_told)
{
	struct blk_page *page =
		(struct blk_page *)(void *)(core.page + DP_STATE_OFF + PORT_STATE_LEN);
	uint64_t until = clock_ns() + WAIT_MS * 1000000ull;

	if (!choose_variant(_i))
		return;
	spied = true;
	hold = true;
	do {
		spawn_device();
	} while (!comes_up());
	bring_up(USUAL);
	for (unsigned q = 0; q < 2; q++) {
		offer(q, VIRTIO_BLK_T_FLUSH, 0, 0);
		while (!page->virtio.q[q].slot[0].busy) {
			ck_assert(clock_ns() < until);
			usleep(100);
		}
	}
	kill_device();
	page->sync_failed = 1;
	spied = false;
	hold = false;
	do {
		spawn_device();
	} while (!comes_up());
	for (unsigned q = 0; q < 2; q++)
		ck_assert_uint_eq(answer_of(q), VIRTIO_BLK_S_IOERR);
	while (page->sync_failed) {
		ck_assert(clock_ns() < until);
		usleep(100);
	}
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	stop_device();
	waitpid(killer.pid, NULL, 0);
}
END_TEST

START_TEST(killed_with_direct_io)
{
	int fd = open(disk_path, O_RDWR | O_DIRECT | O_CLOEXEC);

	conf.flags = BLK_DIRECT;
	conf.max_io = BLOCK; /* in parts: all of them belong to the one request */
	if (fd < 0 || !choose_variant(_i))
		return;
	close(fd);
	under_kills(815 + (uint32_t)_i);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk");
	TCase *c = tcase_create("requests"), *k = tcase_create("kills");
	SRunner *sr = srunner_create(s);
	int failed, n = ARRAY_LEN(engines), both = 2 * n;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 120);
	tcase_add_loop_test(c, configuration, 0, both);
	tcase_add_loop_test(c, read_write_flush, 0, both);
	tcase_add_loop_test(c, without_flush_writes_are_stable, 0, n);
	tcase_add_loop_test(c, bounds, 0, both);
	tcase_add_loop_test(c, identity_and_unknown, 0, both);
	tcase_add_loop_test(c, any_layout, 0, both);
	tcase_add_loop_test(c, discard_and_write_zeroes, 0, n);
	tcase_add_loop_test(c, ranges_of_a_device, 0, n);
	tcase_add_loop_test(c, error_of_an_earlier_process, 0, both);
	tcase_add_loop_test(c, error_is_written_down, 0, both);
	tcase_add_loop_test(c, error_for_all_that_resume, 0, both);
	tcase_add_loop_test(c, first_flush_asks_the_other_descriptor, 0, both);
	tcase_add_loop_test(c, other_descriptor_is_asked_once, 0, both);
	tcase_add_loop_test(c, write_zeroes_without_the_file_system, 0, n);
	tcase_add_loop_test(c, read_only, 0, n);
	tcase_add_loop_test(c, no_discard, 0, n);
	tcase_add_loop_test(c, file_became_shorter, 0, both);
	tcase_add_loop_test(c, direct, 0, both);
	tcase_add_loop_test(c, direct_in_parts, 0, n);
	tcase_add_loop_test(c, direct_bounce_queue, 0, both);
	tcase_add_loop_test(c, direct_alignment_of_offsets, 0, both);
	tcase_add_loop_test(c, mistakes_need_a_reset, 0, both);
	tcase_add_test(c, configurations_refused);
	tcase_add_loop_test(c, random_traffic, 0, both);
	tcase_add_loop_test(c, random_traffic_in_parts, 0, both);
	tcase_add_loop_test(c, reset_under_traffic, 0, both);
	tcase_add_loop_test(c, queues_at_once, 0, both);
	tcase_add_loop_test(c, flush_of_another_queue, 0, n);
	tcase_add_loop_test(c, failed_flush_of_another_queue, 0, both);
	tcase_add_loop_test(c, mistake_beside_traffic, 0, both);
	tcase_add_loop_test(c, overlay_at_the_end, 0, n);
	tcase_add_loop_test(c, overlay_of_a_killed_process, 0, n);
	tcase_add_loop_test(c, overlay_thrown_away, 0, n);
	tcase_add_loop_test(c, overlay_zeroes_and_discards, 0, n);
	tcase_add_loop_test(c, more_requests_than_the_pool, 0, both);
	tcase_add_loop_test(c, quiet_waits_for_what_is_in_flight, 0, both);
	tcase_add_loop_test(c, nothing_is_taken_while_quiet, 0, both);
	tcase_add_loop_test(c, quiet_under_load, 0, both);
	tcase_add_loop_test(c, held_back, 0, both);
	tcase_add_loop_test(c, what_counts, 0, n);
	tcase_add_loop_test(c, messages_about_limits, 0, n);
	suite_add_tcase(s, c);
	tcase_add_checked_fixture(k, setup, teardown);
	tcase_set_timeout(k, 600);
	tcase_add_loop_test(k, killed_again_and_again, 0, n + OVERLAYS * n);
	tcase_add_loop_test(k, killed_before_all_were_told, 0, both);
	tcase_add_loop_test(k, killed_with_direct_io, 0, n + OVERLAYS * n);
	suite_add_tcase(s, k);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
