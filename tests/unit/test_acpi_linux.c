/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The AML and the structure of every ACPI table by iasl, which must decompile each of them and
 * compile the result again without an error, a warning or a remark. Without iasl this test fails.
 * (The RSDP is no table to iasl, for it has no table header: test_acpi.c alone checks it.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "acpirig.h"

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

/* The generation identifier as Microsoft's paper has it, and the event by which it is notified. */
static void check_genid(const char *text)
{
	char line[64];

	ck_assert_uint_eq(occurrences(text, "Name (_CID, \"VM_Gen_Counter\")"), 1);
	ck_assert_uint_eq(occurrences(text, "Name (_DDN, \"VM_Gen_Counter\")"), 1);
	ck_assert_uint_eq(occurrences(text, "Name (ADDR, Package (0x02)"), 1);
	snprintf(line, sizeof(line), "0x%08X, \n                0x00\n", (unsigned)BOARD_GENID);
	ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
	ck_assert_uint_eq(occurrences(text, "\"ACPI0013\""), 1);
	snprintf(line, sizeof(line), "0x%08X,\n", BOARD_GSI_EVENTS);
	ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
	ck_assert_uint_eq(occurrences(text, "Method (_EVT, 1, NotSerialized)"), !cpus_in);
	ck_assert_uint_eq(occurrences(text, "Notify (VGEN, 0x80)"), 1);
	ck_assert_uint_eq(occurrences(text, "Notify (VCLK, 0x80)"), 1);
	ck_assert_uint_eq(occurrences(text, "Name (_HID, \"AMZNC10C\")"), 1);
	ck_assert_uint_eq(occurrences(text, "Name (_CID, \"VMCLOCK\")"), 1);
	snprintf(line, sizeof(line), "0x%08X,         // Address Base\n", (unsigned)BOARD_VMCLOCK);
	ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
}

/* Processors that come and go: all but the first. */
static void check_cpus(const char *text, unsigned ncpus)
{
	unsigned n = cpus_in ? ncpus - 1 : 0;
	char line[64];

	ck_assert_uint_eq(occurrences(text, "OperationRegion (CREG, SystemIO, 0x0610, 0x10)"),
			  cpus_in != 0);
	ck_assert_uint_eq(occurrences(text, "Field (CREG, DWordAcc, NoLock, Preserve)"),
			  cpus_in != 0);
	ck_assert_uint_eq(occurrences(text, "Return ((((CPRE >> Arg0) & One) * 0x0F))"),
			  cpus_in != 0);
	ck_assert_uint_eq(occurrences(text, "Method (_EVT, 1, Serialized)"), cpus_in != 0);
	ck_assert_uint_eq(occurrences(text, "Method (_STA, 0, NotSerialized)"), n);
	ck_assert_uint_eq(occurrences(text, "Method (_EJ0, 1, NotSerialized)"), n);
	ck_assert_uint_eq(occurrences(text, "Name (_MAT, Buffer (0x08)"), n);
	for (unsigned i = 1; i <= n; i++) {
		snprintf(line, sizeof(line), "Notify (C%03X, 0x01)", i);
		ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
		snprintf(line, sizeof(line), "Notify (C%03X, 0x03)", i);
		ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
	}
}

/* What _OSC does with the third word: without places nothing is left of it. */
static void check_osc(const char *text)
{
	ck_assert_uint_eq(occurrences(text, "CDW3 = Zero"), with_pci && !with_places);
	ck_assert_uint_eq(occurrences(text, "Local0 = (CDW3 & 0x11)"), with_places > 0);
	ck_assert_uint_eq(occurrences(text, "If ((Local0 != CDW3))"), with_places > 0);
	ck_assert_uint_eq(occurrences(text, "CDW3 = Local0"), with_places > 0);
	ck_assert_uint_eq(occurrences(text, "CDW1 |= 0x10"), with_pci || with_places);
}

/* The host bridge, and the reservation of its configuration space. */
static void check_pci(const char *text)
{
	bool bus = with_pci || with_places;
	char line[256];

	ck_assert_uint_eq(occurrences(text, "Name (_HID, \"PNP0A08\""), bus);
	ck_assert_uint_eq(occurrences(text, "Name (_CID, \"PNP0A03\""), bus);
	ck_assert_uint_eq(occurrences(text, "Name (_HID, \"PNP0C02\""), bus);
	ck_assert_uint_eq(occurrences(text, "Method (_OSC, 4, Serialized)"), bus);
	ck_assert_uint_eq(occurrences(text, "CreateDWordField (Arg3, 0x08, CDW3)"), bus);
	ck_assert_uint_eq(occurrences(text, "WordBusNumber (ResourceProducer, MinFixed, MaxFixed"),
			  bus);
	ck_assert_uint_eq(occurrences(text, "DWordMemory (ResourceProducer, PosDecode, MinFixed, "
					    "MaxFixed, NonCacheable, ReadWrite"),
			  bus);
	snprintf(line, sizeof(line), "0x%08X,         // Range Minimum", (unsigned)BOARD_PCI_MMIO);
	ck_assert_uint_eq(occurrences(text, line), bus);
	snprintf(line, sizeof(line), "0x%08X,         // Range Maximum",
		 (unsigned)BOARD_PCI_MMIO_END - 1);
	ck_assert_uint_eq(occurrences(text, line), bus);
	snprintf(line, sizeof(line), "0x%08X,         // Address Base", (unsigned)BOARD_PCI_ECAM);
	ck_assert_uint_eq(occurrences(text, line), bus);
	snprintf(line, sizeof(line),
		 "0x%04X,             // Range Maximum\n                    0x0000,             // "
		 "Translation Offset\n                    0x%04X,             // Length",
		 with_places, 1 + with_places);
	ck_assert_msg(occurrences(text, line) == bus, "%s in\n%s", line, text);
	snprintf(line, sizeof(line), "0x%08X,         // Address Length", (1 + with_places) << 20);
	ck_assert_uint_eq(occurrences(text, line), bus);
	check_osc(text);
}

/* Memory for enclaves: where it is, in 64 bits, and that it is the device's own. */
static void check_epc(const char *text)
{
	unsigned long long at = with_epc.gpa, size = with_epc.size;
	char line[256];

	ck_assert_uint_eq(occurrences(text, "Name (_HID, \"INT0E0C\""), size != 0);
	ck_assert_uint_eq(occurrences(text, "QWordMemory"), size != 0);
	if (!size)
		return;
	ck_assert_uint_eq(occurrences(text, "QWordMemory (ResourceConsumer, PosDecode, MinFixed, "
					    "MaxFixed, NonCacheable, ReadWrite"),
			  1);
	snprintf(line, sizeof(line), "0x%016llX, // Range Minimum", at);
	ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
	snprintf(line, sizeof(line), "0x%016llX, // Range Maximum", at + size - 1);
	ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
	snprintf(line, sizeof(line), "0x%016llX, // Length", size);
	ck_assert_msg(occurrences(text, line) == 1, "%s in\n%s", line, text);
}

static void check_source(unsigned ncpus, unsigned nvirtio, bool com1)
{
	const char *text = dsdt_source();
	char line[64];

	ck_assert_uint_eq(occurrences(text, "\"ACPI0007\""), ncpus);
	ck_assert_uint_eq(occurrences(text, "\"LNRO0005\""), nvirtio);
	ck_assert_uint_eq(occurrences(text, "Memory32Fixed"),
			  1 + nvirtio + (with_pci || with_places));
	ck_assert_uint_eq(occurrences(text, "PNP0501"), com1);
	ck_assert_uint_eq(occurrences(text, "QEMU0001"), 1);
	ck_assert_uint_eq(occurrences(text, "Name (\\_S5, Package (0x04)"), 1);
	ck_assert_uint_eq(
		occurrences(text, "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"),
		nvirtio + com1 + 1); /* and the Generic Event Device's */
	check_genid(text);
	check_pci(text);
	check_epc(text);
	check_cpus(text, ncpus);
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
	if (t.mcfg)
		round_trip("mcfg", ram + t.mcfg, table_len(t.mcfg));
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

START_TEST(iasl_accepts_pci)
{
	with_pci = true;
	check_with_iasl(2, 1, true);
	with_pci = false;
}
END_TEST

START_TEST(iasl_accepts_cpus_that_come)
{
	static const struct {
		unsigned in, all;
	} cpus[] = {{1, 2}, {2, 8}, {1, 32}, {32, 32}};

	cpus_in = cpus[_i].in;
	check_with_iasl(cpus[_i].all, 1, true);
	cpus_in = 0;
}
END_TEST

START_TEST(iasl_accepts_places)
{
	with_pci = _i;
	with_places = _i ? BOARD_MAX_PLACES : 1;
	check_with_iasl(2, 1, true);
	with_pci = false;
	with_places = 0;
}
END_TEST

START_TEST(iasl_accepts_enclaves)
{
	with_pci = _i;
	with_epc = (struct mem_region){.gpa = 0x4580000000ull, .size = 0x180400000ull};
	check_with_iasl(2, 1, true);
	with_epc.size = 0;
	with_pci = false;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acpi_linux");
	TCase *tc = tcase_create("acpi_linux");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60); /* iasl, many times, on a busy machine */
	tcase_add_loop_test(tc, iasl_accepts, 0, 9);
	tcase_add_test(tc, iasl_accepts_no_com1);
	tcase_add_test(tc, iasl_accepts_pci);
	tcase_add_loop_test(tc, iasl_accepts_cpus_that_come, 0, 4);
	tcase_add_loop_test(tc, iasl_accepts_places, 0, 2);
	tcase_add_loop_test(tc, iasl_accepts_enclaves, 0, 2);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
