/* SPDX-License-Identifier: BSD-2-Clause */
/* The token bucket, and what insula-rng makes of its start message. The device itself is tested by
 * test_rng_linux.c and the payload tests/guests/rng.c. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include <devices/rng/rng.h>

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
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
