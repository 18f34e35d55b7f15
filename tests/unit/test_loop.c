/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's loop, with events and times of its own. */
#include <check.h>
#include <string.h>

#include <insula/base.h>

#include "host.h"
#include "supervisor/loop.h"

#define MANY 8u
#define SECOND_NS 1000000000ull

static struct loop loop;
static struct watch watch[MANY];
static struct timer timer[MANY];
static int event[MANY];
static char said[256]; /* a letter of each call, in their order */
static unsigned calls[MANY];

static void note(char c)
{
	size_t n = strlen(said);

	if (n + 1 < sizeof(said))
		said[n] = c;
}

static unsigned number(const void *ctx)
{
	return (unsigned)((const struct watch *)ctx - watch);
}

static void ready(void *ctx, unsigned events)
{
	unsigned i = number(ctx);

	ck_assert(events & WATCH_IN);
	(void)event_drain(event[i]);
	calls[i]++;
	note((char)('a' + i));
}

static void tick(void *ctx)
{
	note((char)('A' + ((struct timer *)ctx - timer)));
}

static void setup(void)
{
	memset(&loop, 0, sizeof(loop));
	memset(watch, 0, sizeof(watch));
	memset(said, 0, sizeof(said));
	memset(calls, 0, sizeof(calls));
	for (unsigned i = 0; i < MANY; i++) {
		event[i] = event_create();
		ck_assert_int_ge(event[i], 0);
		timer_init(&loop, &timer[i], tick, &timer[i]);
	}
}

static void teardown(void)
{
	for (unsigned i = 0; i < MANY; i++)
		fd_close(&event[i]);
}

static void on(unsigned i, void (*fn)(void *ctx, unsigned events))
{
	watch_on(&loop, &watch[i], event[i], WATCH_IN, fn, &watch[i]);
}

static void step(void)
{
	ck_assert_int_eq(loop_step(&loop, clock_ns() + 10 * SECOND_NS), 0);
}

/* Whatever is ready, and nothing else. */
static void look(void)
{
	ck_assert_int_eq(loop_step(&loop, LOOP_NOW), 0);
}

START_TEST(order_is_that_of_adding)
{
	on(2, ready);
	on(0, ready);
	on(1, ready);
	for (unsigned i = 0; i < 3; i++)
		event_signal(event[i]);
	step();
	ck_assert_str_eq(said, "cab");
	look();
	ck_assert_str_eq(said, "cab");
	watch_off(&watch[2]);
	on(2, ready);
	for (unsigned i = 0; i < 3; i++)
		event_signal(event[i]);
	step();
	ck_assert_str_eq(said, "cababc");
}
END_TEST

static void stop_all(void *ctx, unsigned events)
{
	ready(ctx, events);
	for (unsigned i = 0; i < MANY; i++)
		watch_off(&watch[i]);
}

/* One that is off is not called, though its handle was ready; nor is one with another handle. */
START_TEST(off_means_not_called)
{
	on(0, ready);
	on(1, stop_all);
	on(2, ready);
	for (unsigned i = 0; i < 3; i++)
		event_signal(event[i]);
	step();
	ck_assert_str_eq(said, "ab");
	ck_assert_uint_eq(loop.nwatches, 0);
	look();
	ck_assert_str_eq(said, "ab");
}
END_TEST

static void another(void *ctx, unsigned events)
{
	ready(ctx, events);
	watch_off(&watch[2]);
	on(2, ready);
	on(3, ready);
}

START_TEST(what_is_added_waits_a_turn)
{
	on(0, another);
	on(2, ready);
	event_signal(event[3]);
	event_signal(event[0]);
	step();
	ck_assert_str_eq(said, "a");
	step();
	ck_assert_str_eq(said, "ad");
}
END_TEST

static void flood(void *ctx, unsigned events)
{
	ready(ctx, events);
	event_signal(event[number(ctx)]); /* it is ready again */
}

/* One that is always ready takes nothing from those before and behind it, nor from timers. */
START_TEST(a_flood_takes_turns)
{
	unsigned ticks = 0;

	on(0, ready);
	on(1, flood);
	on(2, ready);
	event_signal(event[1]);
	for (unsigned i = 0; i < 5000; i++) {
		event_signal(event[0]);
		event_signal(event[2]);
		timer_set(&timer[0], LOOP_NOW);
		memset(said, 0, sizeof(said));
		step();
		ticks += strchr(said, 'A') != NULL;
	}
	ck_assert_uint_eq(calls[0], 5000);
	ck_assert_uint_eq(calls[1], 5000);
	ck_assert_uint_eq(calls[2], 5000);
	ck_assert_uint_eq(ticks, 5000);
}
END_TEST

START_TEST(timers_have_an_order)
{
	uint64_t at = clock_ns() - SECOND_NS;

	timer_set(&timer[2], at);
	timer_set(&timer[0], at);
	timer_set(&timer[3], at - 1);
	timer_set(&timer[1], at);
	timer_set(&timer[2], at); /* the same: its place stays */
	timer_set(&timer[4], clock_ns() + 3600 * SECOND_NS);
	timer_set(&timer[5], at);
	timer_set(&timer[5], 0);
	look();
	ck_assert_str_eq(said, "DCAB");
	look();
	ck_assert_str_eq(said, "DCAB");
}
END_TEST

static void tick_again(void *ctx)
{
	tick(ctx);
	timer_set(ctx, LOOP_NOW);
	timer_set(&timer[1], 0);
	timer_set(&timer[2], clock_ns() + 3600 * SECOND_NS);
}

/* One that is due at once again does not keep the loop; those that it stops or puts off are not
 * called. */
START_TEST(timers_change_timers)
{
	timer[0].fn = tick_again;
	timer_set(&timer[0], LOOP_NOW);
	timer_set(&timer[1], LOOP_NOW);
	timer_set(&timer[2], LOOP_NOW);
	timer_set(&timer[3], LOOP_NOW);
	look();
	ck_assert_str_eq(said, "AD");
	look();
	ck_assert_str_eq(said, "ADA");
}
END_TEST

START_TEST(waits_as_long_as_it_must)
{
	uint64_t began = clock_ns();

	timer_set(&timer[0], began + SECOND_NS / 20);
	ck_assert_int_eq(loop_step(&loop, began + 3600 * SECOND_NS), 0);
	ck_assert_str_eq(said, "A");
	ck_assert_uint_ge(clock_ns() - began, SECOND_NS / 20);
	ck_assert_int_eq(loop_step(&loop, clock_ns() + SECOND_NS / 20), 0);
	ck_assert_str_eq(said, "A");
	/* Without a limit it is the timer that ends it, or the handle. */
	timer_set(&timer[1], clock_ns() + SECOND_NS / 20);
	ck_assert_int_eq(loop_step(&loop, 0), 0);
	ck_assert_str_eq(said, "AB");
	on(0, ready);
	event_signal(event[0]);
	ck_assert_int_eq(loop_step(&loop, 0), 0);
	ck_assert_str_eq(said, "ABa");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("loop");
	TCase *t = tcase_create("loop");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, order_is_that_of_adding);
	tcase_add_test(t, off_means_not_called);
	tcase_add_test(t, what_is_added_waits_a_turn);
	tcase_add_test(t, a_flood_takes_turns);
	tcase_add_test(t, timers_have_an_order);
	tcase_add_test(t, timers_change_timers);
	tcase_add_test(t, waits_as_long_as_it_must);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
