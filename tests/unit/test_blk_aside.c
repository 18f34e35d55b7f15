/* SPDX-License-Identifier: BSD-2-Clause */
/* When an I/O thread on the only processor steps aside, and for how long. */
#include <check.h>

#include <insula/base.h>

#include <devices/blk/blk_aside.h>

#define RETRY 32u
#define LUCK 8u
#define LESS 64u

/* Of so many times that it could be tried, how often it is. */
static unsigned tries(struct blk_aside *a, unsigned times)
{
	unsigned n = 0;

	for (unsigned i = 0; i < times; i++)
		n += blk_aside_try(a);
	return n;
}

static void learn(struct blk_aside *a, unsigned times, bool worth)
{
	for (unsigned i = 0; i < times; i++)
		blk_aside_learn(a, worth);
}

START_TEST(seldom_at_first)
{
	struct blk_aside a = {0};

	ck_assert_uint_eq(tries(&a, 10 * RETRY), 10);
	learn(&a, 1, true);
	ck_assert_uint_eq(tries(&a, 10 * RETRY), 10 * RETRY);
}
END_TEST

/* However often it was worth it, so many times in vain are enough to give it up. */
START_TEST(given_up)
{
	struct blk_aside a = {0};

	learn(&a, 1000, true);
	learn(&a, LUCK - 1, false);
	ck_assert_uint_eq(tries(&a, RETRY), RETRY);
	learn(&a, 1, false);
	ck_assert_uint_eq(tries(&a, 10 * RETRY), 10);
}
END_TEST

START_TEST(longer_in_vain)
{
	static const unsigned us[] = {100, 200, 400, 800, 1600, 100, 200};
	struct blk_aside a = {0};

	for (unsigned i = 0; i < ARRAY_LEN(us); i++) {
		uint64_t t = clock_ns();

		blk_aside_step(&a);
		ck_assert_uint_ge(clock_ns() - t, us[i] * 1000u);
		ck_assert_uint_eq(a.us, us[i]);
		blk_aside_learn(&a, false);
	}
}
END_TEST

START_TEST(shorter_where_it_is_worth_it)
{
	struct blk_aside a = {.us = 1600};

	learn(&a, LESS - 1, true);
	ck_assert_uint_eq(a.us, 1600);
	learn(&a, 1, true);
	ck_assert_uint_eq(a.us, 800);
	learn(&a, 1, false); /* that was too short */
	ck_assert_uint_eq(a.us, 1600);
	learn(&a, 10 * LESS, true);
	ck_assert_uint_eq(a.us, 100);
	learn(&a, LUCK - 1, false);
	ck_assert_uint_eq(a.us, 200); /* the first one came right after the last one of ten */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk_aside");
	TCase *c = tcase_create("aside");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(c, seldom_at_first);
	tcase_add_test(c, given_up);
	tcase_add_test(c, longer_in_vain);
	tcase_add_test(c, shorter_where_it_is_worth_it);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
