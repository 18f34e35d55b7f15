/* SPDX-License-Identifier: BSD-2-Clause */
/* The token bucket, what insula-rng makes of its start message, and a driver that forgets the
 * queue. Otherwise the device itself is tested by the payload tests/guests/rng.c. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/stats.h>

#include <devices/rng/rng.h>

#include "fakedrv.h"

#define MS 1000000ull
#define SECOND (1000 * MS)

START_TEST(bucket_passes_its_burst_then_its_rate)
{
	struct bucket b;
	uint64_t now = 5 * SECOND, passed = 0;

	bucket_init(&b, 1000, 100, now);
	for (; bucket_open(&b, now); passed += 10)
		bucket_take(&b, 10);
	ck_assert_uint_eq(passed, 100);
	ck_assert_int_eq(bucket_wait_ms(&b, now), 2); /* one unit, rounded up */
	for (unsigned i = 0; i < 1000; i++, now += MS) {
		if (bucket_open(&b, now)) {
			bucket_take(&b, 10);
			passed += 10;
		}
	}
	ck_assert_uint_ge(passed, 1090);
	ck_assert_uint_le(passed, 1110);
}
END_TEST

START_TEST(bucket_goes_into_debt_and_pays)
{
	struct bucket b;

	bucket_init(&b, 100, 10, 0);
	ck_assert(bucket_open(&b, 0));
	bucket_take(&b, 110);
	ck_assert(!bucket_open(&b, 0));
	ck_assert_int_eq(bucket_wait_ms(&b, 0), 1011);
	ck_assert(!bucket_open(&b, SECOND));
	ck_assert(bucket_open(&b, SECOND + 11 * MS));
}
END_TEST

/* Looked at so often that each look is worth less than one unit. */
START_TEST(bucket_loses_no_fraction)
{
	struct bucket b;
	uint64_t passed = 0;

	bucket_init(&b, 3, 1, 0);
	for (uint64_t now = 0; now < 100 * SECOND; now += 7 * MS) {
		if (bucket_open(&b, now)) {
			bucket_take(&b, 1);
			passed++;
		}
	}
	ck_assert_uint_ge(passed, 285);
	ck_assert_uint_le(passed, 301);
}
END_TEST

START_TEST(bucket_extremes)
{
	struct bucket b;

	bucket_init(&b, 0, 0, 0);
	bucket_take(&b, UINT32_MAX);
	ck_assert(bucket_open(&b, 0));
	ck_assert_int_eq(bucket_wait_ms(&b, 0), -1);
	/* A year of silence, the largest rate, and a clock that goes back. */
	bucket_init(&b, 1ull << 40, 1ull << 40, 0);
	bucket_take(&b, 1ull << 41);
	ck_assert(!bucket_open(&b, 0));
	ck_assert(bucket_open(&b, 366 * 86400 * SECOND));
	ck_assert(bucket_open(&b, 1));
	bucket_init(&b, 1, 1, 0);
	bucket_take(&b, 1ull << 40);
	ck_assert_int_eq(bucket_wait_ms(&b, 0), 60000);
}
END_TEST

START_TEST(configurations_refused)
{
	struct msg_start_rng good = {.rate = 1 << 20}, m = good;
	struct err e;

	ck_assert_int_eq(rng_check_conf(&good, &e), 0);
	m.rate = 0;
	ck_assert_int_eq(rng_check_conf(&m, &e), -EINVAL);
	m.rate = 1ull << 40;
	ck_assert_int_eq(rng_check_conf(&m, &e), -EINVAL);
}
END_TEST

static struct rng rng;
static struct helper helper;
static int chan[2];

static void *loop(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)helper_loop(&helper, chan[1]);
}

/* The bucket is in debt for a minute, and there is no queue to ask who waits for it. */
START_TEST(started_without_a_queue)
{
	const struct msg_start_rng m = {.head.mem = board_map(1 << 20), .rate = 50};
	const struct vring_desc d = drv_desc(0x80000, RNG_REQUEST_MAX, true);
	int kick = event_create(), mem_fd;
	const char *step = "";
	struct fakecore core;
	struct err e = {0};
	struct msg_stats s;
	struct start_fds f;
	struct guestmem gm;
	struct drvq q;
	pthread_t t;

	fc_open(&core);
	mem_fd = drv_memory(&gm, 1 << 20);
	f = drv_start_fds(&core, mem_fd);
	start_add(&f, START_KICK, dup(kick));
	ck_assert_msg(rng_open(&rng, &helper, &m, &f, &step, &e) == 0, "%s: %s", step, e.text);
	ck_assert_int_eq(helper_attach(&helper, &worker_helper_ops, &rng.w, &e), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, chan), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, loop, NULL), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_READY, NULL, 0, NULL, 0, &e), 0);
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	drvq_init(&q, &gm, 0x10000, 16, true, kick);
	ck_assert(drv_queue(&core, 0, &q));
	drv_ok(&core);
	for (unsigned i = 0; i < 2; i++) {
		uint16_t old = q.avail_idx, head;
		uint32_t len;
		void *p;

		drvq_add(&q, &d, 1, NULL);
		drvq_kick(&q, old);
		while (!drvq_get(&q, &head, &len, &p))
			usleep(100);
		ck_assert_uint_eq(len, RNG_REQUEST_MAX);
	}
	ck_assert(drv_negotiate(&core, DRV_COMMON));
	drv_ok(&core);
	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_STOPPED, &s, sizeof(s), NULL, 0, &e), 0);
	pthread_join(t, NULL);
	ck_assert_uint_eq(s.n[STAT_RNG_REQUESTS], 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rng");
	TCase *c = tcase_create("bucket");
	SRunner *r;
	int failed;

	tcase_add_test(c, bucket_passes_its_burst_then_its_rate);
	tcase_add_test(c, bucket_goes_into_debt_and_pays);
	tcase_add_test(c, bucket_loses_no_fraction);
	tcase_add_test(c, bucket_extremes);
	tcase_add_test(c, configurations_refused);
	tcase_add_test(c, started_without_a_queue);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
