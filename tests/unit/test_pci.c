/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PCI bus (src/vmm/pci.h): configuration space, BARs that are sized and moved, MSI-X.
 */
#include <check.h>
#include "pcirig.h"

#define COMMAND 4u
#define MSIX 0x40u
#define ON 0x8000u
#define MASKED 0x4000u
#define MESSAGE 0xfee01000u

static void setup(void)
{
	rig_open();
}

static void teardown(void)
{
	rig_close();
}

/* ---- what the guest does ---- */

static uint32_t conf(unsigned i, unsigned reg)
{
	return (uint32_t)peek(space(i) + reg, 4);
}

static void put(unsigned i, unsigned reg, unsigned size, uint64_t v)
{
	poke(space(i) + reg, size, v);
}

/* Where is it for the guest? Slot, doorbell and exits have to agree. 0: nowhere. */
static uint64_t place(unsigned i)
{
	uint64_t at = 0;
	unsigned bells = 0;

	for (unsigned s = 0; s < HV_MAX_SLOTS; s++) {
		if (hm.slot[s].host == page[i])
			at = hm.slot[s].gpa;
	}
	for (unsigned b = 0; b < HM_DOORBELLS; b++) {
		if (hm.bell[b].used && hm.bell[b].d.event == bell[i]) {
			ck_assert_uint_eq(hm.bell[b].d.addr, at + 0x2004);
			bells++;
		}
	}
	ck_assert_uint_eq(bells, at != 0);
	ck_assert_uint_eq(atomic_load(&pci.fn[i].at[0]), at);
	if (at)
		ck_assert_uint_eq(peek(at + 8, 1), 0x10 + i);
	return at;
}

static bool signalled(int ev)
{
	return events_wait(&ev, 1, -1, 0) != 0;
}

static bool bound(unsigned i, unsigned k)
{
	return hm.line[FIRST_LINE + i * VECTORS + k].bound;
}

static uint64_t entry(unsigned i, unsigned k)
{
	return BAR(i) + TABLE + k * 16;
}

/* As a driver does: MSI-X on, bus master, the entry with its message and not masked. */
static void use(unsigned i, unsigned k)
{
	put(i, COMMAND, 2, 0x406);
	put(i, MSIX + 2, 2, ON);
	poke(entry(i, k), 4, MESSAGE);
	poke(entry(i, k) + 4, 4, 0);
	poke(entry(i, k) + 8, 4, 0x40 + k);
	poke(entry(i, k) + 12, 4, 0);
}

/* ---- configuration space ---- */

START_TEST(what_a_guest_finds)
{
	ck_assert_uint_eq(conf(1, 0), 0x56791234);
	ck_assert_uint_eq(conf(1, 4), 0x00100002);
	ck_assert_uint_eq(conf(1, 8), 0x02000001);
	ck_assert_uint_eq(conf(1, 0xc), 0);
	ck_assert_uint_eq(conf(1, 0x10), BAR(1));
	for (unsigned reg = 0x14; reg < 0x2c; reg += 4)
		ck_assert_uint_eq(conf(1, reg), 0);
	ck_assert_uint_eq(conf(1, 0x2c), 0xdef09abc);
	ck_assert_uint_eq(conf(1, 0x34), MSIX);
	ck_assert_uint_eq(conf(1, 0x3c), 0);
	ck_assert_uint_eq(conf(1, MSIX), 0x4c11 | (VECTORS - 1) << 16);
	ck_assert_uint_eq(conf(1, MSIX + 4), TABLE);
	ck_assert_uint_eq(conf(1, MSIX + 8), PENDING);
	ck_assert_uint_eq(conf(1, 0x4c), 0x01105c09);
	ck_assert_uint_eq(conf(1, 0x5c), 0x02140009);
	ck_assert_uint_eq(conf(1, 0x6c), 0x02030405);
	ck_assert_uint_eq(conf(1, 0x70), 0);
	ck_assert_uint_eq(conf(1, 0x100), 0);
	ck_assert_uint_eq(peek(space(1) + 2, 2), 0x5679);
	ck_assert_uint_eq(peek(space(1) + 0xfff, 1), 0);
	ck_assert_uint_eq(peek(space(1), 8), 0x0010000256791234);
	/* Neither the devices between them nor their other functions. */
	ck_assert_uint_eq(peek(space(0) + 0x8000, 2), 0xffff);
	ck_assert_uint_eq(peek(space(0) + 0x1000, 4), 0xffffffff);
	poke(space(0) + 0x1004, 4, ~0u);
	ck_assert_uint_eq(conf(0, 4), 0x00100002);
	/* The host bridge: nothing of it can be written. */
	for (unsigned reg = 0; reg < HV_PAGE; reg += 4)
		poke(BOARD_PCI_ECAM + reg, 4, ~0u);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM, 4), 0x0d578086);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM + COMMAND, 4), 0x00100000);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM + 8, 4), 0x06000000);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM + 0x34, 4), 0x40);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM + 0x40, 4), 0x00920010);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM + 0x100, 4), 0);
	for (unsigned i = 0; i < FUNCTIONS; i++)
		ck_assert_uint_eq(place(i), BAR(i));
}
END_TEST

START_TEST(bits_that_can_be_written)
{
	uint32_t before[HV_PAGE / 4];

	memcpy(before, pci.fn[0].config, sizeof(before));
	for (unsigned reg = 0; reg < HV_PAGE; reg += 4) {
		put(0, reg, 4, ~0u);
		put(0, reg, 4, 0);
		put(0, reg, 4, before[reg / 4]);
	}
	ck_assert_mem_eq(before, pci.fn[0].config, sizeof(before));
	for (unsigned reg = 0; reg < HV_PAGE; reg++)
		put(0, reg, 1, 0xff);
	for (unsigned reg = 0; reg < HV_PAGE; reg += 4) {
		uint32_t more = reg == COMMAND ? 0x406 : reg == 0x10 ? ~(BAR_SIZE - 1) : 0;

		more |= reg == MSIX ? 0xc0000000 : 0;
		ck_assert_uint_eq(conf(0, reg), before[reg / 4] | more);
	}
	/* In one piece, across words, and over the end. */
	put(1, 2, 8, ~0ull);
	ck_assert_uint_eq(conf(1, 0), 0x56791234);
	ck_assert_uint_eq(conf(1, COMMAND), 0x00100406);
	put(1, 3, 2, 0);
	ck_assert_uint_eq(conf(1, COMMAND), 0x00100400);
	put(1, 0xff, 2, ~0u);
	ck_assert_uint_eq(conf(1, 0xfc), 0);
}
END_TEST

/* ---- BARs ---- */

START_TEST(sized)
{
	put(0, COMMAND, 2, 0);
	put(0, 0x10, 4, ~0u);
	ck_assert_uint_eq(conf(0, 0x10), ~(BAR_SIZE - 1));
	put(0, 0x10, 4, BAR(0));
	put(0, COMMAND, 2, 2);
	ck_assert_uint_eq(place(0), BAR(0));
	ck_assert_uint_eq(hm.calls, FUNCTIONS * 2 + 2); /* of the beginning: no slot was moved */
	/* By one who does not stop it before. */
	put(1, 0x10, 4, ~0u);
	ck_assert_uint_eq(place(1), 0);
	put(1, 0x10, 4, BAR(1));
	ck_assert_uint_eq(place(1), BAR(1));
	put(1, 0x14, 4, ~0u);
	ck_assert_uint_eq(conf(1, 0x14), 0);
}
END_TEST

START_TEST(moved)
{
	put(0, COMMAND, 2, 4);
	put(0, 0x10, 4, BAR(100));
	ck_assert_uint_eq(place(0), BAR(0)); /* it matters when it decodes */
	put(0, COMMAND, 2, 6);
	ck_assert_uint_eq(place(0), BAR(100));
	ck_assert_uint_eq(peek(BAR(0) + 8, 4), 0xffffffff);
	poke(BAR(100) + 0x2004, 4, 0); /* another size: it exits, and rings */
	ck_assert(signalled(bell[0]));
	poke(BAR(0) + 0x2004, 4, 0);
	ck_assert(!signalled(bell[0]));
	ck_assert_uint_eq(peek(BAR(100) + 0x2800, 4), 0); /* of the BAR, and no window */
	put(0, 0x10, 4, BOARD_PCI_PORT_MMIO);
	ck_assert_uint_eq(place(0), BOARD_PCI_PORT_MMIO);
	put(0, 0x10, 4, BOARD_PCI_MMIO_END - BAR_SIZE);
	ck_assert_uint_eq(peek(BOARD_PCI_PORT_MMIO + 8, 4), 0xffffffff); /* there is no port */
	ck_assert_uint_eq(place(0), BOARD_PCI_MMIO_END - BAR_SIZE);
	ck_assert_uint_eq(place(1), BAR(1));
}
END_TEST

START_TEST(nowhere)
{
	static const uint64_t bad[] = {
		0,          BAR_SIZE, BOARD_PCI_MMIO - BAR_SIZE, BOARD_PCI_MMIO_END, BOARD_LAPIC,
		0xffffc000, BAR(1)};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		put(0, 0x10, 4, bad[i]);
		ck_assert_uint_eq(place(0), 0);
		ck_assert_uint_eq(place(1), BAR(1));
		ck_assert_uint_eq(peek(BAR(0) + 8, 4), 0xffffffff);
		put(0, 0x10, 4, BAR(0));
		ck_assert_uint_eq(place(0), BAR(0));
	}
}
END_TEST

START_TEST(two_change_places)
{
	put(0, COMMAND, 2, 0);
	put(1, COMMAND, 2, 0);
	put(0, 0x10, 4, BAR(1));
	put(1, 0x10, 4, BAR(0));
	put(0, COMMAND, 2, 2); /* the other one goes: it does not decode */
	ck_assert_uint_eq(place(0), BAR(1));
	ck_assert_uint_eq(place(1), 0);
	put(1, COMMAND, 2, 2);
	ck_assert_uint_eq(place(1), BAR(0));
	ck_assert_uint_eq(place(0), BAR(1));
	/* Who comes to one that decodes has no place until that one is gone. */
	put(2, 0x10, 4, BAR(0));
	ck_assert_uint_eq(place(2), 0);
	put(1, 0x10, 4, BAR(7));
	ck_assert_uint_eq(place(1), BAR(7));
	ck_assert_uint_eq(place(2), BAR(0));
	/* So two can change places while they decode. */
	put(1, 0x10, 4, BAR(0));
	put(2, 0x10, 4, BAR(7));
	ck_assert_uint_eq(place(1), BAR(0));
	ck_assert_uint_eq(place(2), BAR(7));
}
END_TEST

/* The hypervisor refuses one step after the other: no other function is touched, and a later
 * attempt works. */
START_TEST(moves_that_fail)
{
	for (unsigned n = 1; n <= 5; n++) {
		teardown();
		setup();
		hm.fail_at = hm.calls + n;
		put(0, 0x10, 4, BAR(50));
		hm.fail_at = 0;
		/* Two calls take it away and two put it there. */
		ck_assert_uint_eq(atomic_load(&pci.fn[0].at[0]), n <= 2   ? BAR(0)
								 : n <= 4 ? 0
									  : BAR(50));
		put(1, 0x10, 4, BAR(60));
		ck_assert_uint_eq(place(1), BAR(60));
		ck_assert_uint_eq(place(0), BAR(50)); /* it was tried again */
	}
}
END_TEST

/* ---- a device of the host ---- */

static uint64_t memory_at(void)
{
	for (unsigned s = 0; s < HV_MAX_SLOTS; s++) {
		if (hm.slot[s].host == memory) {
			ck_assert_uint_eq(hm.slot[s].size, HV_PAGE);
			return hm.slot[s].gpa;
		}
	}
	return 0;
}

/* Its memory is where its BAR is, and follows it. */
START_TEST(memory_of_a_device)
{
	ck_assert_uint_eq(conf(ASSIGNED, 0x18), MEMORY);
	ck_assert_uint_eq(memory_at(), MEMORY + HV_PAGE);
	ck_assert_uint_eq(peek(MEMORY, 4), 0); /* the BAR has no window there */
	put(ASSIGNED, 0x18, 4, ~0u);
	ck_assert_uint_eq(conf(ASSIGNED, 0x18), ~(MEMORY_SIZE - 1));
	ck_assert_uint_eq(memory_at(), 0);
	put(ASSIGNED, 0x18, 4, BAR(20));
	ck_assert_uint_eq(memory_at(), BAR(20) + HV_PAGE);
	put(ASSIGNED, 0x18, 4, BAR(0)); /* another one's */
	ck_assert_uint_eq(memory_at(), 0);
	put(ASSIGNED, 0x18, 4, MEMORY);
	ck_assert_uint_eq(memory_at(), MEMORY + HV_PAGE);
}
END_TEST

#define WIDE 0x800000000ull

/* Of 4 GiB, in two registers, in a window of its own that is as large as what is in it. */
START_TEST(bar_of_64_bits)
{
	struct pci_state s[FUNCTIONS];
	unsigned line = FIRST_LINE, slot = 2;

	dev[ASSIGNED].desc.pci.bar_size[MEMORY_BAR] = 1ull << 32;
	dev[ASSIGNED].desc.pci.bar_at[MEMORY_BAR] = WIDE;
	for (unsigned again = 0; again < 2; again++) {
		memset(&hm, 0, sizeof(hm));
		memset(&bus, 0, sizeof(bus));
		pci_init(&pci, NULL, &hm_ops);
		for (unsigned i = 0; i < FUNCTIONS; i++)
			ck_assert_int_eq(pci_add(&pci, &dev[i], &line, &slot, &e), 0);
		ck_assert_int_eq(pci_on_bus(&pci, &bus, slot++, &e), 0);
		ck_assert_uint_eq(conf(ASSIGNED, 0x18), 4);
		ck_assert_uint_eq(conf(ASSIGNED, 0x1c), 8);
		ck_assert_uint_eq(memory_at(), WIDE + HV_PAGE);
		ck_assert_uint_eq(peek(WIDE + 8, 4), 0); /* the BAR has no window there */
		put(ASSIGNED, 0x18, 4, ~0u);
		put(ASSIGNED, 0x1c, 4, ~0u);
		ck_assert_uint_eq(conf(ASSIGNED, 0x18), 4);
		ck_assert_uint_eq(conf(ASSIGNED, 0x1c), 0xffffffff);
		ck_assert_uint_eq(memory_at(), 0);
		ck_assert_uint_eq(peek(WIDE + 8, 4), 0xffffffff);
		put(ASSIGNED, 0x1c, 4, 9); /* outside */
		ck_assert_uint_eq(memory_at(), 0);
		put(ASSIGNED, 0x1c, 4, 0);
		ck_assert_uint_eq(memory_at(), 0);
		put(ASSIGNED, 0x1c, 4, 8);
		ck_assert_uint_eq(memory_at(), WIDE + HV_PAGE);
		/* A BAR of 32 bits cannot go there. */
		put(0, 0x10, 4, 0);
		ck_assert_uint_eq(atomic_load(&pci.fn[0].at[0]), 0);
		put(0, 0x10, 4, BAR(0));
		if (!again)
			put(ASSIGNED, 0x1c, 4, 7);
		for (unsigned i = 0; i < FUNCTIONS && !again; i++)
			pci_get(&pci, i, &s[i]);
		line = FIRST_LINE;
		slot = 2;
	}
	ck_assert_int_eq(pci_set(&pci, s, &e), 0);
	ck_assert_uint_eq(conf(ASSIGNED, 0x1c), 7);
	ck_assert_uint_eq(memory_at(), 0);
	ck_assert_uint_eq(place(0), BAR(0));
}
END_TEST

static struct dp_post heard(unsigned n)
{
	ck_assert_uint_eq(atomic_load(&ctrl.ring_head), n + 1);
	return ring[n];
}

/* Without a helper what is written to its configuration space waits for the next one. Nobody hears
 * of other registers. */
START_TEST(configuration_is_heard_of)
{
	struct dp_post w;

	atomic_store(&ctrl.ring_head, 0);
	atomic_store(&dev[ASSIGNED].failed, true);
	put(ASSIGNED, COMMAND, 2, 6);
	w = heard(0);
	ck_assert(w.offset == 4 && w.size == 2 && w.value == 6);
	put(ASSIGNED, HEARD_CAP, 4, ~0u);
	w = heard(1);
	ck_assert(w.offset == 0x70 && w.size == 4 && w.value == 0xffffffff);
	/* What may be written reads back, the rest is as it was. */
	ck_assert_uint_eq(conf(ASSIGNED, HEARD_CAP), 0x06070809 | HEARD_BITS);
	put(ASSIGNED, HEARD_CAP + 6, 1, 0x1ff);
	w = heard(2);
	ck_assert(w.offset == 0x76 && w.size == 1 && w.value == 0xff);
	put(ASSIGNED, HEARD_CAP - 4, 4, 0);
	put(ASSIGNED, MSIX, 4, 0);
	put(ASSIGNED, 0x18, 4, MEMORY);
	put(0, COMMAND, 2, 6);
	(void)heard(2);
	put(ASSIGNED, HEARD_CAP + 2, 4, 0x11223344); /* across: bytes */
	ck_assert_uint_eq(atomic_load(&ctrl.ring_head), 7);
	ck_assert(ring[6].offset == 0x75 && ring[6].value == 0x11);
	/* A ring that is full: it is lost, and the page says so. */
	for (unsigned i = 0; i < DP_RING_LEN; i++)
		put(ASSIGNED, COMMAND, 2, i & 6);
	ck_assert_uint_eq(atomic_load(&ctrl.ring_head), DP_RING_LEN);
	ck_assert_uint_eq(atomic_load(&ctrl.lost), 7);
	atomic_store(&ctrl.lost, 0);
}
END_TEST

/* ---- MSI-X ---- */

START_TEST(table)
{
	ck_assert_uint_eq(peek(entry(0, 1) + 12, 4), 1); /* masked at first */
	poke(entry(0, 1), 4, 0xffffffff);
	poke(entry(0, 1) + 4, 4, 0x12345678);
	poke(entry(0, 1) + 8, 8, 0xffffffff00000077);
	ck_assert_uint_eq(peek(entry(0, 1), 8), 0x12345678fffffffc);
	ck_assert_uint_eq(peek(entry(0, 1) + 8, 8), 0x100000077);
	ck_assert_uint_eq(peek(entry(0, 1) + 1, 1), 0xff);
	ck_assert_uint_eq(peek(entry(0, 1) + 4, 2), 0x5678);
	poke(entry(0, 1) + 8, 1, 1); /* neither smaller ones, nor across */
	poke(entry(0, 1) + 8, 2, 1);
	poke(entry(0, 1) + 4, 8, 0);
	poke(entry(0, 1) + 9, 4, 0);
	ck_assert_uint_eq(peek(entry(0, 1) + 8, 4), 0x77);
	poke(entry(0, VECTORS), 4, 0xffffffff); /* behind the last */
	ck_assert_uint_eq(peek(entry(0, VECTORS), 4), 0);
	poke(BAR(0) + PENDING, 8, ~0ull);
	ck_assert_uint_eq(peek(BAR(0) + PENDING, 8), 0);
	ck_assert_uint_eq(peek(entry(0, 0), 8), 0);
	ck_assert_uint_eq(peek(entry(1, 1), 8), 0);
}
END_TEST

/* Each of the four that can hold it: what comes is pending, and is delivered afterwards. */
START_TEST(held_and_delivered)
{
	static const struct {
		unsigned reg, size;
		uint32_t hold, let;
	} way[] = {{COMMAND, 2, 2, 6}, {MSIX + 2, 2, 0, ON}, {MSIX + 2, 2, ON | MASKED, ON}};

	use(0, 2);
	ck_assert(bound(0, 2) && !bound(0, 0) && !bound(0, 1) && !bound(1, 2));
	ck_assert_uint_eq(hm.line[FIRST_LINE + 2].addr, MESSAGE);
	ck_assert_uint_eq(hm.line[FIRST_LINE + 2].data, 0x42);
	ck_assert_int_eq((int)hm.line[FIRST_LINE + 2].event, event[0][2]);
	for (unsigned i = 0; i <= ARRAY_LEN(way); i++) {
		if (i < ARRAY_LEN(way))
			put(0, way[i].reg, way[i].size, way[i].hold);
		else
			poke(entry(0, 2) + 12, 4, 1);
		ck_assert(!bound(0, 2));
		ck_assert_uint_eq(peek(BAR(0) + PENDING, 4), 0);
		event_signal(event[0][2]);
		ck_assert_uint_eq(peek(BAR(0) + PENDING, 4), 4);
		ck_assert_uint_eq(peek(BAR(0) + PENDING, 8), 4); /* to look takes nothing away */
		if (i < ARRAY_LEN(way))
			put(0, way[i].reg, way[i].size, way[i].let);
		else
			poke(entry(0, 2) + 12, 4, 0);
		ck_assert(bound(0, 2));
		ck_assert_uint_eq(peek(BAR(0) + PENDING, 4), 0);
		ck_assert(signalled(event[0][2])); /* the hypervisor's now */
	}
}
END_TEST

/* Each has its bit, in whatever parts they are read. */
START_TEST(every_pending_bit)
{
	for (unsigned k = 0; k < VECTORS; k++) {
		event_signal(event[0][k]);
		ck_assert_uint_eq(peek(BAR(0) + PENDING, 8), 1u << k);
		ck_assert_uint_eq(peek(BAR(0) + PENDING, 4), 1u << k);
		for (unsigned b = 0; b < 8; b++)
			ck_assert_uint_eq(peek(BAR(0) + PENDING + b, 1),
					  (1ull << k >> 8 * b) & 0xff);
		ck_assert_uint_eq(peek(BAR(0) + PENDING + 1, 2), 1u << k >> 8);
		ck_assert_uint_eq(peek(BAR(0) + PENDING + 4, 4), 0);
		ck_assert_uint_eq(peek(BAR(0) + PENDING + 8, 8), 0);
		ck_assert(signalled(event[0][k]));
	}
}
END_TEST

START_TEST(messages_change)
{
	unsigned calls;

	use(0, 0);
	calls = hm.calls;
	poke(entry(0, 0) + 12, 4, 0);
	poke(entry(0, 0), 4, MESSAGE);
	put(0, MSIX + 2, 2, ON);
	ck_assert_uint_eq(hm.calls, calls); /* nothing has changed */
	poke(entry(0, 0) + 8, 4, 0x99);
	ck_assert(bound(0, 0));
	ck_assert_uint_eq(hm.line[FIRST_LINE].data, 0x99);
	poke(entry(0, 0) + 12, 4, 1);
	calls = hm.calls;
	poke(entry(0, 0), 4, 0xfee02000);
	poke(entry(0, 0) + 8, 4, 0x55);
	ck_assert_uint_eq(hm.calls, calls); /* masked: nothing is asked */
	poke(entry(0, 0) + 12, 4, 0);
	ck_assert(bound(0, 0));
	ck_assert_uint_eq(hm.line[FIRST_LINE].addr, 0xfee02000);
	ck_assert_uint_eq(hm.line[FIRST_LINE].data, 0x55);
	/* Memory is not written to. */
	poke(entry(0, 0), 4, 0x1000);
	ck_assert(!bound(0, 0));
	poke(entry(0, 0), 4, MESSAGE);
	poke(entry(0, 0) + 4, 4, 1);
	ck_assert(!bound(0, 0));
	poke(entry(0, 0) + 4, 4, 0);
	ck_assert(bound(0, 0));
}
END_TEST

/* One message, in configuration space. */
START_TEST(msi)
{
	struct device_desc *d = &dev[0].desc;

	d->nvectors = d->pci.msi = 1;
	d->pci.msix_table = d->pci.msix_pba = 0;
	ck_assert_msg(device_check(d, d->nslots, &e) == 0, "%s", e.text);
	build();
	ck_assert_uint_eq(conf(0, MSIX), 0x4c05);
	for (unsigned reg = MSIX; reg < MSIX + 12; reg += 4)
		put(0, reg, 4, ~0u);
	ck_assert_uint_eq(conf(0, MSIX), 0x14c05);
	ck_assert_uint_eq(conf(0, MSIX + 4), 0xfffffffc);
	ck_assert_uint_eq(conf(0, MSIX + 8), 0xffff);
	put(0, MSIX + 2, 2, 0);
	put(0, MSIX + 4, 4, MESSAGE);
	put(0, MSIX + 8, 2, 0x41);
	put(0, COMMAND, 2, 0x406);
	event_signal(event[0][0]);
	ck_assert(!bound(0, 0));
	put(0, MSIX + 2, 2, 1);
	ck_assert(bound(0, 0));
	ck_assert_uint_eq(hm.line[FIRST_LINE].addr, MESSAGE);
	ck_assert_uint_eq(hm.line[FIRST_LINE].data, 0x41);
	ck_assert_int_eq((int)hm.line[FIRST_LINE].event, event[0][0]);
	put(0, MSIX + 8, 1, 0x99);
	ck_assert(bound(0, 0));
	ck_assert_uint_eq(hm.line[FIRST_LINE].data, 0x99);
	put(0, COMMAND, 2, 2);
	ck_assert(!bound(0, 0));
	put(0, COMMAND, 2, 6);
	put(0, MSIX + 4, 4, 0x1000); /* no interrupt: memory */
	ck_assert(!bound(0, 0));
	put(0, MSIX + 4, 4, MESSAGE + 0x2000);
	ck_assert(bound(0, 0));
	ck_assert_uint_eq(hm.line[FIRST_LINE].addr, MESSAGE + 0x2000);
	/* There is no table, wherever one was. */
	poke(BAR(0) + TABLE, 8, ~0ull);
	poke(BAR(0), 4, 0);
	ck_assert_uint_eq(peek(BAR(0) + TABLE, 8), 0);
	ck_assert(bound(0, 0));
	put(0, MSIX + 2, 2, 0);
	ck_assert(!bound(0, 0));
}
END_TEST

START_TEST(interrupts_that_fail)
{
	use(0, 1);
	hm.fail_at = hm.calls + 1;
	poke(entry(0, 1) + 12, 4, 1); /* it cannot be unbound: it goes on to interrupt */
	ck_assert(bound(0, 1));
	poke(entry(0, 1) + 12, 4, 1); /* the next write tries again */
	ck_assert(!bound(0, 1));
	for (unsigned n = 1; n <= 2; n++) {
		poke(entry(0, 1) + 8, 4, 0x60 + n);
		hm.fail_at = hm.calls + n;
		poke(entry(0, 1) + 12, 4, 0);
		ck_assert(!bound(0, 1));
		poke(entry(0, 1) + 12, 4, 0);
		ck_assert(bound(0, 1));
		ck_assert_uint_eq(hm.line[FIRST_LINE + 1].data, 0x60 + n);
		poke(entry(0, 1) + 12, 4, 1);
	}
}
END_TEST

/* ---- set-up and snapshots ---- */

START_TEST(cannot_be_added)
{
	struct remote other = dev[0];
	unsigned line = 100, slot = 50;

	other.desc.pci.bar_at[0] = BAR(9);
	ck_assert_int_eq(pci_add(&pci, &other, &line, &slot, &e), -EEXIST);
	ck_assert_str_eq(e.text, "test: PCI device 1 is another one");
	other.desc.pci.number = 9;
	other.desc.pci.bar_at[0] = BAR(1);
	ck_assert_int_eq(pci_add(&pci, &other, &line, &slot, &e), -EEXIST);
	ck_assert_str_eq(e.text, "a BAR at 0xd8004000: test is there");
	other.desc.pci.bar_at[0] = BAR_SIZE;
	ck_assert_int_eq(pci_add(&pci, &other, &line, &slot, &e), -EEXIST);
	pci_init(&pci, NULL, &hm_ops);
	memset(&bus, 0, sizeof(bus));
	ck_assert_int_eq(pci_on_bus(&pci, &bus, slot, &e), 0);
	ck_assert_uint_eq(bus.n, 0); /* no PCI, no windows */
}
END_TEST

START_TEST(saved_and_restored)
{
	struct pci_state s[FUNCTIONS], again;

	use(0, 0);
	use(0, 2);
	poke(entry(0, 2) + 12, 4, 1);
	use(1, 1);
	put(1, COMMAND, 2, 0);
	put(0, 0x10, 4, BAR(30));
	put(1, 0x10, 4, BAR(0));
	put(1, COMMAND, 2, 6);
	put(2, 0x10, 4, BAR(1));
	ck_assert(place(0) == BAR(30) && place(1) == BAR(0) && place(2) == BAR(1));
	for (unsigned i = 0; i < FUNCTIONS; i++)
		pci_get(&pci, i, &s[i]);
	teardown();
	setup();
	ck_assert_int_eq(pci_set(&pci, s, &e), 0);
	ck_assert(place(0) == BAR(30) && place(1) == BAR(0) && place(2) == BAR(1));
	ck_assert(bound(0, 0) && !bound(0, 1) && !bound(0, 2) && !bound(1, 0) && bound(1, 1));
	ck_assert_uint_eq(hm.line[FIRST_LINE + VECTORS + 1].data, 0x41);
	ck_assert(signalled(event[0][0]) && signalled(event[0][2]) && signalled(event[1][1]));
	ck_assert(!signalled(event[0][1]) && !signalled(event[2][0])); /* never used */
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		pci_get(&pci, i, &again);
		ck_assert_mem_eq(&again, &s[i], sizeof(again));
	}
	teardown();
	setup();
	hm.fail_at = hm.calls + 1;
	ck_assert_int_eq(pci_set(&pci, s, &e), -ENOMEM);
	teardown();
	setup();
	/* Whatever is in it, nothing can be set that a guest could not set. */
	memset(s, 0xff, sizeof(s));
	ck_assert_int_eq(pci_set(&pci, s, &e), 0);
	ck_assert_uint_eq(conf(0, COMMAND), 0x00100406);
	ck_assert_uint_eq(conf(0, 0), 0x56781234);
	ck_assert_uint_eq(conf(0, 0x14), 0);
	ck_assert_uint_eq(place(0), 0);
	ck_assert(!bound(0, 0) && !bound(1, 1));
}
END_TEST

/* Memory of a device of the host is a slot of the guest: an access that exits has come between the
 * two halves of a move. It reads nothing of ours, and nobody is called. */
START_TEST(memory_of_the_host_does_not_exit)
{
	const struct pci_function *f = &pci.fn[ASSIGNED];

	ck_assert_uint_eq(peek(MEMORY + HV_PAGE, 4), 0); /* `memory` */
	ck_assert_int_eq(hv_mem_unmap(NULL, f->slot[2], &e), 0);
	ck_assert_uint_eq(peek(MEMORY + HV_PAGE, 4), 0xffffffff);
	ck_assert_uint_eq(peek(MEMORY + 2 * HV_PAGE - 8, 8), ~0ull);
	poke(MEMORY + HV_PAGE, 4, 1);
	ck_assert_uint_eq(dev[ASSIGNED].metrics.calls, 0);
	ck_assert_uint_eq(dev[ASSIGNED].metrics.posted, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci");
	TCase *tc = tcase_create("pci");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, memory_of_the_host_does_not_exit);
	tcase_add_test(tc, what_a_guest_finds);
	tcase_add_test(tc, bits_that_can_be_written);
	tcase_add_test(tc, sized);
	tcase_add_test(tc, moved);
	tcase_add_test(tc, nowhere);
	tcase_add_test(tc, two_change_places);
	tcase_add_test(tc, moves_that_fail);
	tcase_add_test(tc, memory_of_a_device);
	tcase_add_test(tc, bar_of_64_bits);
	tcase_add_test(tc, configuration_is_heard_of);
	tcase_add_test(tc, table);
	tcase_add_test(tc, held_and_delivered);
	tcase_add_test(tc, every_pending_bit);
	tcase_add_test(tc, messages_change);
	tcase_add_test(tc, msi);
	tcase_add_test(tc, interrupts_that_fail);
	tcase_add_test(tc, cannot_be_added);
	tcase_add_test(tc, saved_and_restored);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
