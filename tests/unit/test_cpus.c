/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processors that come and go (src/vmm/cpus.h): who is let in and asked back, what the board's
 * registers say of it, and what a guest can do with them that it should not. The vCPU threads are
 * this one, in the order that a case wants.
 */
#include <check.h>

#define VS_CPUS 4u
#include "vmstate.h"

static void setup(void)
{
	vs_open();
	cpus_init(&vs_vm, 2);
	vs_vm.cpus_told = 2; /* nobody listens on the channel */
	vs_woken = 0;
	ck_assert_int_eq(board_init(&vs_vm, NULL), 0);
}

static void teardown(void)
{
	vs_close();
}

static uint64_t cpus_in(unsigned port, unsigned size)
{
	struct bus_patience w = {0};
	uint64_t v = 0;

	ck_assert(bus_read(&vs_vm.pio, port, size, &v, &w));
	return v;
}

static void cpus_out(unsigned port, unsigned size, uint64_t v)
{
	struct bus_patience w = {0};

	(void)bus_write(&vs_vm.pio, port, size, v, &w);
}

static bool event(void)
{
	return events_wait(&vs_vm.acpi_event, 1, -1, 0) & 1;
}

/* Its thread has a turn. */
static void moves(unsigned i)
{
	ck_assert(!cpus_runs(&vs_vm.vcpu[i]) && !cpus_is_out(&vs_vm.vcpu[i]));
	ck_assert_int_eq(cpus_move(&vs_vm.vcpu[i]), 0);
}

/* main's turn, which tells nobody. */
static void main_turn(void)
{
	vs_vm.cpus_told = VS_CPUS - (unsigned)__builtin_popcount(atomic_load(&vs_vm.cpus_parked));
	cpus_turn(&vs_vm);
}

START_TEST(some_are_there)
{
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 3);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_NEWS, 4), 0);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 0);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_EJECT, 4), 0);
	for (unsigned i = 0; i < VS_CPUS; i++) {
		ck_assert(cpus_runs(&vs_vm.vcpu[i]) == (i < 2));
		ck_assert(cpus_is_out(&vs_vm.vcpu[i]) == (i >= 2));
	}
}
END_TEST

START_TEST(comes)
{
	cpus_want(&vs_vm, 4);
	ck_assert(!event()); /* nothing has happened yet */
	main_turn();
	ck_assert_uint_eq(vs_woken, 1);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 3); /* their threads have not begun */
	moves(3);
	ck_assert_uint_eq(vs_vcpu[3].parked, 1); /* whatever it was sent, it begins as new */
	ck_assert(event());
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 11);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_NEWS, 4), 8);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_NEWS, 4), 0);
	moves(2);
	ck_assert(event());
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_NEWS, 4), 4);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 15);
	ck_assert(cpus_runs(&vs_vm.vcpu[2]) && cpus_runs(&vs_vm.vcpu[3]));
}
END_TEST

START_TEST(goes)
{
	cpus_want(&vs_vm, 1);
	ck_assert(event());
	ck_assert(cpus_runs(&vs_vm.vcpu[1])); /* as long as the guest does not give it back */
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 2);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 0);
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 1);
	ck_assert_uint_eq(vs_vcpu[1].kicked, 1);
	ck_assert(!cpus_runs(&vs_vm.vcpu[1]));
	vs_vcpu[1].fail = 0;
	moves(1);
	ck_assert_uint_eq(vs_vcpu[1].parked, 1);
	ck_assert(cpus_is_out(&vs_vm.vcpu[1]));
	/* And back. */
	cpus_want(&vs_vm, 2);
	main_turn();
	moves(1);
	ck_assert_uint_eq(vs_vcpu[1].parked, 2);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_NEWS, 4), 2);
}
END_TEST

/* The highest are asked first; a later order takes it back. */
START_TEST(asks)
{
	cpus_init(&vs_vm, 4);
	cpus_want(&vs_vm, 2);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 12);
	cpus_want(&vs_vm, 1);
	cpus_want(&vs_vm, 3);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 8);
	cpus_want(&vs_vm, 1);
	cpus_want(&vs_vm, 4);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 0);
	(void)event();
	cpus_want(&vs_vm, 0); /* no supervisor says that, and more than there are */
	cpus_want(&vs_vm, 5);
	ck_assert(!event());
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_ASKED, 4), 0);
}
END_TEST

/* One that is wanted again while its thread is on the way out comes when it is out. */
START_TEST(comes_back_at_once)
{
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	cpus_want(&vs_vm, 4);
	main_turn();
	ck_assert_uint_eq(atomic_load(&vs_vm.cpus_in), 13);
	moves(1);
	ck_assert(cpus_is_out(&vs_vm.vcpu[1]));
	main_turn();
	moves(1);
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 3);
	/* What the guest gives back of its own will stays away. */
	moves(2), moves(3);
	cpus_out(BOARD_CPUS_EJECT, 4, 3);
	moves(3);
	main_turn();
	ck_assert(cpus_is_out(&vs_vm.vcpu[3]));
}
END_TEST

START_TEST(hostile)
{
	static const uint64_t no_cpu[] = {0, 2, 3, 4, 31, 32, 33, UINT32_MAX, 1ull << 32 | 1};

	for (unsigned i = 0; i < ARRAY_LEN(no_cpu); i++)
		cpus_out(BOARD_CPUS_EJECT, 4, no_cpu[i]);
	for (unsigned size = 1; size <= 4; size *= 2) {
		for (unsigned off = 0; off + size <= BOARD_CPUS_LEN; off++) {
			if (size != 4 || off != BOARD_CPUS_EJECT - BOARD_CPUS)
				cpus_out(BOARD_CPUS + off, size, 1);
			if (size != 4 || off % 4)
				ck_assert_uint_eq(cpus_in(BOARD_CPUS + off, size), UINT64_MAX);
		}
	}
	ck_assert_uint_eq(cpus_in(BOARD_CPUS_PRESENT, 4), 3);
	for (unsigned i = 0; i < VS_CPUS; i++)
		ck_assert_uint_eq(vs_vcpu[i].kicked, 0);
	/* Twice, by two vCPUs; and once more while it comes back. */
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	ck_assert_uint_eq(vs_vcpu[1].kicked, 1);
	moves(1);
	cpus_want(&vs_vm, 2);
	main_turn();
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	moves(1);
	ck_assert(cpus_runs(&vs_vm.vcpu[1]));
}
END_TEST

/* In the middle of an instruction that has more accesses: those come first. */
START_TEST(busy)
{
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	vs_vcpu[1].busy = 2;
	/* There is no hypervisor that would have the accesses: the run fails, and ends the VM. */
	ck_assert_int_eq(cpus_move(&vs_vm.vcpu[1]), -EAGAIN);
	ck_assert(!cpus_is_out(&vs_vm.vcpu[1]));
	atomic_store(&vs_vm.ending, true);
	ck_assert_int_eq(cpus_move(&vs_vm.vcpu[1]), 0);
	ck_assert(!cpus_is_out(&vs_vm.vcpu[1]));
}
END_TEST

START_TEST(refused)
{
	cpus_out(BOARD_CPUS_EJECT, 4, 1);
	vs_vcpu[1].fail = -EOPNOTSUPP;
	ck_assert_int_eq(cpus_move(&vs_vm.vcpu[1]), -EOPNOTSUPP);
	ck_assert(!cpus_runs(&vs_vm.vcpu[1]) && !cpus_is_out(&vs_vm.vcpu[1]));
}
END_TEST

/* Nothing of it is there, and an order is nobody's. */
START_TEST(they_stay)
{
	struct bus_patience w = {0};
	uint64_t v;

	vs_close();
	vs_open();
	vs_vm.cpus_change = false;
	cpus_init(&vs_vm, VS_CPUS);
	ck_assert_int_eq(board_init(&vs_vm, NULL), 0);
	for (unsigned port = BOARD_CPUS; port < BOARD_CPUS + BOARD_CPUS_LEN; port++) {
		ck_assert(!bus_read(&vs_vm.pio, port, 4, &v, &w));
		ck_assert(!bus_write(&vs_vm.pio, port, 4, 1, &w));
	}
	cpus_want(&vs_vm, 1);
	main_turn();
	for (unsigned i = 0; i < VS_CPUS; i++)
		ck_assert(cpus_runs(&vs_vm.vcpu[i]));
	ck_assert(!event());
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpus");
	TCase *c = tcase_create("cpus");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, some_are_there);
	tcase_add_test(c, comes);
	tcase_add_test(c, goes);
	tcase_add_test(c, asks);
	tcase_add_test(c, comes_back_at_once);
	tcase_add_test(c, hostile);
	tcase_add_test(c, busy);
	tcase_add_test(c, refused);
	tcase_add_test(c, they_stay);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
