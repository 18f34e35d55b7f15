/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that does what it likes with configuration space, BARs and MSI-X tables. The input is a
 * list of accesses of 8 bytes: what (a function's space, its BAR, any place of either window, an
 * interrupt, a call of the hypervisor that fails), size, register, value.
 *
 * Besides not crashing, after each: what cannot be written is as it was; a function is where its BAR
 * says or nowhere; its slot and its doorbell are there too; no two are in one place (hv_map.h); a
 * line is bound if and only if its entry delivers. In the end it goes into a snapshot and comes back
 * the same.
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

static void fuzz_step(const struct op *o)
{
	unsigned i = (o->what >> 4) % FUNCTIONS;

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
	uint32_t at = atomic_load(&f->at[0]), bar = f->config[4];
	const void *shown = NULL;
	struct hv_doorbell *b = at ? hm_bell(at + 0x2004) : NULL;

	for (unsigned s = 0; s < HV_MAX_SLOTS; s++) {
		if (hm.slot[s].size && hm.slot[s].gpa == at)
			shown = hm.slot[s].host;
	}
	MUST(!at || (at >= BOARD_PCI_MMIO && at <= BOARD_PCI_MMIO_END - BAR_SIZE));
	if (failed)
		return;
	MUST(!at || (shown == page[i] && b && b->event == bell[i]));
	MUST(!at || at == bar || !(f->config[1] & 2));
}

static void check_lines(const struct pci_function *f, unsigned i)
{
	for (unsigned k = 0; k < VECTORS; k++) {
		const struct pci_entry *n = &f->entry[k];
		bool delivers = (f->config[0x10] & 0xc0000000) == 0x80000000 &&
				(f->config[1] & 4) && !n->control && n->addr >= 0xfee00000 &&
				n->addr < 0xfef00000;
		unsigned line = FIRST_LINE + i * VECTORS + k;

		MUST(hm.line[line].bound == n->line.bound);
		if (failed)
			continue;
		MUST(n->line.bound == delivers);
		MUST(!delivers || (hm.line[line].addr == n->addr && hm.line[line].data == n->data));
	}
}

static void fuzz_check(void)
{
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		const struct pci_function *f = &pci.fn[i];

		MUST(f->config[0] == (0x1234 | (0x5678 + i) << 16));
		MUST((f->config[1] & ~0x406u) == 0x00100000);
		MUST(!(f->config[4] & (BAR_SIZE - 1)) && !f->config[5]);
		MUST((f->config[0x10] & 0x3fffffff) == (0x4c11 | (VECTORS - 1) << 16));
		MUST(!memcmp((const uint8_t *)f->config + 0x4e, caps + 2, 14));
		check_place(f, i);
		check_lines(f, i);
	}
}

static void fuzz_snapshot(void)
{
	struct pci_state s[FUNCTIONS], again;

	for (unsigned i = 0; i < FUNCTIONS; i++)
		pci_get(&pci, i, &s[i]);
	rig_close();
	rig_open();
	failed = false;
	MUST(!pci_set(&pci, s, &e));
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
	rig_open();
	failed = false;
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
