/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI tables: their fields and checksums here; the AML and the structure of every table by iasl,
 * which must decompile each of them and compile the result again without an error, a warning or a
 * remark. Without iasl this test fails. (The RSDP is no table to iasl, for it has no table header:
 * it is checked here alone.)
 */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/board.h>

#include "vmm/acpi.h"

static uint8_t *ram;
static struct guestmem gm;

static void setup(void)
{
	ram = mmap(NULL, BOARD_MIN_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(ram, MAP_FAILED);
	gm = (struct guestmem){.nregions = 1, .region = {{0, BOARD_MIN_MEM, ram}}};
}

static void teardown(void)
{
	munmap(ram, BOARD_MIN_MEM);
}

static uint64_t get(uint64_t gpa, unsigned n)
{
	uint64_t v = 0;

	ck_assert(gpa >= BOARD_ACPI && gpa + n <= BOARD_ACPI + BOARD_ACPI_SIZE);
	memcpy(&v, ram + gpa, n);
	return v;
}

static unsigned sum(uint64_t gpa, uint64_t n)
{
	unsigned s = 0;

	ck_assert(gpa >= BOARD_ACPI && gpa + n <= BOARD_ACPI + BOARD_ACPI_SIZE);
	for (; n--; gpa++)
		s += ram[gpa];
	return s & 0xff;
}

static bool all_zero(uint64_t from, uint64_t to)
{
	while (from < to && ram[from] == 0)
		from++;
	return from == to;
}

/* gpas */
struct tables {
	uint64_t rsdp, xsdt, fadt, madt, dsdt;
};

static uint64_t check_table(uint64_t gpa, const char *signature, unsigned revision)
{
	ck_assert_uint_eq(gpa % 16, 0);
	ck_assert_mem_eq(ram + gpa, signature, 4);
	ck_assert_uint_eq(get(gpa + 8, 1), revision);
	ck_assert_uint_ge(get(gpa + 4, 4), 36);
	ck_assert_uint_eq(sum(gpa, get(gpa + 4, 4)), 0);
	return gpa;
}

static struct tables build(unsigned ncpus, unsigned nvirtio, bool com1)
{
	struct acpi_params p = {.ncpus = ncpus, .nvirtio = nvirtio, .com1 = com1};
	struct tables t = {0};
	struct err e;

	memset(ram, 0, BOARD_KERNEL);
	ck_assert_int_eq(acpi_build(&gm, &p, &t.rsdp, &e), 0);
	ck_assert_uint_eq(t.rsdp, BOARD_ACPI);
	ck_assert_mem_eq(ram + t.rsdp, "RSD PTR ", 8);
	ck_assert_uint_eq(get(t.rsdp + 15, 1), 2);
	ck_assert_uint_eq(get(t.rsdp + 20, 4), 36);
	ck_assert_uint_eq(sum(t.rsdp, 20), 0);
	ck_assert_uint_eq(sum(t.rsdp, 36), 0);
	t.xsdt = check_table(get(t.rsdp + 24, 8), "XSDT", 1);
	ck_assert_uint_eq(get(t.xsdt + 4, 4), 36 + 2 * 8);
	t.fadt = check_table(get(t.xsdt + 36, 8), "FACP", 6);
	t.madt = check_table(get(t.xsdt + 44, 8), "APIC", 5);
	t.dsdt = check_table(get(t.fadt + 140, 8), "DSDT", 2);
	ck_assert(all_zero(0, BOARD_ACPI));
	ck_assert(all_zero(BOARD_ACPI + BOARD_ACPI_SIZE, BOARD_MIN_MEM));
	return t;
}

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

/* ---- iasl ---- */

static char dir[] = "/tmp/insula-acpi-XXXXXX";

/* Run a command in `dir`; its output, both streams, is returned for a look. Fails the test unless
 * it exits 0. */
static const char *run(const char *cmd)
{
	static char out[1 << 20];
	char line[256];
	size_t n;
	FILE *f;
	int rc;

	snprintf(line, sizeof(line), "cd %s && %s 2>&1", dir, cmd);
	f = popen(line, "r");
	ck_assert_ptr_nonnull(f);
	n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = 0;
	rc = pclose(f);
	ck_assert_msg(WIFEXITED(rc) && WEXITSTATUS(rc) == 0, "%s: status %d:\n%s", cmd, rc, out);
	return out;
}

static void must_not(const char *cmd, const char *out, const char *word)
{
	ck_assert_msg(!strcasestr(out, word), "%s:\n%s", cmd, out);
}

/* One round trip through iasl. The decompiled source stays in dir as `name`.dsl. */
static void round_trip(const char *name, const void *table, size_t n)
{
	char path[64], cmd[64];
	const char *out;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(table, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
	snprintf(cmd, sizeof(cmd), "iasl -d %s.dat", name);
	out = run(cmd);
	must_not(cmd, out, "warning");
	must_not(cmd, out, "error");
	must_not(cmd, out, "invalid");
	must_not(cmd, out, "could not");
	/* The disassembler writes what it does not like into the source as comments. */
	snprintf(cmd, sizeof(cmd), "cat %s.dsl", name);
	out = run(cmd);
	must_not(name, out, "warning");
	must_not(name, out, "invalid");
	must_not(name, out, "unknown");
	must_not(name, out, "incorrect");
	must_not(name, out, "should be");
	snprintf(cmd, sizeof(cmd), "iasl -p %s.out %s.dsl", name, name);
	out = run(cmd);
	ck_assert_msg(strstr(out, "Compilation successful. 0 Errors, 0 Warnings, 0 Remarks"),
		      "%s:\n%s", cmd, out);
}

static size_t table_len(uint64_t gpa)
{
	return get(gpa + 4, 4);
}

static const char *dsdt_source(void)
{
	return run("cat dsdt.dsl");
}

static unsigned occurrences(const char *text, const char *word)
{
	unsigned n = 0;

	for (; (text = strstr(text, word)); text++)
		n++;
	return n;
}

static void check_source(unsigned ncpus, unsigned nvirtio, bool com1)
{
	const char *text = dsdt_source();
	char line[64];

	ck_assert_uint_eq(occurrences(text, "\"ACPI0007\""), ncpus);
	ck_assert_uint_eq(occurrences(text, "\"LNRO0005\""), nvirtio);
	ck_assert_uint_eq(occurrences(text, "Memory32Fixed"), nvirtio);
	ck_assert_uint_eq(occurrences(text, "PNP0501"), com1);
	ck_assert_uint_eq(occurrences(text, "QEMU0001"), 1);
	ck_assert_uint_eq(occurrences(text, "Name (\\_S5, Package (0x04)"), 1);
	ck_assert_uint_eq(
		occurrences(text, "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"),
		nvirtio + com1);
	for (unsigned i = 0; i < nvirtio; i++) {
		snprintf(line, sizeof(line), "0x%08X,         // Address Base",
			 (unsigned)BOARD_VIRTIO_MMIO + i * BOARD_PAGE);
		ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
		snprintf(line, sizeof(line), "0x%08X,\n", BOARD_GSI_VIRTIO + i);
		ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
	}
}

static void check_with_iasl(unsigned ncpus, unsigned nvirtio, bool com1)
{
	struct tables t = build(ncpus, nvirtio, com1);

	strcpy(dir, "/tmp/insula-acpi-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	round_trip("xsdt", ram + t.xsdt, table_len(t.xsdt));
	round_trip("facp", ram + t.fadt, table_len(t.fadt));
	round_trip("apic", ram + t.madt, table_len(t.madt));
	round_trip("dsdt", ram + t.dsdt, table_len(t.dsdt));
	check_source(ncpus, nvirtio, com1);
	run("rm -rf \"$PWD\"");
}

START_TEST(iasl_accepts)
{
	static const unsigned ncpus[] = {1, 2, 32}, nvirtio[] = {0, 1, 32};

	check_with_iasl(ncpus[_i / 3], nvirtio[_i % 3], true);
}
END_TEST

START_TEST(iasl_accepts_no_com1)
{
	check_with_iasl(1, 1, false);
}
END_TEST

START_TEST(bad_parameters)
{
	static const struct acpi_params bad[] = {{.ncpus = 0},
						 {.ncpus = BOARD_MAX_CPUS + 1},
						 {.ncpus = 1, .nvirtio = BOARD_MAX_VIRTIO + 1}};
	static const struct acpi_params good = {.ncpus = 1};
	uint64_t rsdp = 42;
	struct err e;

	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(acpi_build(&gm, &bad[i], &rsdp, &e), -EINVAL);
		ck_assert_ptr_nonnull(strstr(e.text, "CPUs"));
	}
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
	tcase_set_timeout(tc, 60); /* iasl, many times, on a busy machine */
	tcase_add_test(tc, fadt_fields);
	tcase_add_test(tc, madt_fields);
	tcase_add_loop_test(tc, iasl_accepts, 0, 9);
	tcase_add_test(tc, iasl_accepts_no_com1);
	tcase_add_test(tc, bad_parameters);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
