/* SPDX-License-Identifier: BSD-2-Clause */
/* The generation identifier and the VMClock: where they lie, and their interrupt, which a masked
 * pin keeps. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "host.h"
#include "vmm/vmm.h"
#include "vmm/x86/genid.h"
#include "vmm/x86/ioapic.h"

#define VECTOR 0x31

static uint8_t *ram;
static struct vmm vm;
static hv_event bound;

/* A hypervisor that says which event is bound to the one line that this is about. */
static int fake_route(struct hv_vm *hv, unsigned line, uint64_t addr, uint32_t data, struct err *e)
{
	(void)hv, (void)addr, (void)e;
	ck_assert_uint_eq(line, BOARD_GSI_EVENTS);
	ck_assert_uint_eq(data & 0xff, VECTOR);
	return 0;
}

static int fake_bind(struct hv_vm *hv, unsigned line, hv_event event, struct err *e)
{
	(void)hv, (void)line, (void)e;
	bound = event;
	return 0;
}

static int fake_unbind(struct hv_vm *hv, unsigned line, hv_event event, struct err *e)
{
	(void)hv, (void)line, (void)e;
	ck_assert_int_eq(bound, event);
	bound = -1;
	return 0;
}

static void setup(void)
{
	static const struct line_ops ops = {fake_route, fake_bind, fake_unbind};

	ram = host_pages(BOARD_MIN_MEM);
	vm = (struct vmm){.gm = {.nregions = 1, .region = {{0, BOARD_MIN_MEM, ram}}}};
	bound = -1;
	ck_assert_int_eq(ioapic_create(&vm.ioapic, BOARD_IOAPIC_PINS(0), &ops, NULL, NULL), 0);
	ck_assert_int_eq(genid_init(&vm, NULL), 0);
}

static void teardown(void)
{
	ioapic_destroy(vm.ioapic);
	host_free_pages(ram, BOARD_MIN_MEM);
}

static void set_entry(uint32_t low)
{
	ck_assert_int_eq(ioapic_write(vm.ioapic, 0, 4, 0x10 + 2 * BOARD_GSI_EVENTS), 0);
	ck_assert_int_eq(ioapic_write(vm.ioapic, 0x10, 4, low), 0);
}

static bool fired(void)
{
	return (events_wait(&vm.acpi_event, 1, -1, 0) & 1) != 0;
}

static const uint8_t one[GENID_LEN] = "0123456789abcdef", two[GENID_LEN] = "fedcba9876543210";
static const uint64_t first[2] = {0x1122334455667788, 0x99aabbccddeeff00},
		      second[2] = {0x0102030405060708, 0x1112131415161718};

/* Byte by byte, as Linux' uapi/linux/vmclock-abi.h has them. */
static uint64_t clock_at(unsigned off, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)ram[BOARD_VMCLOCK + off + i] << 8 * i;
	return v;
}

START_TEST(placed_without_an_interrupt)
{
	ck_assert_int_eq(genid_place(&vm, one, first, NULL), 0);
	ck_assert_mem_eq(ram + BOARD_GENID, one, GENID_LEN);
	for (unsigned i = 1; i <= 16; i++)
		ck_assert(!ram[BOARD_GENID - i] && !ram[BOARD_GENID + GENID_LEN - 1 + i]);
	ck_assert(!fired());
}
END_TEST

START_TEST(renewed_with_one)
{
	set_entry(VECTOR);
	ck_assert_int_eq(bound, vm.acpi_event);
	ck_assert_int_eq(genid_place(&vm, one, first, NULL), 0);
	ck_assert_int_eq(genid_renew(&vm, two, second, NULL), 0);
	ck_assert_mem_eq(ram + BOARD_GENID, two, GENID_LEN);
	ck_assert(fired());
}
END_TEST

/* The event is the latch: it is bound when the guest unmasks the pin, and has been signalled. */
START_TEST(masked_pin_keeps_it)
{
	ck_assert_int_eq(genid_renew(&vm, two, second, NULL), 0);
	ck_assert_int_eq(bound, -1);
	set_entry(VECTOR);
	ck_assert_int_eq(bound, vm.acpi_event);
	ck_assert(fired());
	set_entry(1u << 16 | VECTOR);
	ck_assert_int_eq(bound, -1);
}
END_TEST

START_TEST(clock_page)
{
	ck_assert_int_eq(genid_place(&vm, one, first, NULL), 0);
	ck_assert_mem_eq(ram + BOARD_VMCLOCK, "VCLK", 4);
	ck_assert_uint_eq(clock_at(4, 4), 0x1000);
	ck_assert_uint_eq(clock_at(8, 2), 1);
	ck_assert_uint_eq(clock_at(10, 1), 0xff);
	ck_assert_uint_eq(clock_at(16, 8), first[0]);
	ck_assert_uint_eq(clock_at(24, 8), 0x300);
	for (unsigned off = 32; off < 104; off++)
		ck_assert_uint_eq(clock_at(off, 1), 0);
	ck_assert_uint_eq(clock_at(104, 8), first[1]);
	for (unsigned off = 112; off < 0x1000; off++)
		ck_assert_uint_eq(clock_at(off, 1), 0);
}
END_TEST

/* A guest that was saved while it read the page begins again; whatever else it has written there is
 * gone. */
START_TEST(clock_after_a_restore)
{
	uint64_t seq;

	ck_assert_int_eq(genid_place(&vm, one, first, NULL), 0);
	seq = clock_at(12, 4);
	ck_assert_uint_eq(seq % 2, 0);
	ck_assert_int_eq(genid_renew(&vm, two, second, NULL), 0);
	ck_assert_uint_eq(clock_at(12, 4) % 2, 0);
	ck_assert_uint_ne(clock_at(12, 4), seq);
	ck_assert_uint_eq(clock_at(16, 8), second[0]);
	ck_assert_uint_eq(clock_at(104, 8), second[1]);
	memset(ram + BOARD_VMCLOCK, 0xff, BOARD_VMCLOCK_SIZE);
	ck_assert_int_eq(genid_renew(&vm, one, first, NULL), 0);
	ck_assert_uint_eq(clock_at(12, 4), 0);
	ck_assert_uint_eq(clock_at(34, 1), 0);
	ck_assert_uint_eq(clock_at(16, 8), first[0]);
}
END_TEST

START_TEST(refusals)
{
	struct err e;
	int event = vm.acpi_event;

	ck_assert_int_eq(genid_init(&vm, &e), -EEXIST); /* the pin is taken */
	vm.acpi_event = event;
	vm.gm.region[0].size = BOARD_GENID + GENID_LEN - 1;
	ck_assert_int_eq(genid_place(&vm, one, first, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "no RAM at 0xdf010"));
	ck_assert_int_eq(genid_renew(&vm, one, first, &e), -EINVAL);
	ck_assert(!fired());
}
END_TEST

int main(void)
{
	Suite *s = suite_create("genid");
	TCase *tc = tcase_create("genid");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, placed_without_an_interrupt);
	tcase_add_test(tc, renewed_with_one);
	tcase_add_test(tc, masked_pin_keeps_it);
	tcase_add_test(tc, clock_page);
	tcase_add_test(tc, clock_after_a_restore);
	tcase_add_test(tc, refusals);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
