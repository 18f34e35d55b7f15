/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables in memory that plays the guest's, found and checked as a guest does it. */
#ifndef TESTS_ACPIRIG_H
#define TESTS_ACPIRIG_H

#include <check.h>
#include <stdbool.h>
#include <string.h>

#include <insula/board.h>

#include "devices/describe.h"
#include "host.h"
#include "vmm/x86/acpi.h"

static uint8_t *ram;
static struct guestmem gm;

static void setup(void)
{
	ram = host_pages(BOARD_MIN_MEM);
	gm = (struct guestmem){.nregions = 1, .region = {{0, BOARD_MIN_MEM, ram}}};
}

static void teardown(void)
{
	host_free_pages(ram, BOARD_MIN_MEM);
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
	uint64_t rsdp, xsdt, fadt, madt, dsdt, mcfg; /* 0: there is none */
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

/* The devices of a board, as the supervisor describes them; and one on PCI, of which the tables
 * need no more than that it is there. */
static bool with_pci;
static unsigned with_places; /* and so many of these */
static unsigned cpus_in;     /* the others may come; 0: all are there, and stay */

static struct mem_region with_epc;

static void add_devices(struct acpi_params *p, unsigned nvirtio, bool com1)
{
	static struct device_desc d[VM_MAX_DEVICES];

	if (com1) {
		describe_16550(&d[p->ndevices], BOARD_COM1, BOARD_GSI_COM1);
		p->device[p->ndevices] = &d[p->ndevices];
		p->ndevices++;
	}
	for (unsigned i = 0; i < nvirtio; i++, p->ndevices++) {
		describe_virtio_mmio(&d[p->ndevices], BOARD_VIRTIO_MMIO + i * BOARD_PAGE,
				     BOARD_GSI_VIRTIO + i, 1);
		d[p->ndevices].uid = i;
		p->device[p->ndevices] = &d[p->ndevices];
	}
	for (unsigned i = 0; i < with_pci + with_places; i++, p->ndevices++) {
		d[p->ndevices] = (struct device_desc){
			.version = i < with_pci ? DEVICE_VERSION_PCI : DEVICE_VERSION_PLACE};
		p->device[p->ndevices] = &d[p->ndevices];
	}
}

static struct tables build(unsigned ncpus, unsigned nvirtio, bool com1)
{
	struct acpi_params p = {.ncpus = ncpus,
				.ncpus_in = cpus_in ? cpus_in : ncpus,
				.cpus_change = cpus_in,
				.epc = with_epc};
	struct tables t = {0};
	struct err e;

	add_devices(&p, nvirtio, com1);
	memset(ram, 0, BOARD_KERNEL);
	ck_assert_int_eq(acpi_build(&gm, &p, &t.rsdp, &e), 0);
	ck_assert_uint_eq(t.rsdp, BOARD_ACPI);
	ck_assert_mem_eq(ram + t.rsdp, "RSD PTR ", 8);
	ck_assert_uint_eq(get(t.rsdp + 15, 1), 2);
	ck_assert_uint_eq(get(t.rsdp + 20, 4), 36);
	ck_assert_uint_eq(sum(t.rsdp, 20), 0);
	ck_assert_uint_eq(sum(t.rsdp, 36), 0);
	t.xsdt = check_table(get(t.rsdp + 24, 8), "XSDT", 1);
	ck_assert_uint_eq(get(t.xsdt + 4, 4), 36u + (2u + (with_pci || with_places)) * 8u);
	t.fadt = check_table(get(t.xsdt + 36, 8), "FACP", 6);
	t.madt = check_table(get(t.xsdt + 44, 8), "APIC", 5);
	if (with_pci || with_places)
		t.mcfg = check_table(get(t.xsdt + 52, 8), "MCFG", 1);
	t.dsdt = check_table(get(t.fadt + 140, 8), "DSDT", 2);
	ck_assert(all_zero(0, BOARD_ACPI));
	ck_assert(all_zero(BOARD_ACPI + BOARD_ACPI_SIZE, BOARD_MIN_MEM));
	return t;
}

#endif
