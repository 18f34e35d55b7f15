/* SPDX-License-Identifier: BSD-2-Clause */
/* When an idle guest's page cache goes back: a guest that works, one that rests, statistics that lie,
 * a driver that gets no further. */
#include <check.h>
#include <string.h>

#include <insula/base.h>

#include <supervisor/backing/balloon_idle.h>

#define MIB (1ull << 20)
#define SECOND 1000000000ull

static struct balloon_idle idle;
static struct idle_look look;

static void setup(void)
{
	memset(&idle, 0, sizeof(idle));
	look = (struct idle_look){
		.now_ns = 100 * SECOND, .seconds = 3, .mem = 512 * MIB, .target = 512 * MIB};
}

/* The next turn, in which the guest used so much of a processor, in percent. */
static enum idle_act turn(unsigned percent)
{
	if (idle.next_ns) {
		look.cpu_ns += (idle.next_ns - look.now_ns) / 100 * percent;
		look.now_ns = idle.next_ns;
	}
	return balloon_idle_turn(&idle, &look);
}

static void until_it_asks(void)
{
	for (unsigned i = 0; turn(0) != IDLE_ASK; i++)
		ck_assert_uint_lt(i, 10);
	ck_assert_int_eq(idle.state, IDLE_ASKED);
}

static void guest_tells(uint64_t free, uint64_t available)
{
	look.answers++;
	look.knows = true;
	look.free = free * MIB;
	look.available = available * MIB;
}

START_TEST(a_guest_that_works_is_left_alone)
{
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(turn(i % 3 == 2 ? 50 : 0),
				 IDLE_NOTHING); /* never three in a row */
	ck_assert_int_eq(idle.state, IDLE_WATCHES);
}
END_TEST

START_TEST(the_cache_of_one_that_rests_goes_once)
{
	uint64_t most;

	until_it_asks();
	/* The first look compares with nothing; then three calm ones. */
	ck_assert_uint_eq(look.now_ns, 103 * SECOND);
	ck_assert_int_eq(turn(0), IDLE_NOTHING); /* no answer yet */
	guest_tells(100, 450);
	ck_assert_int_eq(turn(0), IDLE_RESIZE);
	most = (450 - 16) * MIB;
	ck_assert_uint_eq(idle.extra, most);
	for (look.in = 0; look.in < most; look.in += 50 * MIB)
		ck_assert_int_eq(turn(90), IDLE_ASK);
	ck_assert_int_eq(turn(90), IDLE_RESIZE);
	ck_assert_uint_eq(idle.extra, 0);
	look.in = 0;
	/* What that has cost is not the guest's work, and it does not come again. */
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(turn(i < 2 ? 90 : 0), IDLE_NOTHING);
	ck_assert_int_eq(idle.state, IDLE_DONE);
	/* It works, and rests again. */
	ck_assert_int_eq(turn(90), IDLE_NOTHING);
	until_it_asks();
}
END_TEST

/* With a target the balloon has pages already, and it may have fewer than it shall. */
START_TEST(beside_a_target)
{
	look.target = 400 * MIB;
	look.in = 100 * MIB;
	until_it_asks();
	guest_tells(50, 350);
	ck_assert_int_eq(turn(0), IDLE_RESIZE);
	ck_assert_uint_eq(idle.extra, (100 + 350 - 16 - 112) * MIB);
	ck_assert_int_eq(turn(0), IDLE_ASK);
	setup();
	look.target = 20 * MIB;
	look.in = 0; /* the guest does not give what it is asked for */
	until_it_asks();
	guest_tells(50, 350);
	ck_assert_int_eq(turn(0), IDLE_NOTHING); /* the target is more than the squeeze would be */
	ck_assert_int_eq(idle.state, IDLE_DONE);
}
END_TEST

static const struct {
	uint64_t free, available, in;
	bool knows;
} nothing[] = {
	{100, 450, 0, false},           /* says nothing of it */
	{440, 450, 0, true},            /* hardly any cache */
	{0, 600, 0, true},              /* more than there is */
	{500, 450, 0, true},            /* more free than could be had */
	{0, 450, 100, true},            /* more than is left beside the balloon */
	{0, 100, 600, true},            /* a balloon larger than the memory */
	{0, UINT64_MAX / MIB, 0, true}, /* anything */
	{UINT64_MAX / MIB, UINT64_MAX / MIB, UINT64_MAX / MIB, true},
};

START_TEST(nothing_to_be_had)
{
	look.in = nothing[_i].in * MIB;
	until_it_asks();
	guest_tells(nothing[_i].free, nothing[_i].available);
	look.knows = nothing[_i].knows;
	ck_assert_int_eq(turn(0), IDLE_NOTHING);
	ck_assert_uint_eq(idle.extra, 0);
	ck_assert_int_eq(idle.state, IDLE_DONE);
}
END_TEST

START_TEST(a_guest_without_a_driver)
{
	until_it_asks();
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(turn(0), IDLE_NOTHING);
	ck_assert_int_eq(idle.state, IDLE_DONE);
}
END_TEST

/* It begins, and then nothing moves any more; or it moves for ever. */
START_TEST(a_squeeze_ends)
{
	uint64_t begin;

	until_it_asks();
	guest_tells(100, 450);
	ck_assert_int_eq(turn(0), IDLE_RESIZE);
	begin = look.now_ns;
	for (unsigned i = 0; turn(0) == IDLE_ASK; i++) {
		ck_assert_uint_lt(i, 200);
		look.in += _i && look.in < 400 * MIB ? MIB : 0;
	}
	ck_assert_uint_eq(idle.extra, 0);
	ck_assert_uint_le(look.now_ns - begin, (_i ? IDLE_SQUEEZE_NS : IDLE_STUCK_NS) + SECOND);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("balloon_idle");
	TCase *c = tcase_create("idle");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_test(c, a_guest_that_works_is_left_alone);
	tcase_add_test(c, the_cache_of_one_that_rests_goes_once);
	tcase_add_test(c, beside_a_target);
	tcase_add_loop_test(c, nothing_to_be_had, 0, ARRAY_LEN(nothing));
	tcase_add_test(c, a_guest_without_a_driver);
	tcase_add_loop_test(c, a_squeeze_ends, 0, 2);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
