/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-balloon: what leaves the memory's file and what does not, a driver that lies, statistics,
 * the size that is asked for, restarts, and a kill at every single instruction.
 *
 * Each page of the guest carries a stamp. A page that was given away reads as zeros, and is a hole
 * in the file; every other one has its stamp.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/virtio_ids.h>

#include <insula/log.h>
#include <insula/stats.h>

#include <devices/balloon/balloon.h>

#include "bareworker.h"
#include "fakedrv.h"
#include "life.h"
#include "steps.h"

#define MEM (32u << 20)
#define PAGE BALLOON_PAGE
#define NPAGES (MEM / PAGE)
#define RINGS(q) (0x10000u + (q)*DRV_QUEUE_BYTES)
#define LISTS 0x80000u           /* what chains point to */
#define FIRST (0x100000u / PAGE) /* of the pages that are played with */
#define QNUM 64
#define BIT(n) (UINT64_C(1) << (n))
#define STATS BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define OOM BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define REPORTING BIT(VIRTIO_BALLOON_F_REPORTING)
#define POISON BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define CONFIG_REG(field) (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_balloon_config, field))

static struct balloon balloon;
static struct helper helper;
static struct fakecore core;
static struct guestmem gm;
static struct msg_start_balloon conf;
static struct drvq q[BALLOON_QUEUES];
static int mem_fd, kick[BALLOON_QUEUES];

/* ---- the guest's memory ---- */

static uint64_t *page_at(unsigned page)
{
	return gm_ptr(&gm, (gpa_t)page * PAGE, PAGE);
}

static uint64_t stamp(unsigned page, uint64_t round)
{
	return (page + 1) * UINT64_C(0x9e3779b97f4a7c15) + round;
}

static void put_stamp(unsigned page, uint64_t round)
{
	page_at(page)[0] = page_at(page)[PAGE / 8 - 1] = stamp(page, round);
}

static bool has_stamp(unsigned page, uint64_t round)
{
	return page_at(page)[0] == stamp(page, round) &&
	       page_at(page)[PAGE / 8 - 1] == stamp(page, round);
}

static void stamp_all(void)
{
	for (unsigned i = FIRST; i < NPAGES; i++)
		put_stamp(i, 0);
}

/* Without touching it. */
static bool is_hole(unsigned page)
{
	off_t at = (off_t)page * PAGE;

	return lseek(mem_fd, at, SEEK_DATA) != at;
}

/* All pages from FIRST on but those in [from, to) are there, with their stamps. */
static void only_these_are_gone(unsigned from, unsigned to)
{
	for (unsigned i = FIRST; i < NPAGES; i++) {
		bool gone = i >= from && i < to;

		ck_assert_msg(is_hole(i) == gone, "page %u", i);
	}
	for (unsigned i = FIRST; i < NPAGES; i++) {
		if (i < from || i >= to)
			ck_assert_msg(has_stamp(i, 0), "page %u", i);
	}
}

/* ---- the device ---- */

static int open_balloon(void)
{
	struct start_fds f = drv_start_fds(&core, mem_fd);
	const char *step = "";
	struct err e = {0};

	for (unsigned i = 0; i < BALLOON_QUEUES; i++)
		start_add(&f, START_KICK, fd_copy(kick[i]));
	if (balloon_open(&balloon, &helper, &conf, &f, &step, &e) ||
	    helper_attach(&helper, &balloon.ops, &balloon.w, &e)) {
		fprintf(stderr, "%s: %s\n", step, e.text);
		return -1;
	}
	return 0;
}

static void setup(void)
{
	log_setup("", LOG_LVL_ERROR);
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM);
	for (unsigned i = 0; i < BALLOON_QUEUES; i++)
		kick[i] = event_create();
	conf = (struct msg_start_balloon){.head.mem = board_map(MEM), .flags = BALLOON_REPORT};
	stamp_all();
}

static struct helper *opened(void)
{
	return open_balloon() ? NULL : &helper;
}

static void start_device(void)
{
	life_begin(opened);
}

static struct msg_stats stop_device(void)
{
	return life_end();
}

/* The first `n` queues, or those whose bits are set. */
static void bring_up(uint64_t features, unsigned queues)
{
	ck_assert(drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1) | features));
	for (unsigned i = 0; i < BALLOON_QUEUES; i++) {
		if (!(queues >> i & 1))
			continue;
		drvq_init(&q[i], &gm, RINGS(i), QNUM, false, kick[i]);
		ck_assert(drv_queue(&core, i, &q[i]));
	}
	drv_ok(&core);
}

static void offer(unsigned queue, const struct vring_desc *d, unsigned n)
{
	uint16_t old = q[queue].avail_idx;

	drvq_add(&q[queue], d, n, NULL);
	drvq_kick(&q[queue], old);
}

static bool answered(unsigned queue)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;
	uint16_t head;
	uint32_t len;
	void *p;

	while (!drvq_get(&q[queue], &head, &len, &p)) {
		if (clock_ns() > until)
			return false;
		usleep(50);
	}
	ck_assert_uint_eq(len, 0);
	return true;
}

static void give(unsigned queue, const struct vring_desc *d, unsigned n)
{
	offer(queue, d, n);
	ck_assert(answered(queue));
}

/* A list of n pages from `page` on, by this step. */
static struct vring_desc list(unsigned page, unsigned n, int step)
{
	uint32_t *pfn = gm_ptr(&gm, LISTS, n * sizeof(*pfn));

	for (unsigned i = 0; i < n; i++)
		pfn[i] = (uint32_t)((int)page + (int)i * step);
	return drv_desc(LISTS, n * sizeof(*pfn), false);
}

static void needs_reset(const char *what)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;

	while (!(drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		ck_assert_msg(clock_ns() < until, "%s", what);
		usleep(50);
	}
}

/* ---- what goes and what stays ---- */

START_TEST(start_messages)
{
	struct msg_start_balloon m = {.head.mem = board_map(MEM)};
	struct err e;

	m.pages = NPAGES;
	m.flags = BALLOON_REPORT;
	ck_assert_int_eq(balloon_check_conf(&m, &e), 0);
	m.pages++;
	ck_assert_int_eq(balloon_check_conf(&m, &e), -EINVAL);
	ck_assert_str_eq(e.text, "a balloon of 8193 pages in a guest of 8192");
	m.pages = 0;
	m.flags = 2;
	ck_assert_int_eq(balloon_check_conf(&m, &e), -EINVAL);
	ck_assert_uint_eq(balloon_features(0), STATS | OOM);
	ck_assert_uint_eq(balloon_features(BALLOON_REPORT), STATS | OOM | REPORTING | POISON);
}
END_TEST

/* Upwards, downwards, one by one, in one list and in pieces of it. */
START_TEST(inflated_pages_leave_the_file)
{
	struct vring_desc d[3];
	struct msg_stats s;

	start_device();
	bring_up(STATS | OOM, 7);
	d[0] = list(1000, 700, 1);
	give(0, d, 1);
	only_these_are_gone(1000, 1700);
	d[0] = list(1999, 300, -1);
	give(0, d, 1);
	for (unsigned i = 1700; i < 2000; i++)
		ck_assert_int_eq(is_hole(i), true);
	ck_assert(has_stamp(2000, 0));
	/* Every other page, the list in three descriptors of odd lengths. */
	d[0] = list(3001, 500, 2);
	d[1] = drv_desc(LISTS + 6, 1001, false);
	d[2] = drv_desc(LISTS + 1007, 2000 - 1007, false);
	d[0].len = 6;
	give(0, d, 3);
	for (unsigned i = 3000; i < 4000; i++)
		ck_assert_msg(is_hole(i) == (i % 2 == 1), "page %u", i);
	for (unsigned i = 3000; i < 4000; i += 2)
		ck_assert(has_stamp(i, 0));
	/* It may be used again: zeros first, then what is written. */
	ck_assert_uint_eq(page_at(1000)[0], 0);
	put_stamp(1000, 5);
	d[0] = list(1000, 700, 1);
	give(1, d, 1);
	ck_assert(has_stamp(1000, 5));
	ck_assert(is_hole(1001));
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_BALLOON_INFLATED], 1500ull * PAGE);
	ck_assert_uint_eq(s.n[STAT_BALLOON_DEFLATED], 700ull * PAGE);
	ck_assert_uint_eq(s.n[STAT_BALLOON_ERRORS], 0);
}
END_TEST

/* Where Linux has the queue, and where the specification has it. */
static const struct {
	uint64_t features;
	unsigned queues, report;
} report_queues[] = {{STATS | REPORTING, 0xf, 3},
		     {REPORTING, 7, 2},
		     {STATS | REPORTING, 0x17, 4},
		     {REPORTING, 0x13, 4}};

START_TEST(reported_ranges_leave_the_file)
{
	const unsigned at = report_queues[_i].report;
	struct vring_desc d[3];
	struct msg_stats s;

	start_device();
	bring_up(report_queues[_i].features, report_queues[_i].queues);
	d[0] = drv_desc(1024 * PAGE, 4u << 20, true);
	give(at, d, 1);
	only_these_are_gone(1024, 2048);
	/* Odd ends stay, whatever lies beside them; so does what is less than a page. */
	d[0] = drv_desc(3000 * PAGE + 1, 10 * PAGE, true);
	d[1] = drv_desc(3100 * PAGE + 5, PAGE - 5, true);
	d[2] = drv_desc(4000 * PAGE + 100, 5u << 20, true);
	give(at, d, 3);
	for (unsigned i = 2990; i < 3200; i++)
		ck_assert_msg(is_hole(i) == (i > 3000 && i < 3010), "page %u", i);
	for (unsigned i = 3990; i < 5300; i++)
		ck_assert_msg(is_hole(i) == (i > 4000 && i < 5280), "page %u", i);
	ck_assert(has_stamp(3000, 0) && has_stamp(3010, 0) && has_stamp(3100, 0) &&
		  has_stamp(4000, 0) && has_stamp(5280, 0));
	s = stop_device();
	ck_assert_uint_gt(s.n[STAT_BALLOON_REPORTED], 9ull << 20);
	ck_assert_uint_eq(s.n[STAT_BALLOON_INFLATED], 0);
}
END_TEST

/* A guest whose free pages are not zeros cannot have them cut: it would find zeros. */
START_TEST(poisoned_pages_stay)
{
	const struct vring_desc d = drv_desc(1024 * PAGE, 4u << 20, true);

	start_device();
	ck_assert(drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1) | STATS | REPORTING | POISON));
	drv_reg(&core, CONFIG_REG(poison_val), 0xaaaaaaaa);
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(poison_val)), 0xaaaaaaaa);
	drvq_init(&q[3], &gm, RINGS(3), QNUM, false, kick[3]);
	ck_assert(drv_queue(&core, 3, &q[3]));
	drv_ok(&core);
	give(3, &d, 1);
	only_these_are_gone(0, 0);
	drv_reg(&core, CONFIG_REG(poison_val), 0);
	give(3, &d, 1);
	only_these_are_gone(1024, 2048);
	stop_device();
}
END_TEST

/* Without the feature in the start message there are no reports, whatever the driver asks for. */
START_TEST(reports_can_be_left_out)
{
	conf.flags = 0;
	start_device();
	ck_assert(!drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1) | REPORTING));
	ck_assert(drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1) | STATS));
	stop_device();
}
END_TEST

/* ---- a driver that lies ---- */

static const struct {
	const char *what;
	unsigned queue;
	uint64_t addr;
	uint32_t len;
	bool write;
	uint32_t pfn;
} lies[] = {
	{"a page behind the memory", 0, LISTS, 4, false, NPAGES},
	{"a page far away", 0, LISTS, 4, false, UINT32_MAX},
	{"a list of odd length", 0, LISTS, 5, false, 2000},
	{"a list to write to", 0, LISTS, 4, true, 2000},
	{"a list that is not in memory", 0, MEM - 4, 8, false, 2000},
	{"an empty list", 0, LISTS, 0, false, 2000},
	{"a list of odd length to deflate", 1, LISTS, 7, false, 2000},
	{"statistics to write to", 2, LISTS, 10, true, 0},
	{"a report to read", 3, 2000 * PAGE, PAGE, false, 0},
	{"a report that ends behind the memory", 3, MEM - PAGE, 2 * PAGE, true, 0},
	{"a report that wraps", 3, UINT64_MAX - PAGE + 1, 2 * PAGE, true, 0},
	{"a report of nothing", 3, 2000 * PAGE, 0, true, 0},
};

START_TEST(lies_do_no_harm)
{
	struct vring_desc d = drv_desc(lies[_i].addr, lies[_i].len, lies[_i].write);

	start_device();
	bring_up(STATS | OOM | REPORTING, 0xf);
	*(uint32_t *)gm_ptr(&gm, LISTS, 4) = lies[_i].pfn;
	offer(lies[_i].queue, &d, 1);
	needs_reset(lies[_i].what);
	only_these_are_gone(0, 0);
	/* And after a reset it works. */
	bring_up(STATS | OOM | REPORTING, 0xf);
	d = list(2000, 10, 1);
	give(0, &d, 1);
	only_these_are_gone(2000, 2010);
	stop_device();
}
END_TEST

/* What lies overlap is cut twice; a ring that is guest memory can be cut by its own guest. */
START_TEST(overlaps)
{
	struct vring_desc d[2] = {drv_desc(2000 * PAGE, 20 * PAGE, true),
				  drv_desc(2010 * PAGE, 20 * PAGE, true)};

	start_device();
	bring_up(STATS | REPORTING, 0xf);
	give(3, d, 2);
	only_these_are_gone(2000, 2030);
	d[0] = drv_desc(RINGS(3), DRV_QUEUE_BYTES, true);
	offer(3, d, 1);
	/* It finds its own rings empty: whatever it makes of that, registers go on. */
	usleep(20000);
	bring_up(STATS | REPORTING, 0xf);
	d[0] = drv_desc(2040 * PAGE, PAGE, true);
	give(3, d, 1);
	ck_assert(is_hole(2040));
	stop_device();
}
END_TEST

/* Gigabytes of page numbers in one chain: the registers answer, and so does the reset. */
START_TEST(the_longest_list_keeps_nobody_waiting)
{
	struct vring_desc d[QNUM];
	uint64_t begin;

	start_device();
	bring_up(STATS | OOM, 7);
	/* Two pages that are not side by side, in turn: no two are cut at once. */
	for (unsigned i = 0; i < 8u << 20; i += 8) {
		uint32_t *pfn = gm_ptr(&gm, (16u << 20) + i, 8);

		pfn[0] = 600;
		pfn[1] = 700;
	}
	for (unsigned i = 0; i < QNUM; i++)
		d[i] = drv_desc(16u << 20, 8u << 20, false);
	offer(0, d, QNUM);
	while (!is_hole(700))
		usleep(50);
	begin = clock_ns();
	for (unsigned i = 0; i < 100; i++)
		drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, i % 3);
	ck_assert_uint_eq(drv_load16(q[0].used + 2), 0); /* it has not ended meanwhile */
	bring_up(STATS | OOM, 7);
	/* DP_DEADLINE_NS is when the core would have given up. */
	ck_assert_uint_lt(clock_ns() - begin, DP_DEADLINE_NS);
	put_stamp(600, 0);
	put_stamp(700, 0);
	d[0] = list(2000, 10, 1);
	give(0, d, 1);
	ck_assert(has_stamp(600, 0) && has_stamp(700, 0));
	/* At the end, too. */
	offer(0, d, 1);
	for (unsigned i = 0; i < QNUM; i++)
		d[i] = drv_desc(16u << 20, 8u << 20, false);
	ck_assert(answered(0));
	offer(0, d, QNUM);
	stop_device();
}
END_TEST

/* ---- statistics, the size ---- */

static void put_stat(unsigned at, uint16_t tag, uint64_t val)
{
	struct virtio_balloon_stat s = {.tag = tag, .val = val};

	memcpy(gm_ptr(&gm, LISTS + at * sizeof(s), sizeof(s)), &s, sizeof(s));
}

static struct msg_balloon_state ask(void)
{
	struct msg_balloon_state s;
	struct err e = {0};

	ck_assert_int_eq(msg_send(chan[0], MSG_BALLOON_ASK, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_BALLOON_STATE, &s, sizeof(s), NULL, 0, &e), 0);
	return s;
}

START_TEST(statistics)
{
	struct vring_desc d = drv_desc(LISTS, 0, false);
	struct msg_balloon_state s;
	struct err e = {0};

	start_device();
	s = ask(); /* no driver: at once */
	ck_assert_uint_eq(s.count, 0);
	bring_up(STATS | OOM, 7);
	put_stat(0, VIRTIO_BALLOON_S_MEMFREE, 77 << 20);
	put_stat(1, 999, 1);
	put_stat(2, VIRTIO_BALLOON_S_AVAIL, UINT64_MAX);
	d.len = 3 * sizeof(struct virtio_balloon_stat) + 9; /* and a part of one */
	offer(2, &d, 1);
	while (!atomic_load(&balloon.count))
		usleep(100);
	usleep(5000);
	ck_assert_uint_eq(drv_load16(q[2].used + 2), 0); /* the device keeps it */
	ck_assert_int_eq(msg_send(chan[0], MSG_BALLOON_ASK, NULL, 0, NULL, 0), 0);
	ck_assert(answered(2)); /* "new ones" */
	put_stat(0, VIRTIO_BALLOON_S_MEMFREE, 88 << 20);
	offer(2, &d, 1);
	ck_assert_int_eq(msg_expect(chan[0], MSG_BALLOON_STATE, &s, sizeof(s), NULL, 0, &e), 0);
	ck_assert_uint_eq(s.count, 2);
	ck_assert_uint_eq(s.has, BIT(VIRTIO_BALLOON_S_MEMFREE) | BIT(VIRTIO_BALLOON_S_AVAIL));
	ck_assert_uint_eq(s.stat[VIRTIO_BALLOON_S_MEMFREE], 88 << 20);
	ck_assert_uint_eq(s.stat[VIRTIO_BALLOON_S_AVAIL], UINT64_MAX);
	/* A second buffer sets the first one free. */
	offer(2, &d, 1);
	ck_assert(answered(2));
	/* Without the queue: at once, what there was. */
	bring_up(OOM, 3);
	s = ask();
	ck_assert_uint_ge(s.count, 2);
	stop_device();
}
END_TEST

/* The driver is asked, and resets the device instead of an answer. */
START_TEST(a_reset_answers_too)
{
	struct msg_balloon_state s;
	struct err e = {0};

	start_device();
	bring_up(STATS | OOM, 7);
	drv_reg(&core, CONFIG_REG(actual), 1000);
	ck_assert_int_eq(msg_send(chan[0], MSG_BALLOON_ASK, NULL, 0, NULL, 0), 0);
	while (!atomic_load(&balloon.ask))
		usleep(100);
	drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
	ck_assert_msg(events_wait(NULL, 0, chan[0], 10000) & EVENTS_CHANNEL, "no answer");
	ck_assert_int_eq(msg_expect(chan[0], MSG_BALLOON_STATE, &s, sizeof(s), NULL, 0, &e), 0);
	ck_assert_uint_eq(s.actual, 0);
	ck_assert_uint_eq(s.count, 0);
	stop_device(); /* and once is enough: the next message is MSG_STOPPED */
}
END_TEST

START_TEST(the_size_is_asked_for)
{
	const struct msg_balloon m = {.pages = 1234};
	struct msg_balloon_state s;
	struct err e = {0};
	uint32_t gen;

	conf.pages = 99;
	start_device();
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(num_pages)), 99);
	bring_up(STATS | OOM, 3);
	gen = fc_shadow32(&core, VIRTIO_MMIO_CONFIG_GENERATION);
	event_drain(core.irq_fd);
	ck_assert_int_eq(msg_send(chan[0], MSG_BALLOON, &m, sizeof(m), NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_BALLOON_TAKEN, NULL, 0, NULL, 0, &e), 0);
	while (fc_shadow32(&core, VIRTIO_MMIO_CONFIG_GENERATION) != gen + 2)
		usleep(100);
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(num_pages)), 1234);
	ck_assert(events_wait(&core.irq_fd, 1, -1, 10000) & 1);
	while (!(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2))
		usleep(100);
	drv_reg(&core, CONFIG_REG(actual), 1000);
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(actual)), 1000);
	drv_reg(&core, CONFIG_REG(num_pages), 7); /* that one is ours */
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(num_pages)), 1234);
	s = ask();
	ck_assert_uint_eq(s.actual, 1000);
	drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(actual)), 0);
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(num_pages)), 1234);
	stop_device();
}
END_TEST

/* What the driver has written is still there, and what was asked for meanwhile is told. */
START_TEST(the_size_survives_a_restart)
{
	start_device();
	bring_up(STATS | OOM, 7);
	drv_reg(&core, CONFIG_REG(actual), 500);
	stop_device();
	event_drain(core.irq_fd);
	conf.pages = 600;
	start_device();
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(actual)), 500);
	ck_assert_uint_eq(fc_shadow32(&core, CONFIG_REG(num_pages)), 600);
	ck_assert(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
	ck_assert(events_wait(&core.irq_fd, 1, -1, 10000) & 1);
	stop_device();
}
END_TEST

/* ---- kills ---- */

static uint64_t rnd_state = 1;

static unsigned rnd(unsigned n)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return (unsigned)(rnd_state >> 16) % n;
}

static pid_t start_process(void)
{
	return life_fork(opened);
}

/* The guest at work: it gives pages away, on both queues, as many chains as it likes at a time. As
 * soon as one is answered it writes to its pages again. A page is never changed by anybody while it
 * is the guest's. */
#define SLOTS 16
#define PER 40 /* pages of a chain at most */

static struct slot {
	unsigned queue, page, n;
	uint16_t head;
	bool out;
} slot[SLOTS];
static uint64_t round_of[NPAGES];
static unsigned reused;

/* Each slot has pages of its own. */
static void slot_give(unsigned i)
{
	struct slot *s = &slot[i];
	gpa_t at = LISTS + i * 0x1000u;
	uint32_t *pfn = gm_ptr(&gm, at, PER * sizeof(*pfn));
	struct vring_desc d;

	s->queue = rnd(2) ? 3 : 0;
	s->n = 1 + rnd(PER);
	s->page = FIRST + i * PER + rnd(PER - s->n + 1);
	for (unsigned k = 0; k < s->n; k++)
		pfn[k] = s->page + k;
	d = s->queue ? drv_desc((gpa_t)s->page * PAGE, s->n * PAGE, true)
		     : drv_desc(at, s->n * sizeof(*pfn), false);
	s->out = true;
	offer(s->queue, &d, 1);
	s->head = drv_load16(q[s->queue].avail + 4 + 2 * ((q[s->queue].avail_idx - 1) % QNUM));
}

static void slot_reuse(struct slot *s)
{
	for (unsigned k = 0; k < s->n; k++) {
		ck_assert_msg(page_at(s->page + k)[0] == 0, "page %u was not given back",
			      s->page + k);
		put_stamp(s->page + k, ++round_of[s->page + k]);
	}
	s->out = false;
	reused++;
}

static void take_answers(void)
{
	static const unsigned queues[] = {0, 3};
	uint16_t head;
	uint32_t len;
	void *p;

	for (unsigned k = 0; k < 2; k++) {
		while (drvq_get(&q[queues[k]], &head, &len, &p)) {
			for (unsigned i = 0; i < SLOTS; i++) {
				if (slot[i].out && slot[i].queue == queues[k] &&
				    slot[i].head == head) {
					slot_reuse(&slot[i]);
					break;
				}
			}
		}
	}
}

static void nothing_is_lost(void)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		for (unsigned page = FIRST + i * PER; page < FIRST + (i + 1) * PER; page++) {
			bool away = slot[i].out && page >= slot[i].page &&
				    page < slot[i].page + slot[i].n;

			ck_assert_msg(away || has_stamp(page, round_of[page]),
				      "page %u has lost round %llu", page,
				      (unsigned long long)round_of[page]);
		}
	}
}

START_TEST(killed)
{
	uint64_t until;
	pid_t pid;

	rnd_state = 7;
	pid = start_process();
	bring_up(STATS | REPORTING, 0xf);
	for (unsigned kills = 0; kills < 200; kills++) {
		for (until = clock_ns() + rnd(2000000); clock_ns() < until;) {
			for (unsigned i = 0; i < SLOTS; i++) {
				if (!slot[i].out && rnd(2))
					slot_give(i);
			}
			take_answers();
		}
		life_kill(pid);
		nothing_is_lost();
		pid = start_process();
		take_answers();
		nothing_is_lost();
	}
	for (until = clock_ns() + FC_DEADLINE_NS; clock_ns() < until; usleep(100)) {
		unsigned out = 0;

		take_answers();
		for (unsigned i = 0; i < SLOTS; i++)
			out += slot[i].out;
		if (!out)
			break;
	}
	for (unsigned i = 0; i < SLOTS; i++)
		ck_assert_msg(!slot[i].out, "chain %u was never answered", i);
	usleep(5000);
	nothing_is_lost();
	for (unsigned i = FIRST + SLOTS * PER; i < NPAGES; i++)
		ck_assert(has_stamp(i, 0));
	ck_assert_uint_ge(reused, 1000);
	life_kill(pid);
}
END_TEST

/* ---- without its threads: a kill at every instruction ---- */

struct bare {
	struct balloon b;
	struct helper h;
};
static struct bare bare, next;

static void bare_start(void *dev)
{
	balloon_prepare(dev);
	atomic_fetch_add(&((struct worker *)dev)->want, 1);
}

static void turns(struct balloon *b)
{
	for (unsigned n = 0; balloon_turn(b) || b->busy; n++)
		ck_assert_uint_lt(n, 1000);
}

static void bare_stop(void *dev)
{
	atomic_fetch_add(&((struct worker *)dev)->want, 1);
	turns(dev);
}

static void birth(struct bare *r)
{
	struct worker *w = &r->b.w;

	memset(r, 0, sizeof(*r));
	bare_open(w, &r->h, core.page, BALLOON_TAG, &gm, 0x1f);
	balloon_describe(&r->b, &conf);
	w->model.start = bare_start;
	w->model.stop = bare_stop;
	bare_attach(w, &r->b.ops.regs);
	r->b.ops.resume(w);
}

/* Three chains: two lists (side by side, apart), a report of two ranges. All pages are here: */
#define PLAY (FIRST + 16)
static const struct {
	unsigned queue, order; /* among those of its queue */
	unsigned page[4], n;
} away[] = {
	{0, 0, {PLAY, PLAY + 1, PLAY + 3}, 3},
	{0, 1, {PLAY + 5}, 1},
	{3, 0, {PLAY + 7, PLAY + 8, PLAY + 10}, 3},
};

static void guest_with_work(void)
{
	const gpa_t lists = LISTS + 0x1000;
	uint32_t *pfn = gm_ptr(&gm, lists, 64);
	struct vring_desc d[2];

	birth(&bare);
	core.pump = bare_pump;
	core.arg = &bare.h;
	bring_up(STATS | REPORTING, 0xf);
	turns(&bare.b);
	for (unsigned i = 0; i < 2; i++) {
		memcpy(pfn + i * 4, away[i].page, sizeof(away[i].page));
		d[0] = drv_desc(lists + i * 16u, away[i].n * 4, false);
		offer(0, d, 1);
	}
	d[0] = drv_desc((PLAY + 7) * PAGE, 2 * PAGE, true);
	d[1] = drv_desc((PLAY + 10) * PAGE, PAGE, true);
	offer(3, d, 2);
	put_stat(0, VIRTIO_BALLOON_S_MEMFREE, 77 << 20);
	d[0] = drv_desc(LISTS, 10, false);
	offer(2, d, 1);
}

#define COPY_FROM RINGS(0)
#define COPY_LEN ((PLAY + 16) * PAGE - COPY_FROM)

/* The guest uses what was answered, a successor carries on: what is used again stays, the rest is
 * given back, and each chain is answered once. */
static void check_successor(unsigned step)
{
	static uint8_t page[DP_SIZE], memory[COPY_LEN];
	bool was[3];

	memcpy(page, core.page, DP_SIZE);
	memcpy(memory, gm_ptr(&gm, COPY_FROM, COPY_LEN), COPY_LEN);
	for (unsigned i = 0; i < 3; i++) {
		was[i] = drv_load16(q[away[i].queue].used + 2) > away[i].order;
		for (unsigned k = 0; was[i] && k < away[i].n; k++) {
			ck_assert_msg(page_at(away[i].page[k])[0] == 0,
				      "step %u: answered, and page %u is still there", step,
				      away[i].page[k]);
			put_stamp(away[i].page[k], 9);
		}
	}
	birth(&next);
	turns(&next.b);
	ck_assert_uint_eq(drv_load16(q[0].used + 2), 2);
	ck_assert_uint_eq(drv_load16(q[3].used + 2), 1);
	for (unsigned p = PLAY - 8, gone; p < PLAY + 16; p++) {
		gone = 0;
		for (unsigned i = 0; i < 3; i++) {
			for (unsigned k = 0; k < away[i].n; k++)
				gone |= away[i].page[k] == p ? 1u + was[i] : 0;
		}
		if (gone == 1)
			ck_assert_msg(page_at(p)[0] == 0, "step %u: page %u", step, p);
		else
			ck_assert_msg(has_stamp(p, gone ? 9 : 0), "step %u: page %u has lost", step,
				      p);
	}
	ck_assert_uint_eq(next.b.stat[VIRTIO_BALLOON_S_MEMFREE], 77 << 20);
	memcpy(core.page, page, DP_SIZE);
	memcpy(gm_ptr(&gm, COPY_FROM, COPY_LEN), memory, COPY_LEN);
}

static void all_turns(void *arg)
{
	raise(SIGSTOP);
	turns(arg);
}

static uint32_t what_has_come(void)
{
	static const unsigned watched[] = {PLAY, PLAY + 3, PLAY + 7, PLAY + 10};
	uint32_t now = drv_load16(q[0].used + 2) | (uint32_t)drv_load16(q[3].used + 2) << 4;

	for (unsigned i = 0; i < ARRAY_LEN(watched); i++)
		now |= (page_at(watched[i])[0] == 0 ? 0x100u : 0u) << i;
	return now;
}

START_TEST(kill_at_every_instruction)
{
	struct steps s;
	pid_t pid;

	bare_events();
	guest_with_work();
	pid = steps_begin(all_turns, &bare.b);
	if (!pid)
		return;
	s = steps_through(pid, STEPS_STRIDE, what_has_come, check_successor);
	ck_assert_uint_ge(s.changes, 6);
	ck_assert_uint_gt(s.all, 1000);
	event_drain(events[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("balloon");
	TCase *c = tcase_create("device"), *k = tcase_create("kills");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_test(c, start_messages);
	tcase_add_test(c, inflated_pages_leave_the_file);
	tcase_add_loop_test(c, reported_ranges_leave_the_file, 0, ARRAY_LEN(report_queues));
	tcase_add_test(c, poisoned_pages_stay);
	tcase_add_test(c, reports_can_be_left_out);
	tcase_add_loop_test(c, lies_do_no_harm, 0, ARRAY_LEN(lies));
	tcase_add_test(c, overlaps);
	tcase_add_test(c, the_longest_list_keeps_nobody_waiting);
	tcase_add_test(c, statistics);
	tcase_add_test(c, a_reset_answers_too);
	tcase_add_test(c, the_size_is_asked_for);
	tcase_add_test(c, the_size_survives_a_restart);
	suite_add_tcase(s, c);
	tcase_set_timeout(k, 600);
	tcase_add_checked_fixture(k, setup, NULL);
	tcase_add_test(k, killed);
	tcase_add_test(k, kill_at_every_instruction);
	suite_add_tcase(s, k);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
