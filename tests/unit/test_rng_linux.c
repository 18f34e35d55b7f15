/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-rng under a driver that forgets its queue. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/stats.h>

#include <devices/rng/rng.h>

#include "fakedrv.h"

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
	/* While it works: what it has counted until now. */
	ck_assert_int_eq(msg_send(chan[0], MSG_COUNT, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_COUNTED, &s, sizeof(s), NULL, 0, &e), 0);
	ck_assert_uint_eq(s.n[STAT_RNG_REQUESTS], 2);
	ck_assert_uint_gt(s.n[STAT_POSTED] + s.n[STAT_CALLS], 0);
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
	Suite *s = suite_create("rng_linux");
	TCase *c = tcase_create("device");
	SRunner *r;
	int failed;

	tcase_add_test(c, started_without_a_queue);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
