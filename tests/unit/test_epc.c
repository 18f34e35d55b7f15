/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory for enclaves in insula-vmm: one slot more, of what the descriptor shows. The descriptor is
 * a memfd here: nothing has run on a processor with SGX.
 */
#include <check.h>
#include <sys/mman.h>

#define VS_CPUS 1u
#include "vmstate.h"

#define EPC_GPA 0x180000000ull
#define EPC_SIZE 0x200000ull

static int fd;

static void setup(void)
{
	vs_open();
	memset(&hm, 0, sizeof(hm));
	fd = memfd_create("epc", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, EPC_SIZE), 0);
	vs_vm.next_slot = 5;
}

static void teardown(void)
{
	close(fd);
	vs_vm.epc = (struct mem_region){0};
	vs_close();
}

static unsigned slots(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < HV_MAX_SLOTS; i++)
		n += hm.slot[i].size != 0;
	return n;
}

START_TEST(none)
{
	struct err e;

	ck_assert_int_eq(board_map_epc(&vs_vm, -1, &e), 0);
	ck_assert_uint_eq(slots(), 0);
	ck_assert_uint_eq(vs_vm.next_slot, 5);
}
END_TEST

/* Shared: a private mapping is refused by /dev/sgx_vepc. */
START_TEST(one_slot)
{
	uint8_t byte = 0;
	struct err e;

	vs_vm.epc = (struct mem_region){.gpa = EPC_GPA, .size = EPC_SIZE};
	ck_assert_int_eq(board_map_epc(&vs_vm, fd, &e), 0);
	ck_assert_uint_eq(slots(), 1);
	ck_assert_uint_eq(hm.slot[5].gpa, EPC_GPA);
	ck_assert_uint_eq(hm.slot[5].size, EPC_SIZE);
	ck_assert_uint_eq(vs_vm.next_slot, 6);
	ck_assert_int_eq(gm_ptr(&vs_vm.gm, EPC_GPA, 1) != NULL, 0); /* no device's to reach */
	((uint8_t *)hm.slot[5].host)[EPC_SIZE - 1] = 0x5a;
	ck_assert_int_eq(pread(fd, &byte, 1, EPC_SIZE - 1), 1);
	ck_assert_uint_eq(byte, 0x5a);
	munmap(hm.slot[5].host, EPC_SIZE);
}
END_TEST

START_TEST(what_fails)
{
	struct err e;

	vs_vm.epc = (struct mem_region){.gpa = EPC_GPA, .size = EPC_SIZE};
	ck_assert_int_eq(board_map_epc(&vs_vm, -1, &e), -EBADF);
	ck_assert_uint_eq(slots(), 0);
	hm.fail_at = hm.calls + 1;
	ck_assert_int_eq(board_map_epc(&vs_vm, fd, &e), -ENOMEM);
	ck_assert_uint_eq(slots(), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("epc");
	TCase *t = tcase_create("epc");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, none);
	tcase_add_test(t, one_slot);
	tcase_add_test(t, what_fails);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
