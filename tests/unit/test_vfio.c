/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-vfio: what a guest's writes to configuration space and to registers that exit do to the
 * device. The device is a file here: it has no reset, but each is counted.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "devices/vfio/vfio.h"

#define BAR_AT 0x1000u
#define BAR_SIZE 0x800u
#define CONFIG_AT 0x3000u
#define FILE_SIZE 0x4000u
#define EXPRESS 0x80u
#define POWER 0x60u

static struct assigned a;
static struct assigned_state st;
static struct err e;

static void setup(void)
{
	log_setup("test_vfio", LOG_LVL_ERROR);
	st = (struct assigned_state){0};
	a = (struct assigned){
		.conf = {.express = EXPRESS,
			 .power = POWER,
			 .region = {[2] = {BAR_AT, BAR_SIZE}, [VFIO_CONFIG] = {CONFIG_AT, 256}}},
		.st = &st,
		.fd = memfd_create("device", MFD_CLOEXEC)};
	ck_assert(a.fd >= 0 && !ftruncate(a.fd, FILE_SIZE));
}

static void teardown(void)
{
	close(a.fd);
}

static void put(uint32_t at, uint32_t size, uint64_t v)
{
	assigned_ops.regs.write(&a, at, size, v);
	assigned_ops.regs.settle(&a);
}

static uint64_t get(uint32_t at, uint32_t size)
{
	return assigned_ops.regs.read(&a, at, size);
}

static uint32_t device(uint32_t at)
{
	uint32_t v = 0;

	ck_assert_int_eq(pread(a.fd, &v, 4, at), 4);
	return v;
}

#define CONFIG(reg) VFIO_AT(VFIO_CONFIG, reg)

/* Whatever else the guest writes there: it decodes its BARs, has no pin, and masters the bus when
 * the guest says so. */
START_TEST(command)
{
	put(CONFIG(4), 2, 0);
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x402);
	put(CONFIG(4), 2, 0xffff);
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x406);
	put(CONFIG(4), 1, 0);
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x402);
	put(CONFIG(4), 4, 0xffff0004);
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x406);
	put(CONFIG(5), 1, 0xff); /* its upper half */
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x406);
	put(CONFIG(6), 2, 0xffff); /* the status */
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x406);
	put(CONFIG(3), 2, 0);
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x402);
	ck_assert_uint_eq(a.resets, 0);
}
END_TEST

START_TEST(nothing_else)
{
	for (uint32_t reg = 0; reg < 256; reg++) {
		if (reg / 4 != 1 && reg / 4 != (EXPRESS + 8) / 4 && reg / 4 != (POWER + 4) / 4)
			put(CONFIG(reg), 1, 0xff);
	}
	for (uint32_t at = 0; at < FILE_SIZE; at += 4)
		ck_assert_uint_eq(device(at), 0);
	ck_assert_uint_eq(a.resets, 0);
	ck_assert_uint_eq(get(CONFIG(0), 4), UINT64_MAX); /* the core answers */
}
END_TEST

START_TEST(function_level_reset)
{
	put(CONFIG(EXPRESS + 8), 2, 0x7fff);
	put(CONFIG(EXPRESS + 10), 2, 0xffff);
	ck_assert_uint_eq(a.resets, 0);
	put(CONFIG(4), 2, 4);
	put(CONFIG(EXPRESS + 8), 2, 0x8000);
	ck_assert_uint_eq(a.resets, 1);
	put(CONFIG(EXPRESS + 9), 1, 0x80);
	put(CONFIG(EXPRESS + 8), 4, 0x8000);
	ck_assert_uint_eq(a.resets, 3);
	ck_assert_uint_eq(device(CONFIG_AT + 4), 0x406); /* as the guest has it */
	a.conf.express = 0;                              /* it has none */
	put(CONFIG(EXPRESS + 8), 2, 0x8000);
	put(CONFIG(8), 2, 0x8000);
	ck_assert_uint_eq(a.resets, 3);
}
END_TEST

START_TEST(power)
{
	put(CONFIG(POWER + 4), 2, 3);
	put(CONFIG(POWER + 4), 2, 0);
	ck_assert_uint_eq(a.resets, 0); /* it keeps its state */
	a.conf.soft_reset = 1;
	put(CONFIG(POWER + 4), 2, 3);
	ck_assert_uint_eq(st.power, 3);
	put(CONFIG(POWER + 5), 1, 0);
	ck_assert_uint_eq(a.resets, 0);
	put(CONFIG(POWER + 4), 4, 0xfffc);
	ck_assert_uint_eq(a.resets, 1);
	put(CONFIG(POWER + 4), 2, 1);
	put(CONFIG(POWER + 4), 2, 0);
	ck_assert_uint_eq(a.resets, 1);
}
END_TEST

START_TEST(registers)
{
	put(VFIO_AT(2, 0x10), 4, 0x12345678);
	ck_assert_uint_eq(device(BAR_AT + 0x10), 0x12345678);
	ck_assert_uint_eq(get(VFIO_AT(2, 0x10), 4), 0x12345678);
	ck_assert_uint_eq(get(VFIO_AT(2, 0x11), 1), 0x56);
	put(VFIO_AT(2, BAR_SIZE - 8), 8, ~0ull);
	ck_assert_uint_eq(get(VFIO_AT(2, BAR_SIZE - 8), 8), ~0ull);
	ck_assert_uint_eq(a.failed, 0);
	/* Over the end, in a BAR that is not there, in no region, in a size that is none. */
	put(VFIO_AT(2, BAR_SIZE - 4), 8, 0);
	put(VFIO_AT(2, BAR_SIZE), 1, 0);
	put(VFIO_AT(2, 0xfffffe), 4, 0);
	put(VFIO_AT(3, 0), 4, 0);
	put(VFIO_AT(VFIO_REGIONS, 0), 4, 0);
	put(UINT32_MAX, 8, 0);
	ck_assert_uint_eq(get(VFIO_AT(0, 0), 4), UINT64_MAX);
	ck_assert_uint_eq(get(VFIO_AT(2, BAR_SIZE - 1), 2), UINT64_MAX);
	ck_assert_uint_eq(a.failed, 8);
	ck_assert_uint_eq(get(VFIO_AT(2, BAR_SIZE - 8), 8), ~0ull);
	for (uint32_t at = BAR_AT + BAR_SIZE; at < FILE_SIZE; at += 4)
		ck_assert_uint_eq(device(at), 0);
	close(a.fd); /* a device that is gone */
	ck_assert_uint_eq(get(VFIO_AT(2, 0), 4), UINT64_MAX);
	a.fd = open("/dev/null", O_RDWR);
}
END_TEST

START_TEST(start_messages)
{
	struct msg_start_vfio m = a.conf;

	ck_assert_int_eq(assigned_check_conf(&m, &e), 0);
	m.flags = VFIO_MAPS;
	ck_assert_int_eq(assigned_check_conf(&m, &e), 0);
	m.flags = VFIO_IOMMUFD; /* without VFIO_MAPS */
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	m.flags = 4 | VFIO_MAPS;
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	m.flags = VFIO_MAPS | VFIO_IOMMUFD;
	m.ioas = 7;
	ck_assert_int_eq(assigned_check_conf(&m, &e), 0);
	m.flags = VFIO_MAPS;
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "address space 7 without an iommufd"));
	m = a.conf;
	m.power = 256;
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	m = a.conf;
	m.soft_reset = 2;
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	m = a.conf;
	m.region[5].at = 1ull << 63;
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	m.region[5].at = INT64_MAX;
	m.region[5].size = 1;
	ck_assert_int_eq(assigned_check_conf(&m, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "region 5"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfio");
	TCase *tc = tcase_create("vfio");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, command);
	tcase_add_test(tc, nothing_else);
	tcase_add_test(tc, function_level_reset);
	tcase_add_test(tc, power);
	tcase_add_test(tc, registers);
	tcase_add_test(tc, start_messages);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
