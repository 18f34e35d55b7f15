/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI bus (src/vmm/pci.h) with three functions that are no real devices: one window that is read
 * in place, one that exits, a doorbell. For the unit test and the fuzzer.
 */
#ifndef TESTS_PCIRIG_H
#define TESTS_PCIRIG_H

#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "hv_map.h"
#include "vmm/pci.h"

#define FUNCTIONS 3u
#define VECTORS 11u /* more than a byte of pending bits */
#define BAR_SIZE 0x4000u
#define BAR(i) ((uint32_t)BOARD_PCI_MMIO + (i)*BAR_SIZE)
#define TABLE 0x3000u
#define PENDING 0x3800u
#define FIRST_LINE 8u

static _Alignas(HV_PAGE) uint8_t page[FUNCTIONS][DP_SHADOW_SIZE];
static struct pci pci;
static struct remote dev[FUNCTIONS];
static struct bus bus;
static struct dp_ctrl ctrl = {.ack_seq = 1}; /* nobody answers */
static int event[FUNCTIONS][VECTORS], bell[FUNCTIONS];
static struct err e;

static const uint8_t caps[] = {9,  0, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0,
			       20, 2, 1,  2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2};

static void describe(struct device_desc *d, unsigned i)
{
	*d = (struct device_desc){
		.version = DEVICE_VERSION_PCI,
		.index = i,
		.name = "test",
		.nslots = 3 + VECTORS,
		.nwindows = 2,
		.ndoorbells = 1,
		.nvectors = VECTORS,
		.page_slot = 0,
		.call_slot = 1,
		.answer_slot = word_events() ? 1 : DEVICE_NO_SLOT,
		.state_size = DP_STATE_SIZE,
		.probe_size = 1,
		.window = {{.len = HV_PAGE,
			    .space = DEVICE_BAR,
			    .serve = DEVICE_SHADOW,
			    .shift = 2,
			    .slot = DEVICE_NO_SLOT},
			   {.base = 0x2000,
			    .len = 8,
			    .space = DEVICE_BAR,
			    .serve = DEVICE_EXITS,
			    .at = 0x80,
			    .shift = 2,
			    .dropped = 3,
			    .slot = DEVICE_NO_SLOT}},
		.doorbell = {{.addr = 0x2004, .space = DEVICE_BAR, .slot = 2}},
		.pci = {.number = 1 + 2 * i,
			.vendor = 0x1234,
			.device = (uint16_t)(0x5678 + i),
			.subsystem_vendor = 0x9abc,
			.subsystem = 0xdef0,
			.class_revision = 0x02000001,
			.bar_size = {BAR_SIZE},
			.bar_at = {BAR(i)},
			.msix_table = TABLE,
			.msix_pba = PENDING,
			.caps_len = sizeof(caps)},
	};
	memcpy(d->pci.caps, caps, sizeof(caps));
	for (unsigned k = 0; k < VECTORS; k++)
		d->vector[k] = (struct device_vector){DEVICE_MSI, k, 3 + k, DEVICE_NO_SLOT};
	if (device_check(d, d->nslots, &e))
		panic("%s", e.text);
}

static void make_device(unsigned i)
{
	struct remote *d = &dev[i];

	memset(d, 0, sizeof(*d));
	describe(&d->desc, i);
	d->shadow = page[i];
	d->ctrl = &ctrl;
	pthread_mutex_init(&d->lock, NULL);
	bell[i] = d->slot[2] = event_create();
	for (unsigned k = 0; k < VECTORS; k++)
		event[i][k] = d->slot[3 + k] = event_create();
	for (unsigned k = 0; k < d->desc.nwindows; k++)
		d->window[k] = (struct remote_window){d, &d->desc.window[k]};
	memset(page[i], 0x10 + (int)i, sizeof(page[i]));
}

static void build(void)
{
	unsigned line = FIRST_LINE, slot = 2;

	memset(&hm, 0, sizeof(hm));
	memset(&bus, 0, sizeof(bus));
	pci_init(&pci, NULL, &hm_ops);
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		if (pci_add(&pci, &dev[i], &line, &slot, &e))
			panic("%s", e.text);
	}
	if (pci_on_bus(&pci, &bus, slot++, &e) ||
	    line - FIRST_LINE != pci_count_lines(dev, FUNCTIONS) || slot != 2 + FUNCTIONS + 1)
		panic("%u lines, %u slots", line, slot);
}

static void rig_open(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++)
		make_device(i);
	build();
}

static void rig_close(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		fd_close(&bell[i]);
		for (unsigned k = 0; k < VECTORS; k++)
			fd_close(&event[i][k]);
	}
}

/* ---- what the guest does ---- */

static uint64_t peek(uint64_t gpa, unsigned size)
{
	struct bus_patience w = {0};
	uint64_t v = 0;

	for (unsigned i = 0; i < HV_MAX_SLOTS; i++) {
		if (gpa - hm.slot[i].gpa < hm.slot[i].size && gpa % HV_PAGE + size <= HV_PAGE) {
			memcpy(&v, (uint8_t *)hm.slot[i].host + (gpa - hm.slot[i].gpa), size);
			return v;
		}
	}
	(void)bus_read(&bus, gpa, size, &v, &w);
	return size == 8 ? v : v & ((1ull << 8 * size) - 1);
}

static void poke(uint64_t gpa, unsigned size, uint64_t v)
{
	struct bus_patience w = {0};

	(void)bus_write(&bus, gpa, size, v, &w);
}

static uint64_t space(unsigned i)
{
	return BOARD_PCI_ECAM + ((uint64_t)dev[i].desc.pci.number << 15);
}

#endif
