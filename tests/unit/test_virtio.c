/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio register file and status machine, through a device page, with a model that only
 * counts. */
#include <check.h>

#include "virtiorig.h"

static uint32_t rd(uint32_t off)
{
	return fc_shadow32(&core, off);
}

static void wr(uint32_t off, uint32_t v)
{
	drv_reg(&core, off, v);
}

static void bring_up(void)
{
	ck_assert(drv_negotiate(&core, DRV_COMMON | DRV_F(5)));
	for (unsigned i = 0; i < NQUEUES; i++)
		ck_assert(drv_queue(&core, i, &drv[i]));
	drv_ok(&core);
}

START_TEST(identity)
{
	ck_assert_uint_eq(rd(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_VERSION), 2);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_DEVICE_ID), 2);
	ck_assert_uint_eq(drv_features(&core), MODEL_FEATURES | DRV_COMMON);
	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_NUM_MAX), VQ_MAX_NUM);
	wr(VIRTIO_MMIO_QUEUE_SEL, NQUEUES);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	wr(VIRTIO_MMIO_QUEUE_SEL, UINT32_MAX);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_SHM_LEN_HIGH), UINT32_MAX);
	ck_assert_mem_eq(core.page + VIRTIO_MMIO_CONFIG, config, sizeof(config));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
END_TEST

START_TEST(configuration_is_read_only)
{
	wr(VIRTIO_MMIO_CONFIG, 0);
	fc_write(&core, VIRTIO_MMIO_CONFIG + 1, 1, 0);
	wr(VIRTIO_MMIO_MAGIC_VALUE, 0);
	ck_assert_mem_eq(core.page + VIRTIO_MMIO_CONFIG, config, sizeof(config));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
}
END_TEST

START_TEST(features)
{
	ck_assert(!drv_negotiate(&core, 0)); /* VERSION_1 is a must */
	ck_assert(!drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1) | DRV_F(6))); /* never offered */
	ck_assert(!drv_negotiate(&core, UINT64_MAX));
	ck_assert_uint_eq(drv_status(&core), 3);
	ck_assert(drv_negotiate(&core, DRV_COMMON | MODEL_FEATURES));
	/* Fixed from here on. */
	fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, 0);
	fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES, 4, 0);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_eq(dev->m.v.st->driver_features, DRV_COMMON | MODEL_FEATURES);
	/* A selector that does not exist. */
	ck_assert(!drv_negotiate(&core, 0));
	fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, 2);
	fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES, 4, UINT32_MAX);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_eq(dev->m.v.st->driver_features, 0);
}
END_TEST

START_TEST(driver_ok_needs_features_ok)
{
	wr(VIRTIO_MMIO_STATUS, 0xf & ~VIRTIO_CONFIG_S_FEATURES_OK);
	ck_assert_uint_eq(drv_status(&core), 3);
	ck_assert_uint_eq(dev->starts, 0);
	bring_up();
	ck_assert_uint_eq(drv_status(&core), 0xf);
	ck_assert_uint_eq(dev->starts, 1);
	ck_assert_uint_eq(dev->queues, NQUEUES);
	/* The ring bit is there before the first interrupt can be. */
	ck_assert_uint_eq(dev->isr_at_start, VIRTIO_MMIO_INT_VRING);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	/* Again (a call that is executed twice after a kill): nothing happens. */
	drv_ok(&core);
	ck_assert_uint_eq(dev->starts, 1);
	/* Bits are not cleared but by a reset; NEEDS_RESET is the device's. */
	wr(VIRTIO_MMIO_STATUS, 1 | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

START_TEST(reset)
{
	bring_up();
	wr(VIRTIO_MMIO_QUEUE_SEL, 1);
	wr(VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(dev->stops, 1);
	ck_assert_uint_eq(drv_status(&core), 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(dev->m.v.st->driver_features, 0);
	wr(VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(dev->stops, 1);
	bring_up();
	ck_assert_uint_eq(dev->starts, 2);
}
END_TEST

/* Writable queue registers under a running device were a way out of other monitors (CVE-2026-5747).
 */
START_TEST(queue_registers_freeze)
{
	struct vq_state before;

	ck_assert(drv_negotiate(&core, DRV_COMMON));
	ck_assert(drv_queue(&core, 0, &drv[0]));
	memcpy(&before, &dev->m.v.st->q[0], sizeof(before));
	for (unsigned pass = 0; pass < 2; pass++) {
		static const uint32_t regs[] = {
			VIRTIO_MMIO_QUEUE_NUM,        VIRTIO_MMIO_QUEUE_DESC_LOW,
			VIRTIO_MMIO_QUEUE_DESC_HIGH,  VIRTIO_MMIO_QUEUE_AVAIL_LOW,
			VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW,
			VIRTIO_MMIO_QUEUE_USED_HIGH};

		for (size_t i = 0; i < ARRAY_LEN(regs); i++)
			wr(regs[i], 0x40u << i);
		ck_assert_mem_eq(&before, &dev->m.v.st->q[0], sizeof(before));
		if (pass == 0)
			drv_ok(&core);
	}
	/* A queue that was not ready at DRIVER_OK does not become so. */
	ck_assert(!drv_queue(&core, 1, &drv[1]));
	ck_assert_uint_eq(dev->m.v.st->q[1].num, 0);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

START_TEST(a_queue_is_taken_away)
{
	bring_up();
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert_uint_eq(dev->stops, 1);
	ck_assert_uint_eq(dev->starts, 2);
	ck_assert_uint_eq(dev->queues, NQUEUES - 1);
	ck_assert(!drv_queue(&core, 0, &drv[0])); /* frozen: only after a reset */
	wr(VIRTIO_MMIO_STATUS, 0);
	bring_up();
	ck_assert_uint_eq(dev->queues, NQUEUES);
}
END_TEST

START_TEST(bad_queues_need_a_reset)
{
	static const struct {
		uint32_t num;
		gpa_t desc, driver, device;
	} bad[] = {{0, Q(0), Q(1), Q(1)},      {VQ_MAX_NUM * 2, Q(0), Q(1), Q(1)},
		   {12, Q(0), Q(1), Q(1)},     {16, Q(0) + 1, Q(1), Q(1)},
		   {16, Q(0), MEM_SIZE, Q(1)}, {16, Q(0), Q(1), UINT64_C(0xfffffffffffffffc)}};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert(drv_negotiate(&core, DRV_COMMON));
		ck_assert(!drv_queue_addr(&core, 0, bad[i].num, bad[i].desc, bad[i].driver,
					  bad[i].device));
		ck_assert_uint_eq(drv_status(&core), 0xb | VIRTIO_CONFIG_S_NEEDS_RESET);
		/* It does not start any more. */
		drv_ok(&core);
		ck_assert_uint_eq(dev->starts, 0);
	}
	bring_up();
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

START_TEST(needs_reset_interrupts)
{
	bring_up();
	event_drain(core.irq_fd);
	virtio_fail(&dev->m.v, "test");
	ck_assert_uint_eq(dev->stops, 1);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(event_drain(core.irq_fd), 1);
	virtio_fail(&dev->m.v, "again"); /* said once */
	ck_assert_uint_eq(event_drain(core.irq_fd), 0);
	/* The configuration bit is exact. */
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG | VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	bring_up();
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

START_TEST(configuration_change)
{
	uint32_t gen = rd(VIRTIO_MMIO_CONFIG_GENERATION);

	config[0]++;
	front_config_changed(&dev->m, true);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), gen + 2);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG) & 0xff, config[0]);
	ck_assert_uint_eq(event_drain(core.irq_fd), 0); /* no driver yet */
	bring_up();
	front_config_changed(&dev->m, true);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), gen + 4);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG,
			  VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(event_drain(core.irq_fd), 1);
	/* A reset must not make the generation go back to what a reader may still remember. */
	wr(VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), gen + 4);
	/* A process that died between the two steps of a change. */
	restart();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), gen + 5);
	front_config_changed(&dev->m, false);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG, 0);
}
END_TEST

START_TEST(odd_accesses)
{
	bring_up();
	/* Wrong sizes and offsets change nothing. */
	fc_write(&core, VIRTIO_MMIO_STATUS, 1, 0);
	fc_write(&core, VIRTIO_MMIO_STATUS, 8, 0);
	fc_write(&core, VIRTIO_MMIO_STATUS + 2, 4, 0);
	fc_write(&core, 0xfffffffc, 4, 0);
	fc_write(&core, DP_SHADOW_SIZE, 4, 0);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	ck_assert_uint_eq(fc_read(&core, VIRTIO_MMIO_VERSION, 4), 2);
	ck_assert_uint_eq(fc_read(&core, DP_SHADOW_SIZE, 4), UINT64_MAX);
	ck_assert_uint_eq(fc_read(&core, UINT32_MAX, 4), UINT64_MAX);
	ck_assert_uint_eq(fc_read(&core, 1, 4), UINT64_MAX);
	ck_assert_uint_eq(fc_read(&core, 0, 8), UINT64_MAX);
}
END_TEST

/* ---- restart ---- */

START_TEST(restart_at_every_step)
{
	/* The same bring-up with a new process after each access. */
	wr(VIRTIO_MMIO_STATUS, 0);
	restart();
	wr(VIRTIO_MMIO_STATUS, 3);
	restart();
	for (unsigned i = 0; i < 2; i++) {
		fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, i);
		restart();
		fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES, 4, (uint32_t)(DRV_COMMON >> (32 * i)));
		restart();
	}
	wr(VIRTIO_MMIO_STATUS, 0xb);
	restart();
	ck_assert_uint_eq(drv_status(&core), 0xb);
	wr(VIRTIO_MMIO_QUEUE_SEL, 1);
	restart();
	fc_post(&core, VIRTIO_MMIO_QUEUE_NUM, 4, 16);
	restart();
	fc_post(&core, VIRTIO_MMIO_QUEUE_DESC_LOW, 4, Q(1));
	restart();
	fc_post(&core, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 4, Q(1) + 0x1000);
	restart();
	fc_post(&core, VIRTIO_MMIO_QUEUE_USED_LOW, 4, Q(1) + 0x2000);
	restart();
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	restart();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert_uint_eq(dev->starts, 0);
	drv_ok(&core);
	ck_assert_uint_eq(dev->starts, 1);
	restart();
	ck_assert_uint_eq(dev->starts, 1);
	ck_assert_uint_eq(dev->queues, 1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

START_TEST(restart_with_chains_in_flight)
{
	struct vring_desc d = drv_desc(0x100000, 512, true);
	struct iovec iov[VQ_MAX_NUM];
	struct vq_chain c = {.iov = iov};

	bring_up();
	for (unsigned i = 0; i < 3; i++)
		drvq_add(&drv[0], &d, 1, NULL);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 1);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 1);
	event_drain(core.irq_fd);
	restart();
	ck_assert_uint_eq(event_drain(core.irq_fd), 1); /* the last one may not have been sent */
	ck_assert_uint_eq(dev->resumed, 2);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 1);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 0);
}
END_TEST

START_TEST(lost_accesses_need_a_reset)
{
	bring_up();
	die();
	atomic_fetch_add(&core.ctrl->lost, 1);
	start_features(MODEL_FEATURES);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	/* The interrupt that says so may be lost with its process too. */
	event_drain(core.irq_fd);
	restart();
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(event_drain(core.irq_fd), 1);
	ck_assert_uint_eq(dev->starts, 0);
	/* Also if the core gives up after the new helper has started. */
	bring_up();
	ck_assert_uint_eq(drv_status(&core), 0xf);
	atomic_fetch_add(&core.ctrl->lost, 1);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	/* A successor remembers that it was dealt with. */
	bring_up();
	restart();
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

/* The core gave up on a reset and the guest went on: the successor must not take up what was in
 * flight, for its memory belongs to something else by now. */
START_TEST(late_reset_comes_before_the_queues)
{
	struct vring_desc d = drv_desc(0x100000, 512, true);
	struct iovec iov[VQ_MAX_NUM];
	struct vq_chain c = {.iov = iov};

	bring_up();
	for (unsigned i = 0; i < 3; i++)
		drvq_add(&drv[0], &d, 1, NULL);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 1);
	die();
	fc_call_start(&core, DP_OP_WRITE, VIRTIO_MMIO_STATUS, 4, 0);
	if (_i) /* it was given up, and not only made when there was no helper */
		atomic_fetch_add(&core.ctrl->lost, 1);
	start_features(MODEL_FEATURES);
	ck_assert_uint_eq(dev->starts, 0);
	ck_assert_uint_eq(drv_status(&core), 0);
	ck_assert_uint_eq(core.ctrl->ack_seq, core.seq);
	drvq_init(&drv[0], &gm, Q(0), 16, true, -1);
	bring_up();
	ck_assert_uint_eq(drv_status(&core), 0xf);
	ck_assert_uint_eq(dev->resumed, 0);
	ck_assert_int_eq(vq_next(&dev->m.v.vq[0], &c), 0);
}
END_TEST

/* Nor after another access that was lost. */
START_TEST(lost_access_comes_before_the_queues)
{
	struct vring_desc d = drv_desc(0x100000, 512, true);

	bring_up();
	drvq_add(&drv[0], &d, 1, NULL);
	die();
	fc_call_start(&core, DP_OP_WRITE, VIRTIO_MMIO_QUEUE_SEL, 4, 0);
	atomic_fetch_add(&core.ctrl->lost, 1);
	event_drain(core.irq_fd);
	start_features(MODEL_FEATURES);
	ck_assert_uint_eq(dev->starts, 0);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_ge(event_drain(core.irq_fd), 1);
}
END_TEST

/* A queue that was to be taken away is not served once more. */
START_TEST(queue_is_taken_away_before_the_others_run)
{
	bring_up();
	wr(VIRTIO_MMIO_QUEUE_SEL, 1);
	die();
	fc_call_start(&core, DP_OP_WRITE, VIRTIO_MMIO_QUEUE_READY, 4, 0);
	start_features(MODEL_FEATURES);
	ck_assert_uint_eq(dev->starts, 1);
	ck_assert_uint_eq(dev->queues, 1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

/* A DRIVER_OK that nobody has executed yet is a start and not a restart. */
START_TEST(late_start)
{
	bring_up();
	ck_assert(drv_negotiate(&core, MODEL_FEATURES | DRV_F(VIRTIO_F_VERSION_1)));
	ck_assert(drv_queue(&core, 0, &drv[0]));
	die();
	fc_call_start(&core, DP_OP_WRITE, VIRTIO_MMIO_STATUS, 4, 0xf);
	start_features(MODEL_FEATURES);
	ck_assert_uint_eq(dev->starts, 1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

/* What was lost behind a reset: a driver that goes on has left out steps. */
START_TEST(steps_that_got_lost)
{
	const uint32_t ok = VIRTIO_CONFIG_S_FEATURES_OK, driver = VIRTIO_CONFIG_S_DRIVER;

	for (unsigned i = 0; i < 2; i++) {
		wr(VIRTIO_MMIO_STATUS, 0);
		fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, 1);
		fc_post(&core, VIRTIO_MMIO_DRIVER_FEATURES, 4, 1);
		wr(VIRTIO_MMIO_STATUS, i ? driver | ok : ok);
		ck_assert_uint_eq(drv_status(&core), i ? driver : 0);
	}
	wr(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | driver | ok);
	ck_assert_uint_eq(drv_status(&core), VIRTIO_CONFIG_S_ACKNOWLEDGE | driver | ok);
	/* Lost before DRIVER_OK: there was no interrupt then. */
	atomic_fetch_add(&core.ctrl->lost, 1);
	event_drain(core.irq_fd);
	wr(VIRTIO_MMIO_STATUS, 0xf);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_ge(event_drain(core.irq_fd), 1);
	ck_assert_uint_eq(dev->starts, 0);
}
END_TEST

START_TEST(restart_with_other_features)
{
	bring_up(); /* with feature 5 */
	die();
	start_features(DRV_F(9));
	ck_assert_uint_eq(dev->starts, 0);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(hostile_state)
{
	struct virtio_state *st;

	bring_up();
	st = dev->m.v.st;
	/* A predecessor that was taken over leaves other addresses; the successor checks them like
	 * the guest's. */
	st->q[0].desc = MEM_SIZE - 16;
	restart();
	ck_assert_uint_eq(dev->starts, 0);
	ck_assert_uint_eq(drv_status(&core), 0xf | VIRTIO_CONFIG_S_NEEDS_RESET);
	memset(dev->m.v.st, 0xff, sizeof(*st));
	restart();
	ck_assert_uint_eq(dev->starts, 0);
	bring_up();
	ck_assert_uint_eq(drv_status(&core), 0xf);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio");
	TCase *c = tcase_create("virtio");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, identity);
	tcase_add_test(c, configuration_is_read_only);
	tcase_add_test(c, features);
	tcase_add_test(c, driver_ok_needs_features_ok);
	tcase_add_test(c, reset);
	tcase_add_test(c, queue_registers_freeze);
	tcase_add_test(c, a_queue_is_taken_away);
	tcase_add_test(c, bad_queues_need_a_reset);
	tcase_add_test(c, needs_reset_interrupts);
	tcase_add_test(c, configuration_change);
	tcase_add_test(c, odd_accesses);
	tcase_add_test(c, restart_at_every_step);
	tcase_add_test(c, restart_with_chains_in_flight);
	tcase_add_test(c, lost_accesses_need_a_reset);
	tcase_add_loop_test(c, late_reset_comes_before_the_queues, 0, 2);
	tcase_add_test(c, lost_access_comes_before_the_queues);
	tcase_add_test(c, queue_is_taken_away_before_the_others_run);
	tcase_add_test(c, late_start);
	tcase_add_test(c, steps_that_got_lost);
	tcase_add_test(c, restart_with_other_features);
	tcase_add_test(c, hostile_state);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
