/* SPDX-License-Identifier: BSD-2-Clause */
/* The limits of a disk, with a clock of the test's own: how much passes, who waits, whose turn it
 * is. With queues and threads: test_blk.c. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include <devices/blk/blk_limit.h>

#define SECOND_NS 1000000000ull
#define START_NS (77 * SECOND_NS)

/* Lanes that always have more, each asleep until the time that it was told. */
struct limit_lane {
	uint64_t bytes; /* of each request; 0: it never comes again once it has to wait */
	uint64_t wakes_ns;
	uint64_t taken, moved, slept;
	bool gone;
};

static struct blk_limit limit;

static void limits(uint64_t rate, uint64_t requests)
{
	blk_limit_init(&limit);
	blk_limit_set(&limit, &(struct msg_limit){rate, requests}, START_NS);
}

static void turn(struct limit_lane *l, unsigned i, uint64_t now)
{
	int ms;

	while ((ms = blk_limit_ask(&limit, i, now)) == 0) {
		blk_limit_take(&limit, i, l->bytes);
		l->taken++;
		l->moved += l->bytes;
	}
	ck_assert_int_gt(ms, 0);
	l->slept++;
	l->wakes_ns = now + (uint64_t)ms * 1000000;
	l->gone = !l->bytes;
}

/* `late`: so many microseconds after its time, at most, a lane is woken. */
static void run_lanes(struct limit_lane *l, unsigned n, uint64_t seconds, unsigned late)
{
	for (unsigned i = 0; i < n; i++)
		l[i].wakes_ns = START_NS + i * 137000;
	for (;;) {
		unsigned first = 0;
		uint64_t now;

		for (unsigned i = 1; i < n; i++) {
			if (!l[i].gone && (l[first].gone || l[i].wakes_ns < l[first].wakes_ns))
				first = i;
		}
		now = l[first].wakes_ns + (late ? (uint64_t)rand() % late * 1000 : 0);
		if (now >= START_NS + seconds * SECOND_NS)
			return;
		turn(&l[first], first, now);
	}
}

START_TEST(without_limits_all_passes)
{
	limits(0, 0);
	ck_assert(!blk_limit_on(&limit));
	for (unsigned i = 0; i < 1000; i++) {
		ck_assert_int_eq(blk_limit_ask(&limit, 0, START_NS), 0);
		blk_limit_take(&limit, 0, 1 << 20);
	}
}
END_TEST

/* Of both kinds, at rates that are easy to say and such that are not; whatever the size. */
START_TEST(no_more_than_the_limit)
{
	static const struct {
		uint64_t rate, requests, bytes;
	} as[] = {
		{1024, 0, 512},
		{1 << 20, 0, 4096},
		{50 << 20, 0, 65536},
		{3 << 20, 0, 16 << 20},
		{1ull << 40, 0, 1},
		{0, 1, 4096},
		{0, 7, 4096},
		{0, 1000, 1},
		{0, 33333, 4096},
		{1 << 20, 100, 4096},
		{1 << 20, 10000, 65536},
	};
	enum { SECONDS = 20 };

	for (size_t k = 0; k < ARRAY_LEN(as); k++) {
		struct limit_lane l[2] = {{.bytes = as[k].bytes}, {.bytes = as[k].bytes}};
		uint64_t taken, moved, most;

		if (as[k].rate > 1ull << 39)
			continue; /* more turns than this test has time for */
		limits(as[k].rate, as[k].requests);
		run_lanes(l, 2, SECONDS, 0);
		taken = l[0].taken + l[1].taken;
		moved = l[0].moved + l[1].moved;
		/* What was saved up in the beginning, and the last one may be in debt. */
		most = as[k].requests * SECONDS + as[k].requests / 10 + 2;
		ck_assert_msg(!as[k].requests || taken <= most, "%zu: %llu requests", k,
			      (unsigned long long)taken);
		most = as[k].rate * SECONDS + as[k].rate / 10 + 2 * as[k].bytes;
		ck_assert_msg(!as[k].rate || moved <= most, "%zu: %llu bytes", k,
			      (unsigned long long)moved);
		/* A clock that is never late: and no less, of one of the two. */
		ck_assert_msg(
			(as[k].requests && taken + 2 >= as[k].requests * SECONDS) ||
				(as[k].rate && moved + 2 * as[k].bytes >= as[k].rate * SECONDS),
			"%zu: %llu requests, %llu bytes", k, (unsigned long long)taken,
			(unsigned long long)moved);
		/* Nobody looks again and again. */
		ck_assert_uint_le(l[0].slept + l[1].slept, 2 * 1000 * SECONDS);
	}
}
END_TEST

/* A request of any size passes, and is paid for before the next one. */
START_TEST(a_large_request_is_paid_for)
{
	int ms;

	limits(1 << 20, 0);
	ck_assert_int_eq(blk_limit_ask(&limit, 0, START_NS), 0);
	blk_limit_take(&limit, 0, 10 << 20);
	ms = blk_limit_ask(&limit, 0, START_NS);
	ck_assert_int_ge(ms, 9800);
	ck_assert_int_le(ms, 10001);
	ck_assert_int_gt(blk_limit_ask(&limit, 0, START_NS + 9 * SECOND_NS), 0);
	ck_assert_int_eq(blk_limit_ask(&limit, 0, START_NS + 10 * SECOND_NS), 0);
	blk_limit_charge(&limit, 1 << 20);
	ck_assert_int_gt(blk_limit_ask(&limit, 0, START_NS + 10 * SECOND_NS), 800);
	/* Another limit begins without debts. */
	blk_limit_set(&limit, &(struct msg_limit){2 << 20, 0}, START_NS + 10 * SECOND_NS);
	ck_assert_int_eq(blk_limit_ask(&limit, 0, START_NS + 10 * SECOND_NS), 0);
	blk_limit_set(&limit, &(struct msg_limit){0}, START_NS + 10 * SECOND_NS);
	blk_limit_take(&limit, 0, UINT32_MAX);
	ck_assert_int_eq(blk_limit_ask(&limit, 0, START_NS + 10 * SECOND_NS), 0);
}
END_TEST

/* Lanes of the same kind get the same, whoever is woken first. The period of the limit is one of
 * the clock, so without turns the same lane would always win. */
START_TEST(lanes_take_turns)
{
	static const uint64_t rates[] = {10, 100, 1000, 5000};

	for (size_t k = 0; k < ARRAY_LEN(rates) * 2; k++) {
		struct limit_lane l[4] = {
			{.bytes = 4096}, {.bytes = 4096}, {.bytes = 4096}, {.bytes = 4096}};
		uint64_t least = UINT64_MAX, most = 0;

		limits(0, rates[k / 2]);
		run_lanes(l, 4, 60, k % 2 ? 300 : 0);
		for (unsigned i = 0; i < 4; i++) {
			least = l[i].taken < least ? l[i].taken : least;
			most = l[i].taken > most ? l[i].taken : most;
		}
		ck_assert_msg(least * 2 >= most, "%llu a second: %llu to %llu",
			      (unsigned long long)rates[k / 2], (unsigned long long)least,
			      (unsigned long long)most);
	}
}
END_TEST

/* Large requests of one lane do not lock the small ones of another out. */
START_TEST(small_ones_beside_large_ones)
{
	struct limit_lane l[2] = {{.bytes = 4 << 20}, {.bytes = 4096}};

	limits(1 << 20, 0);
	run_lanes(l, 2, 120, 0);
	ck_assert_uint_ge(l[1].moved + (8 << 20), l[0].moved);
	ck_assert_uint_ge(l[0].moved + (8 << 20), l[1].moved);
	ck_assert_uint_ge(l[0].taken, 10);
}
END_TEST

/* One that has to wait and is stopped meanwhile, and one that leaves. */
START_TEST(who_does_not_come_is_passed_over)
{
	struct limit_lane l[3] = {{.bytes = 4096}, {.bytes = 0}, {.bytes = 4096}};
	uint64_t now = START_NS + 100 * SECOND_NS;

	limits(0, 100);
	run_lanes(l, 3, 20, 0);
	ck_assert(l[1].gone);
	ck_assert_uint_ge(l[0].taken + l[2].taken, 100 * 19);
	limits(0, 10);
	while (blk_limit_ask(&limit, 0, now) == 0)
		blk_limit_take(&limit, 0, 0);
	ck_assert_int_gt(blk_limit_ask(&limit, 1, now), 0);
	now += 110000000;
	ck_assert_int_eq(blk_limit_ask(&limit, 1, now), 0);
	blk_limit_take(&limit, 1, 0);
	now += 110000000;
	ck_assert_int_eq(blk_limit_ask(&limit, 0, now), 0);
	blk_limit_take(&limit, 0, 0);
	ck_assert_int_gt(blk_limit_ask(&limit, 0, now), 0);
	ck_assert_int_gt(blk_limit_ask(&limit, 1, now), 0);
	now += 103000000;
	ck_assert_int_eq(blk_limit_ask(&limit, 0, now), 1); /* behind lane 1, */
	blk_limit_leave(&limit, 1);
	ck_assert_int_eq(blk_limit_ask(&limit, 0, now), 0); /* which does not wait any more */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blk_limit");
	TCase *c = tcase_create("limit");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(c, without_limits_all_passes);
	tcase_add_test(c, no_more_than_the_limit);
	tcase_add_test(c, a_large_request_is_paid_for);
	tcase_add_test(c, lanes_take_turns);
	tcase_add_test(c, small_ones_beside_large_ones);
	tcase_add_test(c, who_does_not_come_is_passed_over);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
