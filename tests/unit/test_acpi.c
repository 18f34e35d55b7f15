/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables: their fields and checksums. Their AML and structure: test_acpi_linux.c. */
#include <errno.h>

#include <insula/base.h>

#include "acpirig.h"

static void check_gas(uint64_t gpa, uint16_t port)
{
	ck_assert_uint_eq(get(gpa, 1), 1); /* system I/O */
	ck_assert_uint_eq(get(gpa + 1, 1), 8);
	ck_assert_uint_eq(get(gpa + 2, 1), 0);
	ck_assert_uint_eq(get(gpa + 3, 1), 1); /* byte access */
	ck_assert_uint_eq(get(gpa + 4, 8), port);
}

START_TEST(fadt_fields)
{
	struct tables t = build(1, 1, true);

	ck_assert_uint_eq(get(t.fadt + 4, 4), 276);
	ck_assert(all_zero(t.fadt + 36, t.fadt + 109)); /* no FACS, no fixed hardware */
	ck_assert_uint_eq(get(t.fadt + 109, 2), 1 << 2 | 1 << 5);
	ck_assert_uint_eq(get(t.fadt + 112, 4), 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20);
	check_gas(t.fadt + 116, BOARD_REG_RESET);
	ck_assert_uint_eq(get(t.fadt + 128, 1), BOARD_RESET_VALUE);
	ck_assert_uint_eq(get(t.fadt + 132, 8), 0);
	ck_assert(all_zero(t.fadt + 148, t.fadt + 244));
	check_gas(t.fadt + 244, BOARD_REG_SLEEP_CTL);
	check_gas(t.fadt + 256, BOARD_REG_SLEEP_STS);
}
END_TEST

START_TEST(madt_fields)
{
	static const unsigned ncpus[] = {1, 2, 32};

	for (unsigned k = 0; k < 3; k++) {
		struct tables t = build(ncpus[k], 0, true);
		uint64_t a = t.madt + 44;

		ck_assert_uint_eq(get(t.madt + 4, 4), 44 + ncpus[k] * 8 + 12);
		ck_assert_uint_eq(get(t.madt + 36, 4), BOARD_LAPIC);
		ck_assert_uint_eq(get(t.madt + 40, 4), 0); /* no 8259 */
		for (unsigned i = 0; i < ncpus[k]; i++, a += 8) {
			ck_assert_uint_eq(get(a, 2), 0x0800);
			ck_assert_uint_eq(get(a + 2, 1), i);
			ck_assert_uint_eq(get(a + 3, 1), i);
			ck_assert_uint_eq(get(a + 4, 4), 1);
		}
		ck_assert_uint_eq(get(a, 2), 0x0c01);
		ck_assert_uint_eq(get(a + 4, 4), BOARD_IOAPIC);
		ck_assert_uint_eq(get(a + 8, 4), 0);
	}
}
END_TEST

/* 5.2.12.2: the first are there, the others can be. */
START_TEST(madt_of_cpus_that_come)
{
	struct tables t;

	cpus_in = 3;
	t = build(8, 0, true);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_uint_eq(get(t.madt + 44 + 8 * i + 4, 4), i < 3 ? 1 : 2);
	cpus_in = 0;
}
END_TEST

static bool dsdt_has(const struct tables *t, const char *what)
{
	const uint8_t *p = ram + t->dsdt, *end = p + get(t->dsdt + 4, 4) - strlen(what);

	while (p < end && memcmp(p, what, strlen(what)) != 0)
		p++;
	return p < end;
}

/* A VM whose processors stay has nothing of those that come and go. */
START_TEST(nothing_of_cpus_that_come)
{
	static const char *const names[] = {"CREG", "CPRE", "CNEW", "CASK", "CEJE",
					    "CSTA", "_STA", "_MAT", "_EJ0"};
	struct tables t = build(8, 3, true);

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		ck_assert_msg(!dsdt_has(&t, names[i]), "%s", names[i]);
	cpus_in = 8;
	t = build(8, 3, true);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		ck_assert_msg(dsdt_has(&t, names[i]), "%s", names[i]);
	cpus_in = 0;
}
END_TEST

/* PCI Firmware 3.3, 4.1.2: one range, of one bus; and one for each place. */
START_TEST(mcfg_fields)
{
	struct tables t;

	with_pci = true;
	t = build(1, 1, true);
	ck_assert_uint_eq(get(t.mcfg + 4, 4), 60);
	ck_assert(all_zero(t.mcfg + 36, t.mcfg + 44));
	ck_assert_uint_eq(get(t.mcfg + 44, 8), BOARD_PCI_ECAM);
	ck_assert(all_zero(t.mcfg + 52, t.mcfg + 60));
	for (with_places = 1; with_places <= BOARD_MAX_PLACES; with_places++) {
		with_pci = with_places % 2;
		t = build(1, 1, true);
		ck_assert_uint_eq(get(t.mcfg + 44, 8), BOARD_PCI_ECAM);
		ck_assert_uint_eq(get(t.mcfg + 52, 4), with_places << 24);
		ck_assert(all_zero(t.mcfg + 56, t.mcfg + 60));
	}
	with_pci = false;
	with_places = 0;
}
END_TEST

START_TEST(bad_parameters)
{
	static const struct acpi_params bad[] = {
		{.ncpus = 0},
		{.ncpus = BOARD_MAX_CPUS + 1, .ncpus_in = 1},
		{.ncpus = 1, .ncpus_in = 1, .ndevices = VM_MAX_DEVICES + 1},
		{.ncpus = 2},
		{.ncpus = 2, .ncpus_in = 1},
		{.ncpus = 2, .ncpus_in = 3, .cpus_change = true},
		{.ncpus = 2, .ncpus_in = 0, .cpus_change = true}};
	static const struct acpi_params good = {.ncpus = 1, .ncpus_in = 1};
	struct device_desc d;
	const struct acpi_params one = {.ncpus = 1, .ncpus_in = 1, .ndevices = 1, .device = {&d}};
	uint64_t rsdp = 42;
	struct err e;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_int_eq(acpi_build(&gm, &bad[i], &rsdp, &e), -EINVAL);
		ck_assert_ptr_nonnull(strstr(e.text, "CPUs"));
	}
	describe_virtio_mmio(&d, 1ull << 32, 5, 1);
	ck_assert_int_eq(acpi_build(&gm, &one, &rsdp, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "below 4 GiB"));
	d.hid[0] = 0; /* which the tables do not name */
	ck_assert_int_eq(acpi_build(&gm, &one, &rsdp, &e), 0);
	rsdp = 42;
	gm.region[0].size = BOARD_ACPI;
	ck_assert_int_eq(acpi_build(&gm, &good, &rsdp, &e), -EINVAL);
	ck_assert_uint_eq(rsdp, 42);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acpi");
	TCase *tc = tcase_create("acpi");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, fadt_fields);
	tcase_add_test(tc, madt_fields);
	tcase_add_test(tc, madt_of_cpus_that_come);
	tcase_add_test(tc, nothing_of_cpus_that_come);
	tcase_add_test(tc, mcfg_fields);
	tcase_add_test(tc, bad_parameters);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
