/* SPDX-License-Identifier: BSD-2-Clause */
/* When a device's process is restarted, and when its guest is told: with a clock made by hand. */
#include <check.h>
#include <string.h>

#include "supervisor/restart.h"

#define MS 1000000ull

static struct restart r;
static uint64_t now;

static void setup(void)
{
	memset(&r, 0, sizeof(r));
	now = 1000 * MS;
	restart_ready(&r, now);
	now += RESTART_GOOD_NS;
}

/* Dies, and is tried at once when it may be: how long that took, in ms. */
static uint64_t die(void)
{
	uint64_t at = now;

	(void)restart_died(&r, now);
	now = restart_next(&r);
	ck_assert_uint_ge(now, at);
	ck_assert(restart_due(&r, now));
	ck_assert(now == at || !restart_due(&r, now - 1));
	restart_started(&r, now);
	return (now - at) / MS;
}

START_TEST(pauses_grow)
{
	static const unsigned want[] = {0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000};

	for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		ck_assert_uint_eq(die(), want[i]);
	ck_assert_uint_eq(r.total, 12);
}
END_TEST

START_TEST(told_once)
{
	unsigned told = 0;

	for (unsigned i = 1; i <= 100; i++) {
		bool failed = restart_died(&r, now);

		told += failed;
		ck_assert(failed == (i == RESTART_TELL));
		ck_assert(r.failed == (i >= RESTART_TELL));
		ck_assert_str_eq(restart_name(&r), r.failed ? "failed" : "restarting");
		now = restart_next(&r); /* there is always another try */
		ck_assert(restart_due(&r, now));
		restart_started(&r, now);
	}
	ck_assert_uint_eq(told, 1);
	ck_assert(restart_ready(&r, now));
	ck_assert(!r.failed);
	ck_assert_str_eq(restart_name(&r), "ok");
}
END_TEST

/* Ready is not enough: one that dies right after it is the next of the row. */
START_TEST(good_ends_the_row)
{
	for (unsigned i = 0; i < 5; i++) {
		die();
		restart_ready(&r, now);
		now += RESTART_GOOD_NS - 1;
	}
	ck_assert_uint_eq(r.row, 5);
	now++;
	ck_assert_uint_eq(die(), 0);
	ck_assert_uint_eq(r.row, 1);
	ck_assert_uint_eq(r.total, 6);
}
END_TEST

/* Its last two seconds it did not answer. */
START_TEST(stuck_is_not_good)
{
	for (unsigned i = 1; i <= RESTART_TELL; i++) {
		restart_ready(&r, now);
		now += RESTART_GOOD_NS + RESTART_STUCK_NS - 1;
		restart_stuck(&r);
		ck_assert(restart_died(&r, now) == (i == RESTART_TELL));
	}
	restart_ready(&r, now);
	now += RESTART_GOOD_NS + RESTART_STUCK_NS;
	restart_stuck(&r);
	ck_assert_uint_eq(die(), 0);
	/* The next one is another process. */
	restart_ready(&r, now);
	now += RESTART_GOOD_NS;
	ck_assert_uint_eq(die(), 0);
}
END_TEST

START_TEST(looks_grow)
{
	uint64_t start = now;
	unsigned n = 0;

	(void)restart_died(&r, now);
	while (now < start + 10000 * MS) {
		now = restart_next(&r);
		ck_assert(restart_due(&r, now));
		restart_not_yet(&r, now);
		n++;
	}
	ck_assert_uint_le(n, 22); /* 1 + 2 + 4 ... 512 ms, then one a second */
	ck_assert_uint_eq(r.row, 1);
	restart_started(&r, now);
	(void)restart_died(&r, now);
	restart_not_yet(&r, now);
	ck_assert_uint_eq(restart_next(&r), now + RESTART_LOOK_NS);
}
END_TEST

START_TEST(overdue)
{
	die();
	ck_assert_uint_eq(restart_next(&r), now + RESTART_READY_NS);
	ck_assert(!restart_overdue(&r, now + RESTART_READY_NS - 1));
	ck_assert(restart_overdue(&r, now + RESTART_READY_NS));
	ck_assert(!restart_due(&r, now + RESTART_READY_NS));
	restart_ready(&r, now);
	ck_assert(!restart_overdue(&r, now + RESTART_READY_NS));
	ck_assert_uint_eq(restart_next(&r), 0);
}
END_TEST

START_TEST(by_hand)
{
	for (unsigned i = 0; i < RESTART_TELL; i++)
		die();
	(void)restart_died(&r, now);
	ck_assert(!restart_due(&r, now));
	restart_by_hand(&r, now);
	ck_assert(restart_due(&r, now));
	ck_assert(r.failed); /* until one is ready */
	restart_started(&r, now);
	ck_assert_uint_eq(die(), 0);
	ck_assert_uint_eq(die(), 10);
	restart_ready(&r, now);
	restart_by_hand(&r, now);
	ck_assert_uint_eq(restart_next(&r), 0);
	ck_assert_uint_eq(die(), 0);
}
END_TEST

START_TEST(stopped)
{
	(void)restart_died(&r, now);
	restart_stop(&r);
	ck_assert_uint_eq(restart_next(&r), 0);
	ck_assert(!restart_due(&r, now + RESTART_READY_NS));
	ck_assert(!restart_overdue(&r, now + RESTART_READY_NS));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("restart");
	TCase *t = tcase_create("all");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, pauses_grow);
	tcase_add_test(t, told_once);
	tcase_add_test(t, good_ends_the_row);
	tcase_add_test(t, stuck_is_not_good);
	tcase_add_test(t, looks_grow);
	tcase_add_test(t, overdue);
	tcase_add_test(t, by_hand);
	tcase_add_test(t, stopped);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
