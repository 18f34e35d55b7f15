/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that does what it likes with configuration space, BARs, MSI-X tables and ports, while
 * devices come and go. The input is a list of accesses of 8 bytes: what (a function's space, its
 * BAR, any place of either window, an interrupt, a call of the hypervisor that fails; of a place
 * the same, its port, a device that comes, goes, or is asked to), size, register, value.
 *
 * Besides not crashing, after each: what cannot be written is as it was; a function is where its
 * BAR says or nowhere; its slot and its doorbell are there too, and so is the memory of a device;
 * no two are in one place (hv_map.h); a line is bound if and only if its entry delivers; what has
 * no power is nowhere; an event that is enabled and was not told yet has interrupted. In the end
 * everything is taken out, goes into a snapshot and comes back the same.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../unit/pcirig.h"
#include "must.h"

#define OPS_MAX 512

struct op {
	uint8_t what, size;
	uint16_t reg;
	uint32_t value;
};

static bool failed; /* a call has failed: what the guest asked for may not be there */

static uint64_t fuzz_value(const struct op *o)
{
	uint64_t v = o->value;

	/* Places and messages that mean something are rare among all numbers. */
	if (o->size & 0x80)
		v = BAR(v % 8);
	if (o->size & 0x40)
		v = BOARD_LAPIC | (v & 0xff000);
	return o->size & 0x20 ? v | v << 32 : v;
}

static void fuzz_access(uint64_t gpa, const struct op *o)
{
	unsigned size = 1u << (o->size & 3);

	if (o->size & 4)
		poke(gpa, size, fuzz_value(o));
	else
		(void)peek(gpa, size);
}

static void fuzz_plug(unsigned i)
{
	if (!device_is_place(&dev[FUNCTIONS + i].desc))
		return;
	MUST(!rig_plug(i));
	atomic_store(&dev[FUNCTIONS + i].failed, true); /* nobody answers */
}

static void fuzz_place_step(const struct op *o)
{
	unsigned k = o->what >> 4 & 1, i = FUNCTIONS + k;
	uint64_t port = BOARD_PCI_ECAM + ((uint64_t)BOARD_PORT_NUMBER(k, PLACES) << 15);

	switch (o->what & 7) {
	case 0:
		fuzz_access(port + o->reg % 0x98, o);
		break;
	case 1:
		fuzz_access(space(i) + o->reg % (o->what & 0x20 ? BOARD_PCI_ECAM_SIZE - 8 : 0x60),
			    o);
		break;
	case 2:
		fuzz_access(atomic_load(&pci.fn[i].at[0]) + o->reg % BAR_SIZE, o);
		break;
	case 3: /* its table */
		fuzz_access(atomic_load(&pci.fn[i].at[0]) + TABLE + o->reg % (VECTORS * 16), o);
		break;
	case 4:
		fuzz_plug(k);
		break;
	case 5:
		if (rig_unplug(k))
			MUST(failed);
		break;
	case 6:
		pci_press(&pci, &pci.place[k]);
		break;
	default: /* as drivers use it: events, power, and what comes behind them */
		fuzz_access(port + (o->what & 0x20 ? 0x58 : 0x80) + o->reg % 16, o);
	}
}

static void fuzz_step(const struct op *o)
{
	unsigned i = (o->what >> 4) % FUNCTIONS;

	if (o->what & 8) {
		fuzz_place_step(o);
		return;
	}
	switch (o->what & 7) {
	case 0:
	case 1:
		fuzz_access(space(i) + o->reg % (o->what & 1 ? HV_PAGE : 0x60), o);
		break;
	case 2: /* where it is, or was in the beginning */
	case 3:
		fuzz_access((o->what & 1 ? BAR(i) : atomic_load(&pci.fn[i].at[0])) +
				    o->reg % BAR_SIZE,
			    o);
		break;
	case 4: /* its table */
		fuzz_access(BAR(i) + TABLE + o->reg % (VECTORS * 16), o);
		break;
	case 5:
		fuzz_access((o->reg & 1 ? BOARD_PCI_ECAM : BOARD_PCI_MMIO) + o->value % 0x100000,
			    o);
		break;
	case 6:
		event_signal(event[i][o->reg % VECTORS]);
		break;
	default:
		hm.fail_at = hm.calls + 1 + o->reg % 4;
		failed = true;
	}
}

static void check_place(const struct pci_function *f, unsigned i)
{
	uint64_t at = atomic_load(&f->at[0]), bar = f->config[4];
	const void *shown = NULL;
	struct hv_doorbell *b = at ? hm_bell(at + 0x2004) : NULL;

	for (unsigned s = 0; s < HV_MAX_SLOTS; s++) {
		if (hm.slot[s].size && hm.slot[s].gpa == at)
			shown = hm.slot[s].host;
	}
	MUST(!at || (at >= BOARD_PCI_MMIO && at <= BOARD_PCI_MMIO_END - BAR_SIZE));
	if (failed)
		return;
	MUST(!at || (shown == page[i] && b && b->event == dev[i].slot[2]));
	MUST(!at || at == bar || !(f->config[1] & 2));
}

static void check_memory(const struct pci_function *f)
{
	uint64_t at = atomic_load(&f->at[MEMORY_BAR]), shown = 0;

	for (unsigned s = 0; s < HV_MAX_SLOTS; s++) {
		if (hm.slot[s].host == memory)
			shown = hm.slot[s].gpa;
	}
	MUST(!at || (at >= BOARD_PCI_MMIO && at <= BOARD_PCI_MMIO_END - MEMORY_SIZE));
	MUST(failed || shown == (at ? at + HV_PAGE : 0));
	MUST((f->config[HEARD_CAP / 4] & ~HEARD_BITS) == (0x06070809 & ~HEARD_BITS));
}

static unsigned first_line(unsigned i)
{
	return i < FUNCTIONS ? FIRST_LINE + i * VECTORS
			     : FIRST_LINE + FUNCTIONS * VECTORS + 1 +
				       (i - FUNCTIONS) * (1 + DEVICE_MAX_VECTORS);
}

static void check_lines(const struct pci_function *f, unsigned i)
{
	for (unsigned k = 0; k < VECTORS; k++) {
		const struct pci_entry *n = &f->entry[k];
		bool delivers = (f->config[0x10] & 0xc0000000) == 0x80000000 &&
				(f->config[1] & 4) && !n->control && n->addr >= 0xfee00000 &&
				n->addr < 0xfef00000;
		unsigned line = first_line(i) + k;

		MUST(hm.line[line].bound == n->line.bound);
		if (failed)
			continue;
		MUST(n->line.bound == delivers);
		MUST(!delivers || (hm.line[line].addr == n->addr && hm.line[line].data == n->data));
	}
}

/* Bits by their numbers in the specification: see test_pci_place.c. */
static void check_port(const struct pci_place *l)
{
	const uint32_t *c = l->port.config;
	uint32_t slot = c[0x58 / 4], on = slot & 0x20 ? (slot & 9) | (slot & 0x1000) >> 4 : 0;
	bool up = slot & 0x400000 && !(slot & 0x400) && !(c[0x3c / 4] & 0x400000);
	uint64_t addr = (uint64_t)c[0x88 / 4] << 32 | c[0x84 / 4];
	bool delivers =
		c[0x80 / 4] & 0x10000 && c[1] & 4 && addr >= 0xfee00000 && addr < 0xfef00000;
	unsigned line = l->port.line.number;

	MUST(c[0] == 0x000c1b36 && (c[1] & ~0x406u) == 0x00100000 && c[2] == 0x06040000);
	MUST(c[3] == 0x10000 && !c[4] && !c[5] && !c[7] && !c[9] && c[0x34 / 4] == 0x40);
	MUST(!(slot & 0xfeb6e8d6) && c[0x40 / 4] == 0x01428010);
	MUST((c[0x50 / 4] == 0x20110000) == up && (up || c[0x50 / 4] == 0x00110000));
	MUST(!l->accesses);
	MUST(!(slot >> 16 & on) || (slot >> 16 & on) == l->port.told);
	MUST(hm.line[line].bound == l->port.line.bound);
	if (failed)
		return;
	MUST(l->port.line.bound == delivers);
	MUST(!delivers || (hm.line[line].addr == addr && hm.line[line].data == c[0x8c / 4]));
}

static void check_slot(const struct pci_place *l, unsigned i)
{
	const struct pci_function *f = l->fn;
	bool there = !device_is_place(&f->dev->desc);
	bool up = l->port.config[0x50 / 4] & 0x20000000;

	MUST(there == !!(l->port.config[0x58 / 4] & 0x400000));
	MUST(peek(space(i), 4) == (up ? 0x1234 | (0x5678 + i) << 16 : 0xffffffff));
	MUST(up || !(f->config[1] & 0x406));
	MUST(failed || up || !atomic_load(&f->at[0]));
	if (!there) {
		MUST(!atomic_load(&f->at[0]));
		for (unsigned k = 0; k < DEVICE_MAX_VECTORS; k++)
			MUST(!hm.line[first_line(i) + k].bound);
		return;
	}
	MUST((f->config[1] & ~0x406u) == 0x00100000 && !(f->config[4] & (BAR_SIZE - 1)));
	check_place(f, i);
	check_lines(f, i);
}

static void fuzz_check(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		const struct pci_function *f = &pci.fn[i];

		MUST(f->config[0] == (0x1234 | (0x5678 + i) << 16));
		MUST((f->config[1] & ~0x406u) == 0x00100000);
		MUST(!(f->config[4] & (BAR_SIZE - 1)) && !f->config[5]);
		MUST(!(f->config[6] & ((i == ASSIGNED ? MEMORY_SIZE : HV_PAGE) - 1)));
		MUST((f->config[0x10] & 0x3fffffff) == (0x4c11 | (VECTORS - 1) << 16));
		MUST(!memcmp((const uint8_t *)f->config + 0x4e, caps + 2, 14));
		check_place(f, i);
		if (i == ASSIGNED)
			check_memory(f);
		check_lines(f, i);
	}
	for (unsigned k = 0; k < PLACES; k++) {
		check_port(&pci.place[k]);
		check_slot(&pci.place[k], FUNCTIONS + k);
	}
}

static void fuzz_snapshot(void)
{
	struct pci_port_state port[PLACES], port_again;
	struct pci_state s[FUNCTIONS], again;

	for (unsigned k = 0; k < PLACES; k++) {
		MUST(!rig_unplug(k));
		pci_port_get(&pci.place[k].port, &port[k]);
	}
	fuzz_check();
	for (unsigned i = 0; i < FUNCTIONS; i++)
		pci_get(&pci, i, &s[i]);
	rig_close();
	rig_open();
	failed = false;
	MUST(!pci_set(&pci, s, &e));
	for (unsigned k = 0; k < PLACES; k++) {
		pci_port_set(&pci.place[k].port, &port[k]);
		pci_port_get(&pci.place[k].port, &port_again);
		MUST(!memcmp(&port_again, &port[k], sizeof(port[k])));
	}
	fuzz_check();
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		pci_get(&pci, i, &again);
		MUST(!memcmp(&again, &s[i], sizeof(again)));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct op o;

	log_setup("", LOG_LVL_ERROR);
	places = PLACES;
	rig_open();
	failed = false;
	poke(BOARD_PCI_ECAM + (30ull << 15) + 0x58, 2, 0x300); /* one of the slots has power */
	for (unsigned i = 0; i < FUNCTIONS; i++)
		atomic_store(&dev[i].failed, true);
	for (size_t n = 0; n < OPS_MAX && size >= sizeof(o); n++) {
		memcpy(&o, data, sizeof(o));
		data += sizeof(o);
		size -= sizeof(o);
		fuzz_step(&o);
		fuzz_check();
	}
	hm.fail_at = 0;
	fuzz_snapshot();
	rig_close();
	return 0;
}
