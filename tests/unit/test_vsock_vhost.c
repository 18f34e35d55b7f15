/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vsock device that vhost-vsock serves, over a fake of it: what insula-vsock asks of the kernel,
 * in which order; that after a death the driver hears of it before the kernel answers anything; and
 * what becomes of the device when the kernel refuses.
 */
#include <check.h>
#include <sys/socket.h>

#include <devices/vsock/vsock.h>

#include "fakevhost.h"
#include "life.h"

#define MEM_SIZE (16u << 20)
#define QNUM 16
#define RINGS(i) (0x10000u + (i)*DRV_QUEUE_BYTES)
#define EVENTS 0x200000u
#define CID 5u

static struct fakecore core;
static struct guestmem gm;
static struct drvq drv[VSOCK_QUEUES];
static int mem_fd, kick[VSOCK_QUEUES];
static struct rig { /* fresh for every start */
	struct helper h;
	struct vsockdev d;
} * rig;
static struct msg_start_vsock conf;
static const char *step;
static struct err err;

static int open_vsock(void)
{
	struct start_fds fds = drv_start_fds(&core, mem_fd);

	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		start_add(&fds, START_KICK, dup(kick[i]));
	start_add(&fds, START_OWN, fake.fd);
	rig = calloc(1, sizeof(*rig));
	ck_assert_ptr_nonnull(rig);
	return vsock_check_conf(&conf, &err) ||
	       vsockdev_open(&rig->d, &rig->h, &conf, &fds, &step, &err);
}

static struct helper *opened(void)
{
	if (open_vsock() || helper_attach(&rig->h, &rig->d.ops, &rig->d.w, &err)) {
		fprintf(stderr, "vsockdev_open: %s\n", err.text);
		return NULL;
	}
	return &rig->h;
}

static void setup(void)
{
	fc_open(&core);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		kick[i] = event_create();
	conf = (struct msg_start_vsock){.head.mem = board_map(MEM_SIZE),
					.guest_cid = CID,
					.max_conns = 8,
					.flags = VSOCK_VHOST};
	fake_fresh(DRV_COMMON);
}

static void teardown(void)
{
	gm_unmap(&gm);
	fd_close(&mem_fd);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		fd_close(&kick[i]);
	fc_close(&core);
}

static void offer_event(unsigned i)
{
	struct vring_desc d = drv_desc(EVENTS + 4 * i, 4, true);
	uint16_t old = drv[VSOCK_EVENT].avail_idx;

	drvq_add(&drv[VSOCK_EVENT], &d, 1, NULL);
	drvq_kick(&drv[VSOCK_EVENT], old);
}

/* The first `n` queues, and two buffers for events. */
static void bring_up_some(unsigned n)
{
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	for (unsigned i = 0; i < n; i++) {
		drvq_init(&drv[i], &gm, RINGS(i), QNUM, true, kick[i]);
		ck_assert(drv_queue(&core, i, &drv[i]));
	}
	drv_ok(&core);
	for (unsigned i = 0; i < 2 && n > VSOCK_EVENT; i++)
		offer_event(i);
}

static void bring_up(void)
{
	bring_up_some(VSOCK_QUEUES);
}

static bool needs_reset(void)
{
	return drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static bool rung(void)
{
	return fake.ring[0].kick >= 0 && fake.ring[1].kick >= 0;
}

static void expect_served(unsigned base0, unsigned base1)
{
	ck_assert(until(rung));
	ck_assert_uint_eq(drv_status(&core), 0xf);
	fake_expect_ring(&fake, VSOCK_RX, &rig->d.vhost, RINGS(0), QNUM, base0);
	fake_expect_ring(&fake, VSOCK_TX, &rig->d.vhost, RINGS(1), QNUM, base1);
}

static bool was_told(void)
{
	return drv_load16(drv[VSOCK_EVENT].used + 2) != drv[VSOCK_EVENT].used_idx;
}

static void expect_event(void)
{
	uint16_t head;
	uint32_t len;
	void *at;

	ck_assert(until(was_told));
	ck_assert(drvq_get(&drv[VSOCK_EVENT], &head, &len, &at));
	ck_assert_uint_eq(len, 4);
	ck_assert_uint_eq(*(uint32_t *)gm_ptr(&gm, drv[VSOCK_EVENT].desc[head].addr, 4),
			  VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
}

/* As after a kill: another process, and another descriptor. The I/O thread of the last one is still
 * there, and would take what rings at the same doorbells. */
static void next_process(void)
{
	life_end();
	fake_expect_stopped();
	fake_fresh(DRV_COMMON);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++) {
		fd_close(&kick[i]);
		drv[i].kick_fd = kick[i] = event_create();
	}
	life_begin(opened);
}

/* The kernel has answered so many, and the driver has looked at all but `unseen`. */
static void answered(unsigned q, uint16_t idx, uint16_t unseen)
{
	drv_store16(drv[q].used + 2, idx);
	drv_store16(drv[q].avail + 4 + 2 * QNUM, (uint16_t)(idx - unseen));
}

/* ---- tests ---- */

/* Its own memory, before it is sealed; rings and events when the driver is there; and all is taken
 * back before a reset is answered. */
START_TEST(handed_over)
{
	life_begin(opened);
	fake_expect_memory(&rig->d.w.gm);
	fake_expect_stopped();
	for (unsigned i = 1; i < 20; i++) {
		bring_up();
		expect_served(0, 0);
		ck_assert_uint_eq(fake.features, DRV_COMMON);
		ck_assert_int_eq(fake.ring[0].call, rig->h.irq_fd[0]);
		ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[0]);
		ck_assert_uint_eq(fake.ring[0].starts, i);
		drv_set_status(&core, 0);
		ck_assert_uint_eq(drv_status(&core), 0);
		fake_expect_stopped();
		ck_assert(!was_told());
	}
	/* Taken back at once, whether it was handed over by then or not. */
	for (unsigned i = 0; i < 50; i++) {
		bring_up();
		drv_set_status(&core, 0);
		ck_assert_uint_eq(drv_status(&core), 0);
		fake_expect_stopped();
	}
	bring_up();
	expect_served(0, 0);
	life_end();
	fake_expect_stopped();
}
END_TEST

/* The kernel would answer the packets of dead streams with resets: the next process has the rings
 * served only when the driver has dealt with the event, from where they stand. */
START_TEST(event_comes_first)
{
	life_begin(opened);
	bring_up();
	expect_served(0, 0);
	answered(VSOCK_RX, 0xfffe, 0);
	answered(VSOCK_TX, 11, 0);
	next_process();
	expect_event();
	fake_expect_stopped();
	/* It dies again before the driver has: that is another event. */
	next_process();
	expect_event();
	fake_expect_stopped();
	offer_event(0);
	expect_served(0xfffe, 11);
	ck_assert_uint_eq(fake.ring[0].starts, 1);
	ck_assert(!was_told());
	life_end();
}
END_TEST

/* What the dead process's kernel has sent comes first. A driver that does not say that it has seen
 * it is waited for, but not for ever. */
START_TEST(old_packets_come_before)
{
	uint64_t began;

	life_begin(opened);
	bring_up();
	expect_served(0, 0);
	answered(VSOCK_RX, 3, 1);
	began = clock_ns();
	next_process();
	expect_event();
	ck_assert_uint_ge(clock_ns() - began, VSOCK_LOOK_NS);
	fake_expect_stopped();
	offer_event(0);
	expect_served(3, 0);
	life_end();
}
END_TEST

/* A driver that resets the device knows; one that takes no events cannot be told. */
START_TEST(no_event_where_none_is_wanted)
{
	life_begin(opened);
	bring_up();
	next_process();
	expect_event();
	bring_up();
	expect_served(0, 0);
	ck_assert(!was_told());
	bring_up_some(VSOCK_EVENT);
	expect_served(0, 0);
	next_process();
	expect_served(0, 0);
	life_end();
}
END_TEST

/* The kernel serves both rings, or none; the streams outlive that a ring goes and comes. */
START_TEST(both_or_none)
{
	life_begin(opened);
	bring_up_some(1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	fake_expect_stopped();
	bring_up();
	expect_served(0, 0);
	answered(VSOCK_RX, 3, 0);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, VSOCK_TX);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_READY, 0);
	fake_expect_stopped();
	ck_assert(!needs_reset());
	ck_assert(!was_told());
	life_end();
}
END_TEST

/* The kernel cannot go on with a ring: the driver hears of it, and can begin again. */
START_TEST(broken_ring)
{
	life_begin(opened);
	for (unsigned i = 0; i < 3; i++) {
		bring_up();
		expect_served(0, 0);
		event_signal(fake.ring[i % 2].err);
		ck_assert(until(needs_reset));
		fake_expect_stopped();
	}
	/* What is said of rings that go is not said of the next ones. */
	fake.late = true;
	for (unsigned i = 0; i < 20; i++) {
		bring_up();
		expect_served(0, 0);
		drv_set_status(&core, 0);
	}
	fake.late = false;
	bring_up();
	expect_served(0, 0);
	life_end();
}
END_TEST

static const unsigned long running[] = {
	VHOST_SET_FEATURES,   VHOST_SET_VRING_NUM,  VHOST_SET_VRING_BASE,    VHOST_SET_VRING_ADDR,
	VHOST_SET_VRING_CALL, VHOST_SET_VRING_KICK, VHOST_VSOCK_SET_RUNNING,
};

START_TEST(refused_while_it_runs)
{
	life_begin(opened);
	fake.fails = running[_i];
	bring_up();
	ck_assert(until(needs_reset));
	fake_expect_stopped();
	fake.fails = 0;
	bring_up();
	expect_served(0, 0);
	life_end();
}
END_TEST

static const unsigned long before[] = {VHOST_SET_OWNER, VHOST_GET_FEATURES, VHOST_SET_MEM_TABLE,
				       VHOST_SET_VRING_ERR};

START_TEST(refused_at_the_start)
{
	fake.fails = before[_i];
	ck_assert_int_ne(open_vsock(), 0);
	ck_assert_str_eq(step, "vhost-vsock");
	ck_assert_msg(strstr(err.text, "vhost-vsock: "), "%s", err.text);
}
END_TEST

/* On PCI: a vector for each queue, and the driver may choose another while it runs. */
START_TEST(vectors)
{
	fc_vectors(&core, VSOCK_QUEUES + 1);
	life_begin(opened);
	bring_up();
	expect_served(0, 0);
	ck_assert_int_eq(fake.ring[0].call, rig->h.irq_fd[1]);
	ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[2]);
	drv_set(&core, VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, VSOCK_TX);
	fc_write(&core, VPCI_QUEUE_VECTOR, 2, 3);
	ck_assert_uint_eq(fc_shadow16(&core, VPCI_QUEUE_VECTOR), 3);
	ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[3]);
	/* The event queue's is nothing to the kernel. */
	drv_set(&core, VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, VSOCK_EVENT);
	fc_write(&core, VPCI_QUEUE_VECTOR, 2, 1);
	ck_assert_uint_eq(fc_shadow16(&core, VPCI_QUEUE_VECTOR), 1);
	ck_assert_int_eq(fake.ring[0].call, rig->h.irq_fd[1]);
	ck_assert_int_eq(fake.ring[1].call, rig->h.irq_fd[3]);
	life_end();
}
END_TEST

/* After the seal: seven requests. */
START_TEST(rules)
{
	struct rule_list l = {.n = 0};

	ck_assert_int_eq(open_vsock(), 0);
	vsock_rules(&rig->d, &l);
	fake_expect_rules(&l, running, ARRAY_LEN(running));
	for (size_t i = 0; i < l.n; i++)
		ck_assert_int_ne(l.rule[i].nr, SYS_accept4);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vsock_vhost");
	TCase *t = tcase_create("vhost-vsock");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, handed_over);
	tcase_add_test(t, event_comes_first);
	tcase_add_test(t, old_packets_come_before);
	tcase_add_test(t, no_event_where_none_is_wanted);
	tcase_add_test(t, both_or_none);
	tcase_add_test(t, broken_ring);
	tcase_add_loop_test(t, refused_while_it_runs, 0, ARRAY_LEN(running));
	tcase_add_loop_test(t, refused_at_the_start, 0, ARRAY_LEN(before));
	tcase_add_test(t, vectors);
	tcase_add_test(t, rules);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
