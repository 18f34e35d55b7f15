/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI bus (src/vmm/pci.h) with three functions that are no real devices: one window that is read
 * in place, one that exits, a doorbell. The last one has a second BAR with memory of a device of
 * the host, and hears of writes to its command register and to a capability. If somebody wants
 * them, there are two places, into which two more of the first kind come. For unit tests and the
 * fuzzer.
 */
#ifndef TESTS_PCIRIG_H
#define TESTS_PCIRIG_H

#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "hv_map.h"
#include "vmm/pci.h"

#define FUNCTIONS 3u
#define PLACES 2u
#define ALL (FUNCTIONS + PLACES) /* function i is in place i - FUNCTIONS */
#define VECTORS 11u              /* more than a byte of pending bits */
#define BAR_SIZE 0x4000u
#define BAR(i) ((uint32_t)BOARD_PCI_MMIO + (i)*BAR_SIZE)
#define TABLE 0x3000u
#define PENDING 0x3800u
#define FIRST_LINE 8u
#define ASSIGNED 2u /* the function with a second BAR: */
#define MEMORY_BAR 2u
#define MEMORY_SIZE 0x2000u
#define MEMORY BAR(8)
#define HEARD_CAP 0x68u /* the register of a capability that it hears of */
#define HEARD_BITS 0xf0ff0000u

static _Alignas(HV_PAGE) uint8_t page[ALL][DP_SHADOW_SIZE], memory[HV_PAGE];
static unsigned places; /* how many there are */
static struct dp_post ring[DP_RING_LEN];
static struct pci pci;
static struct remote dev[ALL];
static struct bus bus;
static struct dp_ctrl ctrl = {.ack_seq = 1}; /* nobody answers */
static int event[ALL][VECTORS], bell[ALL];
static int woken; /* the main thread's */
static atomic_bool ending;
static struct err e;

static const uint8_t caps[] = {9,  16, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 20,
			       20, 2,  1,  2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2};

static void describe_assigned(struct device_desc *d)
{
	d->window[d->nwindows++] = (struct device_window){.base = HV_PAGE,
							  .len = HV_PAGE,
							  .space = DEVICE_BAR + MEMORY_BAR,
							  .serve = DEVICE_DIRECT,
							  .slot = d->nslots++};
	d->window[d->nwindows++] = (struct device_window){.base = 4,
							  .len = 4,
							  .space = DEVICE_CONFIG,
							  .serve = DEVICE_CALLS,
							  .at = 4,
							  .slot = DEVICE_NO_SLOT};
	d->window[d->nwindows++] = (struct device_window){.base = HEARD_CAP,
							  .len = 8,
							  .space = DEVICE_CONFIG,
							  .serve = DEVICE_CALLS,
							  .at = 0x70,
							  .slot = DEVICE_NO_SLOT};
	d->pci.bar_size[MEMORY_BAR] = MEMORY_SIZE;
	d->pci.bar_at[MEMORY_BAR] = MEMORY;
	d->pci.can[1].at = HEARD_CAP - DEVICE_CAPS_AT;
	d->pci.can[1].bits = HEARD_BITS;
}

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
		.pci = {.number = i < FUNCTIONS ? 1 + 2 * i
						: BOARD_PORT_NUMBER(i - FUNCTIONS, places),
			.vendor = 0x1234,
			.device = (uint16_t)(0x5678 + i),
			.subsystem_vendor = 0x9abc,
			.subsystem = 0xdef0,
			.class_revision = 0x02000001,
			.bar_size = {BAR_SIZE},
			.bar_at = {i < FUNCTIONS ? BAR(i) : 0},
			.msix_table = TABLE,
			.msix_pba = PENDING,
			.caps_len = sizeof(caps)},
	};
	memcpy(d->pci.caps, caps, sizeof(caps));
	for (unsigned k = 0; k < VECTORS; k++)
		d->vector[k] = (struct device_vector){DEVICE_MSI, k, 3 + k, DEVICE_NO_SLOT};
	if (i == ASSIGNED)
		describe_assigned(d);
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
	d->ring = ring;
	d->direct[2] = memory;
	pthread_mutex_init(&d->lock, NULL);
	bell[i] = d->slot[2] = event_create();
	for (unsigned k = 0; k < VECTORS; k++)
		event[i][k] = d->slot[3 + k] = event_create();
	for (unsigned k = 0; k < d->desc.nwindows; k++)
		d->window[k] = (struct remote_window){d, &d->desc.window[k]};
	memset(page[i], 0x10 + (int)i, sizeof(page[i]));
}

static void make_place(unsigned i)
{
	struct remote *d = &dev[i];

	memset(d, 0, sizeof(*d));
	d->desc = (struct device_desc){.version = DEVICE_VERSION_PLACE,
				       .index = i,
				       .name = "slot",
				       .nslots = 1,
				       .call_slot = DEVICE_NO_SLOT,
				       .answer_slot = DEVICE_NO_SLOT,
				       .state_size = DP_STATE_SIZE,
				       .pci = {.number = BOARD_PORT_NUMBER(i - FUNCTIONS, places)}};
	if (device_check(&d->desc, 1, &e))
		panic("%s", e.text);
	d->slot[0] = d->call_event = d->answer_event = -1;
	d->shadow = page[i];
	d->ctrl = &ctrl;
	d->ring = ring;
	d->wake_event = woken;
	d->ending = &ending;
	pthread_mutex_init(&d->lock, NULL);
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
	for (unsigned i = 0; i < places; i++) {
		if (pci_add_place(&pci, &dev[FUNCTIONS + i], &line, &slot, &e))
			panic("%s", e.text);
	}
	if (pci_on_bus(&pci, &bus, slot++, &e) ||
	    line - FIRST_LINE != pci_count_lines(dev, FUNCTIONS + places) ||
	    slot != 2 + FUNCTIONS + 1 + places * DEVICE_MAX_WINDOWS + 1)
		panic("%u lines, %u slots", line, slot);
}

static void rig_open(void)
{
	woken = event_create();
	for (unsigned i = 0; i < FUNCTIONS; i++)
		make_device(i);
	for (unsigned i = FUNCTIONS; i < FUNCTIONS + places; i++)
		make_place(i);
	build();
}

/* A device for place `i`, and copies of its descriptors: as a message brings them. */
static inline unsigned rig_device(unsigned i, struct device_desc *d, int *fds)
{
	unsigned n = 0;

	describe(d, FUNCTIONS + i);
	bell[FUNCTIONS + i] = event_create();
	fds[n++] = event_create(); /* the page: nobody looks */
	fds[n++] = event_create(); /* to call */
	fds[n++] = fd_copy(bell[FUNCTIONS + i]);
	for (unsigned k = 0; k < VECTORS; k++) {
		event[FUNCTIONS + i][k] = event_create();
		fds[n++] = fd_copy(event[FUNCTIONS + i][k]);
	}
	return n;
}

/* It comes into place `i`. */
static inline int rig_plug(unsigned i)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS];
	unsigned n = rig_device(i, &d, fds);

	return pci_plug(&pci, &pci.place[i], &d, fds, n, &e);
}

static void rig_forget(unsigned i)
{
	fd_close(&bell[i]);
	for (unsigned k = 0; k < VECTORS; k++)
		fd_close(&event[i][k]);
}

/* At once. */
static int rig_unplug(unsigned i)
{
	int rc = pci_unplug(&pci, &pci.place[i], &e);

	if (!rc)
		rig_forget(FUNCTIONS + i);
	return rc;
}

static void rig_close(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++)
		rig_forget(i);
	for (unsigned i = 0; i < places; i++) {
		if (device_is_pci(&dev[FUNCTIONS + i].desc) && rig_unplug(i))
			panic("%s", e.text);
		fd_close((int[]){(int)pci.place[i].port.line.event});
	}
	fd_close(&woken);
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
	if (i >= FUNCTIONS)
		return BOARD_PCI_ECAM + (1 + i - FUNCTIONS) * BOARD_PCI_ECAM_SIZE;
	return BOARD_PCI_ECAM + ((uint64_t)dev[i].desc.pci.number << 15);
}

#endif
