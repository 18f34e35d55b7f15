/* SPDX-License-Identifier: BSD-2-Clause */
/* Places on the PCI bus: what a guest and the main thread do to their ports, and to what comes and
 * goes behind them. See src/vmm/pci.h and pci_port.h. */
#include <check.h>
#include <pthread.h>
#include <unistd.h>

#include "pcirig.h"

#define FIRST 3u /* the function that comes into place 0; as FUNCTIONS, for tables */
#define COMMAND 4u
#define BUSES 0x18u
#define BRIDGE 0x3cu
#define LINK 0x52u
#define CONTROL 0x58u
#define STATUS 0x5au
#define MSI 0x80u
#define MSIX 0x40u
#define MESSAGE 0xfee01000u

#define BUTTON 1u
#define PRESENCE 8u
#define THERE 0x40u
#define CHANGED 0x100u /* the link */
#define ALL_EVENTS (BUTTON | PRESENCE | CHANGED)
#define ENABLE 0x1029u /* all of them, and interrupts */
#define NO_POWER 0x400u
#define LIGHT_ON 0x100u
#define LIGHT_OFF 0x300u
#define ACTIVE 0x2000u

static void setup_cold(void)
{
	places = PLACES;
	ctrl.ack_seq = 1;
	rig_open();
}

static void teardown(void)
{
	rig_close();
}

/* ---- what the guest does ---- */

static uint64_t port(unsigned i)
{
	return BOARD_PCI_ECAM + ((uint64_t)(30 + i) << 15);
}

static uint32_t port_get(unsigned i, unsigned reg, unsigned size)
{
	return (uint32_t)peek(port(i) + reg, size);
}

static void port_put(unsigned i, unsigned reg, unsigned size, uint32_t v)
{
	poke(port(i) + reg, size, v);
}

/* The slots have power: what comes is there. */
static void setup(void)
{
	setup_cold();
	for (unsigned i = 0; i < PLACES; i++)
		port_put(i, CONTROL, 2, LIGHT_OFF);
}

static uint32_t conf(unsigned i, unsigned reg)
{
	return (uint32_t)peek(space(i) + reg, 4);
}

static void put(unsigned i, unsigned reg, unsigned size, uint64_t v)
{
	poke(space(i) + reg, size, v);
}

static bool signalled(int ev)
{
	return events_wait(&ev, 1, -1, 0) != 0;
}

static unsigned port_line(unsigned i)
{
	return FIRST_LINE + FUNCTIONS * VECTORS + i * (1 + DEVICE_MAX_VECTORS);
}

/* Has the port interrupted? */
static bool told(unsigned i)
{
	return signalled((int)pci.place[i].port.line.event);
}

/* Is nothing of it anywhere in the hypervisor? */
static bool nowhere(unsigned i)
{
	for (unsigned s = 0; s < HV_MAX_SLOTS; s++) {
		if (hm.slot[s].size && hm.slot[s].host == page[i])
			return false;
	}
	for (unsigned b = 0; b < HM_DOORBELLS; b++) {
		if (hm.bell[b].used && hm.bell[b].d.event == dev[i].slot[2])
			return false;
	}
	for (unsigned k = 1; k <= DEVICE_MAX_VECTORS; k++) {
		if (hm.line[port_line(i - FUNCTIONS) + k].bound)
			return false;
	}
	return atomic_load(&pci.fn[i].at[0]) == 0;
}

/* As a driver does: BAR, bus master, entry 2 of MSI-X. */
static void use(unsigned i, uint64_t bar)
{
	put(i, 0x10, 4, bar);
	put(i, COMMAND, 2, 0x406);
	put(i, MSIX + 2, 2, 0x8000);
	poke(bar + TABLE + 32, 4, MESSAGE);
	poke(bar + TABLE + 36, 4, 0);
	poke(bar + TABLE + 40, 4, 0x42);
	poke(bar + TABLE + 44, 4, 0);
}

static void works(unsigned i, uint64_t bar)
{
	unsigned line = port_line(i - FUNCTIONS) + 1 + 2;
	struct hv_doorbell *b = hm_bell(bar + 0x2004);

	ck_assert_uint_eq(peek(bar + 8, 1), 0x10 + i);
	ck_assert(b && b->event == dev[i].slot[2]);
	poke(bar + 0x2004, 4, 0); /* it exits, and rings */
	ck_assert(signalled(bell[i]));
	ck_assert(hm.line[line].bound && hm.line[line].data == 0x42);
	ck_assert_int_eq((int)hm.line[line].event, dev[i].slot[3 + 2]);
}

static void switch_on(unsigned i)
{
	port_put(i, COMMAND, 2, 0x406);
	port_put(i, MSI + 4, 4, MESSAGE);
	port_put(i, MSI + 12, 2, 0x33);
	port_put(i, MSI + 2, 2, 1);
	port_put(i, STATUS, 2, ALL_EVENTS);
	port_put(i, CONTROL, 2, ENABLE);
}

/* ---- the port ---- */

START_TEST(what_a_guest_finds)
{
	for (unsigned i = 0; i < PLACES; i++) {
		ck_assert_uint_eq(port_get(i, 0, 4), 0x000c1b36);
		ck_assert_uint_eq(port_get(i, COMMAND, 4), 0x00100000);
		ck_assert_uint_eq(port_get(i, 8, 4), 0x06040000);
		ck_assert_uint_eq(port_get(i, 0xc, 4), 0x00010000);
		ck_assert_uint_eq(port_get(i, 0x10, 8), 0);
		ck_assert_uint_eq(port_get(i, BUSES, 4), (1 + i) << 16 | (1 + i) << 8);
		ck_assert_uint_eq(port_get(i, 0x1c, 4), 0);
		ck_assert_uint_eq(port_get(i, 0x20, 2), 0xdc00 + 0x20 * i);
		ck_assert_uint_eq(port_get(i, 0x22, 2), 0xdc10 + 0x20 * i); /* its last MiB */
		ck_assert_uint_eq(peek(port(i) + 0x24, 8), 0);
		ck_assert_uint_eq(peek(port(i) + 0x2c, 8), 0);
		ck_assert_uint_eq(port_get(i, 0x34, 4), 0x40);
		ck_assert_uint_eq(port_get(i, BRIDGE, 4), 0); /* no pin */
		ck_assert_uint_eq(port_get(i, 0x40, 4), 0x01428010);
		ck_assert_uint_eq(port_get(i, 0x44, 4), 0x8000);
		ck_assert_uint_eq(port_get(i, 0x4c, 4), 0x00100011 | (1 + i) << 24);
		ck_assert_uint_eq(port_get(i, 0x50, 4), 0x00110000); /* the link is down */
		ck_assert_uint_eq(port_get(i, 0x54, 4), 0x00040073 | (1 + i) << 19);
		ck_assert_uint_eq(port_get(i, CONTROL, 4), 0x700); /* nothing, no power, no light */
		ck_assert_uint_eq(port_get(i, 0x6c, 4), 2);
		ck_assert_uint_eq(port_get(i, 0x70, 4), 1);
		ck_assert_uint_eq(port_get(i, MSI, 4), 0x00800005);
		for (unsigned reg = 0x90; reg < HV_PAGE; reg += 4)
			ck_assert_uint_eq(port_get(i, reg, 4), 0);
		ck_assert_uint_eq(peek(port(i) + 0x1000, 4), 0xffffffff);
		for (unsigned at = 0; at < BOARD_PCI_ECAM_SIZE; at += 0xffc)
			ck_assert_uint_eq(peek(space(FIRST + i) + at, 4), 0xffffffff);
		ck_assert(!told(i));
	}
	/* Neither more buses than places, nor what is beside the ports. */
	ck_assert_uint_eq(bus.n, 2);
	ck_assert_uint_eq(bus.region[1].base, BOARD_PCI_ECAM);
	ck_assert_uint_eq(bus.region[1].len, 3 * BOARD_PCI_ECAM_SIZE);
	ck_assert_uint_eq(peek(port(0) - 0x8000, 4), 0xffffffff);
	ck_assert_uint_eq(conf(0, 0), 0x56781234);
}
END_TEST

static void check_bits(uint32_t command, uint32_t slot)
{
	static const struct {
		unsigned reg;
		uint32_t bits;
	} can[] = {{BUSES, 0xffffff}, {0x20, 0xfff0fff0}, {BRIDGE, 0x00430000},
		   {0x48, 0xf},       {MSI, 0x10000},     {MSI + 4, 0xfffffffc},
		   {MSI + 8, ~0u},    {MSI + 12, 0xffff}};

	for (unsigned reg = 0; reg < HV_PAGE; reg += 4) {
		uint32_t bits = reg == COMMAND ? command : reg == CONTROL ? slot : 0;

		for (unsigned k = 0; k < ARRAY_LEN(can); k++)
			bits |= can[k].reg == reg ? can[k].bits : 0;
		port_put(0, reg, 4, 0);
		port_put(0, reg, 4, ~0u);
		if (reg == BUSES || reg == 0x20)
			ck_assert_uint_eq(port_get(0, reg, 4), bits);
		else
			ck_assert_uint_eq(port_get(0, reg, 4) & bits, bits);
		port_put(0, reg, 4, 0);
		ck_assert_uint_eq(port_get(0, reg, 4) & bits, 0);
	}
}

START_TEST(bits_that_can_be_written)
{
	uint32_t before[HV_PAGE / 4], *now = pci.place[0].port.config;

	memcpy(before, now, sizeof(before));
	check_bits(0x406, 0x1729);
	for (unsigned reg = 0; reg < HV_PAGE; reg += 4)
		port_put(0, reg, 4, before[reg / 4]);
	ck_assert_mem_eq(before, now, sizeof(before));
	ck_assert(nowhere(FIRST) && !told(0));
	/* In bytes, across words, and over the end of what there is. */
	port_put(0, BUSES + 1, 1, 0x77);
	ck_assert_uint_eq(port_get(0, BUSES, 4), 0x00017700);
	poke(port(0) + 0x1a, 8, ~0ull);
	ck_assert_uint_eq(port_get(0, BUSES, 4), 0x00ff7700);
	ck_assert_uint_eq(port_get(0, 0x20, 4), (before[8] & 0xffff0000) | 0xfff0);
	poke(port(0) + 0xff, 2, ~0u);
	poke(port(0) + 0xffe, 8, ~0ull);
	ck_assert_uint_eq(port_get(1, 0, 4), 0x000c1b36);
}
END_TEST

/* ---- something comes ---- */

/* A card comes before the guest's driver listens. Linux' forgets the events that it finds, and
 * switches on a slot that has no power and in which there is something. */
START_TEST(comes_before_the_driver)
{
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert(!told(0) && !pci_is_up(&pci, &pci.place[0]));
	ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
	ck_assert_uint_eq(port_get(0, LINK, 2), 0x11);
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE | CHANGED);
	port_put(0, STATUS, 2, ALL_EVENTS);
	ck_assert_uint_eq(port_get(0, CONTROL, 4), THERE << 16 | LIGHT_OFF | NO_POWER);
	switch_on(0);
	ck_assert(told(0) && pci_is_up(&pci, &pci.place[0]));
	ck_assert_uint_eq(port_get(0, STATUS, 2), THERE | CHANGED);
	use(FIRST, BAR(40));
	works(FIRST, BAR(40));
}
END_TEST

/* What a guest that has no driver for it is asked for goes at once: it has never had it. */
START_TEST(comes_and_nobody_looks)
{
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert_int_eq(rig_unplug(0), 0);
	ck_assert(nowhere(FIRST) && !told(0));
	ck_assert_uint_eq(port_get(0, CONTROL, 2), LIGHT_OFF | NO_POWER);
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | CHANGED);
}
END_TEST

START_TEST(plugged)
{
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE | CHANGED);
	ck_assert_uint_eq(port_get(0, LINK, 2), ACTIVE | 0x11);
	ck_assert_uint_eq(port_get(1, STATUS, 2), 0);
	ck_assert(!told(0)); /* nobody wants to know */
	ck_assert_uint_eq(conf(FIRST, 0), 0x567b1234);
	ck_assert_uint_eq(conf(FIRST, COMMAND), 0x00100000);
	ck_assert_uint_eq(conf(FIRST, 8), 0x02000001);
	ck_assert_uint_eq(conf(FIRST, 0x10), 0);
	ck_assert_uint_eq(conf(FIRST, 0x2c), 0xdef09abc);
	ck_assert_uint_eq(conf(FIRST, MSIX), 0x4c11 | (VECTORS - 1) << 16);
	ck_assert_uint_eq(conf(FIRST, 0x5c), 0x02140009);
	ck_assert_uint_eq(peek(space(FIRST) + 1, 2), 0x7b12);
	ck_assert_uint_eq(peek(space(FIRST), 8), 0x00100000567b1234);
	ck_assert_uint_eq(peek(space(FIRST) + 0xfc, 8), 0);
	ck_assert_uint_eq(peek(space(FIRST) + 0xffe, 8), 0);
	/* Alone on its bus, and on no other. */
	for (unsigned k = 1; k < 256; k++)
		ck_assert_uint_eq(peek(space(FIRST) + (uint64_t)k * HV_PAGE, 4), 0xffffffff);
	ck_assert_uint_eq(conf(FIRST + 1, 0), 0xffffffff);
	ck_assert(nowhere(FIRST));
	put(FIRST, 0x10, 4, ~0u);
	ck_assert_uint_eq(conf(FIRST, 0x10), ~(BAR_SIZE - 1));
	use(FIRST, BAR(40));
	works(FIRST, BAR(40));
	ck_assert_int_eq(rig_plug(1), 0);
	use(FIRST + 1, BAR(41));
	works(FIRST + 1, BAR(41));
	works(FIRST, BAR(40));
}
END_TEST

/* A BAR is free anywhere in the board's window, whatever the port's window says; and not on others.
 * */
START_TEST(bars_behind_a_port)
{
	static const uint64_t good[] = {BOARD_PCI_PORT_MMIO, BAR(100),
					BOARD_PCI_MMIO_END - BAR_SIZE};
	static const uint64_t bad[] = {
		BAR(1),     BOARD_PCI_MMIO - BAR_SIZE, BOARD_PCI_MMIO_END, 0, BOARD_PCI_ECAM,
		BOARD_LAPIC};

	ck_assert_int_eq(rig_plug(0), 0);
	use(FIRST, BAR(50));
	for (unsigned k = 0; k < ARRAY_LEN(good); k++) {
		port_put(0, 0x20, 4, k << 20);
		put(FIRST, 0x10, 4, good[k]);
		works(FIRST, good[k]);
	}
	for (unsigned k = 0; k < ARRAY_LEN(bad); k++) {
		put(FIRST, 0x10, 4, bad[k]);
		ck_assert_uint_eq(atomic_load(&pci.fn[FIRST].at[0]), 0);
		ck_assert_uint_eq(atomic_load(&pci.fn[1].at[0]), BAR(1));
	}
}
END_TEST

/* Numbers that the guest gives to buses are read back, and lead nowhere. */
START_TEST(bus_numbers_lead_nowhere)
{
	static const uint32_t numbers[] = {0,          0x00010100, 0x00020200,
					   0x00ff0000, 0x00ffffff, 0x00000100};

	ck_assert_int_eq(rig_plug(0), 0);
	for (unsigned k = 0; k < ARRAY_LEN(numbers); k++) {
		port_put(0, BUSES, 4, numbers[k]);
		port_put(1, BUSES, 4, numbers[k] ^ 0x030300);
		ck_assert_uint_eq(port_get(0, BUSES, 4), numbers[k]);
		ck_assert_uint_eq(conf(FIRST, 0), 0x567b1234);
		ck_assert_uint_eq(conf(FIRST + 1, 0), 0xffffffff);
		ck_assert_uint_eq(conf(0, 0), 0x56781234);
	}
}
END_TEST

START_TEST(plugs_refused)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS];
	unsigned n;

	for (unsigned k = 0; k < 6; k++) {
		n = rig_device(0, &d, fds);
		if (k == 0)
			d.index++;
		else if (k == 1)
			d.pci.number++;
		else if (k == 2)
			d.state_size += HV_PAGE;
		else if (k == 3)
			d.nslots++;
		else if (k == 4)
			d = dev[FIRST].desc;
		else { /* there is no room for it in this VM */
			describe_assigned(&d);
			fds[n++] = event_create();
		}
		ck_assert_int_eq(pci_plug(&pci, &pci.place[0], &d, fds, n, &e),
				 k < 5 ? -EINVAL : -EOPNOTSUPP);
		for (unsigned s = 0; s < n; s++)
			ck_assert_int_eq(fds[s], -1);
		ck_assert(device_is_place(&dev[FIRST].desc));
		ck_assert_uint_eq(port_get(0, STATUS, 2), 0);
		ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
		rig_forget(FIRST);
	}
	ck_assert_int_eq(rig_plug(0), 0);
	use(FIRST, BAR(40));
	n = rig_device(1, &d, fds);
	rig_forget(FIRST + 1);
	d.index--;
	d.pci.number--;
	ck_assert_int_eq(pci_plug(&pci, &pci.place[0], &d, fds, n, &e), -EEXIST);
	ck_assert_str_eq(e.text, "test: test is there");
	ck_assert_int_eq(fds[0], -1);
	works(FIRST, BAR(40));
}
END_TEST

/* ---- a device of the host: Linux alone ---- */

#ifndef _WIN32

#define WHOLE (BOARD_PCI_PORT_SIZE / HV_PAGE)

static void *room;

/* Three pages of registers, each full of its number, of which the second and third are memory of
 * the guest, the third before the second; and a descriptor by which it is known. */
static int plug_assigned(unsigned pages)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS], memory_fd = memfile_create("registers");
	unsigned n = rig_device(0, &d, fds);
	uint8_t full[HV_PAGE];

	for (unsigned i = 0; i < 3; i++) {
		memset(full, (int)(0x30 + i), sizeof(full));
		ck_assert_int_eq(write(memory_fd, full, sizeof(full)), sizeof(full));
	}
	describe_assigned(&d);
	d.window[2].base = 0;
	d.window[2].offset = 2 * HV_PAGE;
	d.window[5] = d.window[2];
	d.window[5].base = HV_PAGE;
	d.window[5].offset = HV_PAGE;
	d.window[5].len = (uint64_t)pages * HV_PAGE;
	d.nwindows = 6;
	d.pci.bar_at[MEMORY_BAR] = 0;
	d.pci.bar_size[MEMORY_BAR] = 2 * BOARD_PCI_PORT_SIZE;
	fds[n++] = memory_fd;
	d.pci.host_slot = n;
	fds[n++] = event_create();
	d.nslots = n;
	dev[FIRST].room = room;
	return pci_plug(&pci, &pci.place[0], &d, fds, n, &e);
}

/* Is anything mapped there? */
static bool room_is_empty(void)
{
	unsigned char in;
	int pipe_fds[2], rc;

	ck_assert_int_eq(pipe(pipe_fds), 0);
	rc = (int)write(pipe_fds[1], room, 1);
	in = (unsigned char)(rc > 0);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	return !in;
}

#endif

START_TEST(registers_of_the_host)
{
#ifndef _WIN32
	ck_assert_int_eq(device_room(BOARD_PCI_PORT_SIZE, &room, &e), 0);
	ck_assert_uint_eq((uintptr_t)room % BOARD_PCI_PORT_SIZE, 0);
	for (unsigned round = 0; round < 3; round++) {
		uint64_t bar = BOARD_PCI_PORT_MMIO + round * 2 * BOARD_PCI_PORT_SIZE;

		ck_assert(room_is_empty());
		ck_assert_msg(!plug_assigned(1), "%s", e.text);
		ck_assert_uint_eq(hm.assigned, 1);
		ck_assert_int_eq(dev[FIRST].slot[3 + VECTORS], -1); /* nobody needs it now */
		put(FIRST, 0x10 + 4 * MEMORY_BAR, 4, bar);
		put(FIRST, COMMAND, 2, 0x406);
		ck_assert_uint_eq(peek(bar, 4), 0x32323232);
		ck_assert_uint_eq(peek(bar + HV_PAGE, 4), 0x31313131);
		ck_assert_uint_eq(peek(bar + 2ull * HV_PAGE, 4), 0);
		if (round == 2) {
			put(FIRST, COMMAND, 2, 0x400);
			port_put(0, CONTROL, 2, NO_POWER);
		}
		ck_assert_int_eq(rig_unplug(0), 0);
		port_put(0, CONTROL, 2, 0);
		ck_assert(room_is_empty() && nowhere(FIRST));
		ck_assert_uint_eq(hm.assigned, 0);
	}
#endif
}
END_TEST

START_TEST(registers_of_the_host_refused)
{
#ifndef _WIN32
	ck_assert_int_eq(device_room(BOARD_PCI_PORT_SIZE, &room, &e), 0);
	ck_assert_int_eq(plug_assigned(WHOLE), -EOPNOTSUPP); /* with the first page too many */
	ck_assert_msg(strstr(e.text, "expected 2 MiB at most"), "%s", e.text);
	rig_forget(FIRST);
	ck_assert_msg(!plug_assigned(WHOLE - 1), "%s", e.text);
	ck_assert_int_eq(rig_unplug(0), 0);
	/* A hypervisor that does not take notice keeps nobody out. */
	hm.fail_at = hm.calls + 1;
	ck_assert_msg(!plug_assigned(1), "%s", e.text);
	ck_assert_uint_eq(hm.assigned, 0);
	hm.assigned++; /* as if it had */
	ck_assert_int_eq(rig_unplug(0), 0);
	ck_assert(room_is_empty());
#endif
}
END_TEST

/* Without power it masters the bus no more: its helper hears of it, when it hears. */
START_TEST(no_power_no_master)
{
#ifndef _WIN32
	ck_assert_int_eq(device_room(BOARD_PCI_PORT_SIZE, &room, &e), 0);
	ck_assert_msg(!plug_assigned(1), "%s", e.text);
	atomic_store(&dev[FIRST].failed, true); /* so what it hears waits in the ring */
	memset(ring, 0xff, sizeof(ring));
	put(FIRST, COMMAND, 2, 0x406);
	ck_assert_uint_eq(ring[0].offset, 4);
	ck_assert_uint_eq(ring[0].value, 0x406);
	port_put(0, CONTROL, 2, NO_POWER);
	ck_assert_uint_eq(ring[1].offset, 4);
	ck_assert_uint_eq(ring[1].size, 2);
	ck_assert_uint_eq(ring[1].value, 0);
	port_put(0, CONTROL, 2, NO_POWER); /* it has none: nothing new */
	ck_assert_uint_eq(ring[2].value, ~0ull);
	ck_assert_uint_eq(pci.place[0].accesses, 0);
	port_put(0, CONTROL, 2, 0);
	ck_assert_int_eq(rig_unplug(0), 0);
#endif
}
END_TEST

/* ---- events ---- */

START_TEST(an_event_interrupts_once)
{
	unsigned line = port_line(0);

	switch_on(0);
	ck_assert(hm.line[line].bound && hm.line[line].addr == MESSAGE &&
		  hm.line[line].data == 0x33);
	ck_assert_int_eq((int)hm.line[line].event, (int)pci.place[0].port.line.event);
	ck_assert(!told(0));
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert(told(0) && !told(0) && !told(1));
	pci_press(&pci, &pci.place[0]); /* a new one, while the others are there */
	ck_assert(told(0));
	pci_press(&pci, &pci.place[0]);
	ck_assert(!told(0)); /* that was known */
	ck_assert_uint_eq(port_get(0, STATUS, 2), ALL_EVENTS | THERE);
	port_put(0, STATUS, 2, BUTTON); /* a bit is cleared by a 1, and alone */
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | CHANGED | THERE);
	port_put(0, STATUS + 1, 1, 1);
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE);
	port_put(0, STATUS, 2, 0xffff & ~ALL_EVENTS);
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE);
	port_put(0, CONTROL, 2, ENABLE); /* the control beside it clears nothing */
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE);
	ck_assert(!told(0));
	port_put(0, CONTROL, 4, ENABLE | PRESENCE << 16);
	ck_assert_uint_eq(port_get(0, STATUS, 2), THERE);
	ck_assert(!told(0));
	pci_press(&pci, &pci.place[0]); /* it has been cleared: it is a new one */
	ck_assert(told(0));
	ck_assert_int_eq(rig_unplug(0), 0);
	ck_assert(told(0));
	ck_assert_uint_eq(port_get(0, STATUS, 2), ALL_EVENTS);
	ck_assert_uint_eq(port_get(0, LINK, 2), 0x11);
}
END_TEST

/* What is not enabled is told when it is; each by its own enable, and none without the common one.
 * */
START_TEST(an_event_is_told_when_it_is_enabled)
{
	static const uint32_t bit[] = {1, 8, 0x1000};

	switch_on(0);
	port_put(0, CONTROL, 2, 0);
	ck_assert_int_eq(rig_plug(0), 0);
	pci_press(&pci, &pci.place[0]);
	ck_assert(!told(0));
	for (unsigned k = 0; k < ARRAY_LEN(bit); k++) {
		port_put(0, CONTROL, 2, bit[k]);
		ck_assert(!told(0));
		port_put(0, CONTROL, 2, bit[k] | 0x20);
		ck_assert(told(0));
		port_put(0, CONTROL, 2, bit[k] | 0x320);
		ck_assert(!told(0));
	}
	port_put(0, STATUS, 2, ALL_EVENTS);
	port_put(0, CONTROL, 2, 0);
	port_put(0, CONTROL, 2, ENABLE);
	ck_assert(!told(0));
}
END_TEST

/* MSI off, no bus master, memory as the address: the interrupt waits and is not lost. */
START_TEST(an_interrupt_waits)
{
	unsigned line = port_line(0);

	switch_on(0);
	for (unsigned k = 0; k < 4; k++) {
		static const struct {
			unsigned reg, size;
			uint32_t hold, let;
		} way[] = {{MSI + 2, 2, 0, 1},
			   {COMMAND, 2, 2, 6},
			   {MSI + 4, 4, 0x1000, MESSAGE},
			   {MSI + 8, 4, 1, 0}};

		port_put(0, way[k].reg, way[k].size, way[k].hold);
		ck_assert(!hm.line[line].bound);
		pci_press(&pci, &pci.place[0]);
		ck_assert(event_pending((int)pci.place[0].port.line.event));
		port_put(0, way[k].reg, way[k].size, way[k].let);
		ck_assert(hm.line[line].bound);
		ck_assert(told(0)); /* the hypervisor's now */
		port_put(0, STATUS, 2, BUTTON);
	}
	port_put(0, MSI + 12, 2, 0x55);
	ck_assert_uint_eq(hm.line[line].data, 0x55);
}
END_TEST

/* ---- it goes ---- */

START_TEST(gone_at_once)
{
	struct hv_doorbell *b;

	switch_on(0);
	for (unsigned round = 0; round < 3; round++) {
		uint64_t bar = BAR(40 + round);
		int ev;

		ck_assert_int_eq(rig_plug(0), 0);
		use(FIRST, bar);
		works(FIRST, bar);
		ev = dev[FIRST].slot[2];
		port_put(0, STATUS, 2, ALL_EVENTS);
		(void)told(0);
		ck_assert_int_eq(rig_unplug(0), 0);
		b = hm_bell(bar + 0x2004);
		ck_assert(nowhere(FIRST) && !b && told(0));
		ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | CHANGED);
		ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
		ck_assert_uint_eq(peek(bar + 8, 4), 0xffffffff);
		poke(bar + 0x2004, 4, 0);
		put(FIRST, 0x10, 4, bar);
		put(FIRST, COMMAND, 2, 6);
		ck_assert(nowhere(FIRST) && device_is_place(&dev[FIRST].desc));
		ck_assert_int_eq(dev[FIRST].slot[2], -1);
		ck_assert_int_ne(ev, -1);
	}
	ck_assert_int_eq(pci_unplug(&pci, &pci.place[0], &e), 0); /* there is nothing */
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | CHANGED);
}
END_TEST

/* As a guest does that is asked: button, power off; then it is taken out. */
START_TEST(asked_and_let_go)
{
	switch_on(0);
	ck_assert_int_eq(rig_plug(0), 0);
	use(FIRST, BAR(40));
	ck_assert(told(0) && pci_is_up(&pci, &pci.place[0]));
	pci_press(&pci, &pci.place[0]);
	ck_assert(told(0) && !signalled(woken));
	works(FIRST, BAR(40)); /* until the guest says so */
	port_put(0, STATUS, 2, ALL_EVENTS);
	port_put(0, CONTROL, 2, ENABLE | NO_POWER);
	ck_assert(signalled(woken) && told(0) && !pci_is_up(&pci, &pci.place[0]));
	ck_assert(nowhere(FIRST));
	ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
	ck_assert_uint_eq(port_get(0, STATUS, 2), THERE | CHANGED);
	ck_assert_uint_eq(port_get(0, LINK, 2), 0x11);
	port_put(0, STATUS, 2, CHANGED);
	ck_assert_int_eq(rig_unplug(0), 0);
	ck_assert(told(0));
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE);
	/* Where nothing answers there are zeros in the windows of the ports. */
	ck_assert_uint_eq(peek(BOARD_PCI_PORT_MMIO + 0x14, 1), 0);
	ck_assert_uint_eq(peek(BOARD_PCI_PORT_MMIO + PLACES * BOARD_PCI_PORT_SIZE - 4, 4), 0);
	ck_assert_uint_eq(peek(BOARD_PCI_PORT_MMIO + PLACES * BOARD_PCI_PORT_SIZE, 4), 0xffffffff);
	ck_assert_uint_eq(peek(BOARD_PCI_PORT_MMIO - 8, 4), 0xffffffff);
	/* The next one comes into a slot without power. Nobody has pressed the button. */
	port_put(0, STATUS, 2, PRESENCE);
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert(told(0) && !pci_is_up(&pci, &pci.place[0]));
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE | CHANGED);
	ck_assert_uint_eq(port_get(0, LINK, 2), 0x11);
	port_put(0, STATUS, 2, CHANGED);
	ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
	port_put(0, CONTROL, 2, ENABLE);
	ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | THERE | CHANGED);
	ck_assert_uint_eq(port_get(0, LINK, 2), ACTIVE | 0x11);
	use(FIRST, BAR(40));
	works(FIRST, BAR(40));
}
END_TEST

/* A card comes while the guest, as Linux does, gives the last one's power a second to go: it is
 * told then, and once more when the light goes off. Never by the button: a guest that has seen the
 * card meanwhile would give it back. */
START_TEST(comes_while_the_last_one_goes)
{
	for (unsigned way = 0; way < 4; way++) {
		bool switched = way & 1, taken = way & 2;

		switch_on(0);
		port_put(0, CONTROL, 2, ENABLE | LIGHT_ON);
		ck_assert_int_eq(rig_plug(0), 0);
		port_put(0, CONTROL, 2, ENABLE | LIGHT_ON | NO_POWER);
		ck_assert_int_eq(rig_unplug(0), 0);
		port_put(0, STATUS, 2, ALL_EVENTS);
		(void)told(0);
		ck_assert_int_eq(rig_plug(0), 0);
		ck_assert(told(0));
		ck_assert_uint_eq(port_get(0, STATUS, 2), PRESENCE | CHANGED | THERE);
		port_put(0, STATUS, 2, PRESENCE | CHANGED);
		port_put(0, MSI, 4, 0x00010000); /* not the slot's */
		ck_assert_uint_eq(port_get(0, STATUS, 2), THERE);
		if (taken) {
			ck_assert_int_eq(rig_unplug(0), 0);
			port_put(0, STATUS, 2, PRESENCE);
		}
		if (switched) {
			port_put(0, CONTROL, 2, ENABLE | LIGHT_ON);
			port_put(0, CONTROL, 2, ENABLE | LIGHT_ON | NO_POWER);
			port_put(0, STATUS, 2, CHANGED);
		}
		(void)told(0);
		port_put(0, CONTROL, 2, ENABLE | LIGHT_OFF | NO_POWER);
		ck_assert_int_eq(told(0), !way);
		ck_assert_uint_eq(port_get(0, STATUS, 2),
				  (way ? 0 : PRESENCE | CHANGED) | (taken ? 0 : THERE));
		port_put(0, STATUS, 2, ALL_EVENTS);
		port_put(0, CONTROL, 2, ENABLE | LIGHT_ON | NO_POWER);
		port_put(0, CONTROL, 2, ENABLE | LIGHT_OFF | NO_POWER); /* that was all */
		ck_assert(!told(0));
		if (!taken)
			ck_assert_int_eq(rig_unplug(0), 0);
	}
}
END_TEST

/* Power off and on again, or a reset of the bus: it is new; what was signalled meanwhile is kept.
 * */
START_TEST(power_makes_it_new)
{
	ck_assert_int_eq(rig_plug(0), 0);
	for (unsigned way = 0; way < 2; way++) {
		unsigned reg = way ? BRIDGE + 2 : CONTROL;

		use(FIRST, BAR(40));
		works(FIRST, BAR(40));
		port_put(0, reg, 2, way ? 0x40 : NO_POWER);
		ck_assert(nowhere(FIRST) && signalled(woken));
		put(FIRST, 0x10, 4, BAR(60));
		put(FIRST, COMMAND, 2, 6);
		port_put(0, reg, 2, way ? 0x40 : NO_POWER); /* once more */
		ck_assert(nowhere(FIRST) && !signalled(woken));
		port_put(0, reg, 2, 0);
		ck_assert(nowhere(FIRST));
		ck_assert_uint_eq(conf(FIRST, 0), 0x567b1234);
		ck_assert_uint_eq(conf(FIRST, COMMAND), 0x00100000);
		ck_assert_uint_eq(conf(FIRST, 0x10), 0);
		ck_assert_uint_eq(conf(FIRST, MSIX), 0x4c11 | (VECTORS - 1) << 16);
		put(FIRST, 0x10, 4, BAR(40));
		put(FIRST, COMMAND, 2, 6);
		for (unsigned k = 0; k < VECTORS * 4; k++)
			ck_assert_uint_eq(peek(BAR(40) + TABLE + k * 4, 4), k % 4 == 3);
	}
	event_signal(event[FIRST][2]);
	use(FIRST, BAR(40));
	ck_assert(hm.line[port_line(0) + 3].bound && signalled(event[FIRST][2]));
}
END_TEST

/* A place of the address space that is left can be another's. */
START_TEST(places_do_not_mix)
{
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert_int_eq(rig_plug(1), 0);
	use(FIRST, BAR(40));
	use(FIRST + 1, BAR(41));
	put(FIRST + 1, 0x10, 4, BAR(40)); /* somebody is there */
	ck_assert_uint_eq(atomic_load(&pci.fn[FIRST + 1].at[0]), 0);
	ck_assert_int_eq(rig_unplug(0), 0);
	put(FIRST + 1, COMMAND, 2, 0);
	put(FIRST + 1, COMMAND, 2, 0x406);
	works(FIRST + 1, BAR(40));
	ck_assert_int_eq(rig_plug(0), 0);
	use(FIRST, BAR(41));
	works(FIRST, BAR(41));
	works(FIRST + 1, BAR(40));
	ck_assert_int_eq(rig_unplug(1), 0);
	works(FIRST, BAR(41));
	for (unsigned i = 0; i < FUNCTIONS; i++)
		ck_assert_uint_eq(atomic_load(&pci.fn[i].at[0]), BAR(i));
}
END_TEST

/* The hypervisor refuses one step after the other: it is still there, and goes the next time. */
START_TEST(it_cannot_be_taken_out)
{
	for (unsigned n = 1; n <= 4; n++) {
		int rc;

		teardown();
		setup();
		ck_assert_int_eq(rig_plug(0), 0);
		use(FIRST, BAR(40));
		hm.fail_at = hm.calls + n;
		rc = rig_unplug(0);
		if (n == 4) { /* slot, doorbell, line, and that was all */
			ck_assert_int_eq(rc, 0);
			continue;
		}
		ck_assert_int_eq(rc, -ENOMEM);
		ck_assert(device_is_pci(&dev[FIRST].desc));
		ck_assert_uint_eq(port_get(0, STATUS, 2) & THERE, THERE);
		hm.fail_at = 0;
		ck_assert_int_eq(rig_unplug(0), 0);
		ck_assert(nowhere(FIRST));
		ck_assert_int_eq(rig_plug(0), 0);
		use(FIRST, BAR(40));
		works(FIRST, BAR(40));
	}
	/* Nor when the power goes: it goes with the device. */
	ck_assert_int_eq(rig_plug(0), 0);
	use(FIRST, BAR(40));
	works(FIRST, BAR(40));
	hm.fail_at = hm.calls + 1;
	port_put(0, CONTROL, 2, NO_POWER);
	hm.fail_at = 0;
	ck_assert(!nowhere(FIRST));
	ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
	ck_assert_int_eq(rig_unplug(0), 0);
	ck_assert(nowhere(FIRST));
}
END_TEST

/* ---- while vCPUs are in it ---- */

static atomic_bool enough;
static _Atomic unsigned begun;

static void *calls(void *arg)
{
	(void)arg;
	atomic_fetch_add(&begun, 1);
	poke(BAR(40) + 0x10, 4, 1); /* nobody answers */
	return NULL;
}

/* They come out, nobody is called stuck, and nothing of the old one is in the new one. */
START_TEST(gone_while_it_is_called)
{
	pthread_t t[4];

	ctrl.ack_seq = 1u << 31;
	dev[FIRST].may_spin = _i;
	ck_assert_int_eq(rig_plug(0), 0);
	use(FIRST, BAR(40));
	atomic_store(&begun, 0);
	for (unsigned k = 0; k < ARRAY_LEN(t); k++)
		ck_assert_int_eq(pthread_create(&t[k], NULL, calls, NULL), 0);
	while (atomic_load(&begun) < ARRAY_LEN(t) || !atomic_load(&pci.place[0].accesses))
		(void)events_wait(NULL, 0, -1, 1);
	ck_assert_int_eq(rig_unplug(0), 0);
	ck_assert_uint_eq(atomic_load(&pci.place[0].accesses), 0);
	for (unsigned k = 0; k < ARRAY_LEN(t); k++)
		ck_assert_int_eq(pthread_join(t[k], NULL), 0);
	ck_assert(!atomic_load(&dev[FIRST].stuck) && !signalled(woken));
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert(!atomic_load(&dev[FIRST].failed) && !atomic_load(&dev[FIRST].gone));
	ck_assert_uint_eq(dev[FIRST].seq + dev[FIRST].head, 0);
	ck_assert_uint_eq(dev[FIRST].metrics.calls + dev[FIRST].metrics.timeouts, 0);
}
END_TEST

/* Everything that there is of both places, at any time. */
static void *guest(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	while (!atomic_load(&enough)) {
		unsigned i, reg;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		i = seed >> 40 & 1;
		reg = (unsigned)(seed >> 48) % BAR_SIZE;
		switch (seed >> 33 & 7) {
		case 0:
			put(FIRST + i, 0x10, 4, BAR(40 + (seed >> 60)));
			put(FIRST + i, COMMAND, 2, 0x406);
			break;
		case 1:
			put(FIRST + i, MSIX + 2, 2, seed >> 50 & 0x8000);
			break;
		case 2:
			port_put(i, CONTROL, 4, (uint32_t)seed & 0x01090000);
			break;
		case 3:
			port_put(i, CONTROL, 2, seed >> 60 ? ENABLE : NO_POWER);
			break;
		case 4:
			(void)bus_read(&bus, space(FIRST + i) + (reg & 0xfc), 4, &(uint64_t){0},
				       &(struct bus_patience){0});
			break;
		case 5:
			poke(BAR(40 + (seed >> 60)) + TABLE + reg % 0x100, 4, MESSAGE);
			break;
		case 6:
			poke(BAR(40 + (seed >> 60)) + reg, 4, seed >> 60);
			break;
		default:
			(void)bus_read(&bus, BAR(40 + (seed >> 60)) + reg, 4, &(uint64_t){0},
				       &(struct bus_patience){0});
		}
	}
	return NULL;
}

START_TEST(gone_while_it_is_used)
{
	pthread_t t[3];

	atomic_store(&enough, false);
	for (unsigned k = 0; k < ARRAY_LEN(t); k++)
		ck_assert_int_eq(pthread_create(&t[k], NULL, guest, (void *)(uintptr_t)(k + 1)), 0);
	for (unsigned n = 0; n < 300; n++) {
		unsigned i = n & 1;

		ck_assert_int_eq(rig_plug(i), 0);
		pci_press(&pci, &pci.place[i]);
		(void)pci_is_up(&pci, &pci.place[i]);
		ck_assert_int_eq(rig_unplug(i), 0);
		ck_assert_uint_eq(atomic_load(&pci.fn[FIRST + i].at[0]), 0);
	}
	atomic_store(&enough, true);
	for (unsigned k = 0; k < ARRAY_LEN(t); k++)
		ck_assert_int_eq(pthread_join(t[k], NULL), 0);
	for (unsigned i = 0; i < PLACES; i++) {
		ck_assert(nowhere(FIRST + i));
		ck_assert_uint_eq(atomic_load(&pci.place[i].accesses), 0);
	}
	for (unsigned b = 0; b < HM_DOORBELLS; b++)
		ck_assert(!hm.bell[b].used || hm.bell[b].d.addr < BAR(FUNCTIONS));
}
END_TEST

/* ---- set-up and snapshots ---- */

START_TEST(cannot_be_added)
{
	struct remote other = dev[FIRST], fn = dev[0];
	unsigned line = 300, slot = 50;

	fn.desc.pci.number = 9;
	ck_assert_int_eq(pci_add(&pci, &fn, &line, &slot, &e), -EINVAL);
	ck_assert_str_eq(e.text, "test: expected places behind all functions");
	other.desc.pci.number = 31; /* three would begin at 29 */
	ck_assert_int_eq(pci_add_place(&pci, &other, &line, &slot, &e), 0);
	memset(&bus, 0, sizeof(bus));
	ck_assert_int_eq(pci_on_bus(&pci, &bus, slot, &e), -EINVAL);
	ck_assert_str_eq(e.text, "slot: port 30; expected 29");
	pci_init(&pci, NULL, &hm_ops);
	fn.desc.pci.number = 31;
	fn.desc.pci.bar_at[0] = BAR(90);
	ck_assert_int_eq(pci_add(&pci, &fn, &line, &slot, &e), 0);
	ck_assert_int_eq(pci_add_place(&pci, &other, &line, &slot, &e), 0);
	ck_assert_int_eq(pci_on_bus(&pci, &bus, slot, &e), -EEXIST);
	ck_assert_str_eq(e.text, "slot: PCI device 31 is another one");
	for (unsigned n = 1; n < BOARD_MAX_PLACES; n++)
		ck_assert_int_eq(pci_add_place(&pci, &other, &line, &slot, &e), 0);
	ck_assert_int_eq(pci_add_place(&pci, &other, &line, &slot, &e), -ENOSPC);
	/* Places alone make a bus. */
	pci_init(&pci, NULL, &hm_ops);
	memset(&hm, 0, sizeof(hm));
	ck_assert_int_eq(pci_add_place(&pci, &other, &line, &slot, &e), 0);
	ck_assert_int_eq(pci_on_bus(&pci, &bus, slot, &e), 0);
	ck_assert_uint_eq(hm.slot[slot].size, BOARD_PCI_ECAM_SIZE);
	ck_assert_uint_eq(peek(BOARD_PCI_ECAM, 4), 0x0d578086);
	/* Nothing is asked of the hypervisor for a place, and the lines are counted. */
	ck_assert_uint_eq(hm.calls, 1);
	ck_assert_uint_eq(pci_count_lines(&other, 1), 1 + DEVICE_MAX_VECTORS);
	teardown();
	setup();
}
END_TEST

START_TEST(saved_and_restored)
{
	struct pci_port_state s, again;

	switch_on(0);
	port_put(0, BUSES, 4, 0x00050500);
	port_put(0, CONTROL, 2, ENABLE | NO_POWER | 0x100);
	pci_press(&pci, &pci.place[0]);
	(void)told(0);
	pci_port_get(&pci.place[0].port, &s);
	teardown();
	setup();
	pci_port_set(&pci.place[0].port, &s);
	ck_assert(told(0) && !told(1)); /* once more */
	ck_assert_uint_eq(port_get(0, CONTROL, 2), ENABLE | NO_POWER | 0x100);
	ck_assert_uint_eq(port_get(0, STATUS, 2), BUTTON);
	ck_assert_uint_eq(port_get(0, BUSES, 4), 0x00050500);
	ck_assert(hm.line[port_line(0)].bound && hm.line[port_line(0)].data == 0x33);
	pci_port_get(&pci.place[0].port, &again);
	ck_assert_mem_eq(&again, &s, sizeof(s));
	port_put(0, STATUS, 2, BUTTON);
	ck_assert_int_eq(rig_plug(0), 0);
	ck_assert(told(0));
	port_put(0, CONTROL, 2, ENABLE);
	use(FIRST, BAR(40));
	works(FIRST, BAR(40));
	/* Whatever is in it, nothing can be set that a guest could not set. */
	teardown();
	setup();
	memset(&s, 0xff, sizeof(s));
	pci_port_set(&pci.place[0].port, &s);
	ck_assert_uint_eq(port_get(0, 0, 4), 0x000c1b36);
	ck_assert_uint_eq(port_get(0, COMMAND, 4), 0x00100406);
	ck_assert_uint_eq(port_get(0, STATUS, 2), ALL_EVENTS);
	ck_assert_uint_eq(port_get(0, LINK, 2), 0x11);
	ck_assert_uint_eq(port_get(0, MSI, 4), 0x00810005);
	ck_assert(!hm.line[port_line(0)].bound);
	ck_assert_uint_eq(conf(FIRST, 0), 0xffffffff);
	memset(&s, 0, sizeof(s));
	pci_port_set(&pci.place[0].port, &s);
	ck_assert_uint_eq(port_get(0, 0x54, 4), 0x000c0073);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci_place");
	TCase *cold = tcase_create("cold"), *tc = tcase_create("pci_place");
	SRunner *r;
	int failed;

	log_setup("", LOG_LVL_ERROR);
	tcase_add_checked_fixture(cold, setup_cold, teardown);
	tcase_add_test(cold, what_a_guest_finds);
	tcase_add_test(cold, comes_before_the_driver);
	tcase_add_test(cold, comes_and_nobody_looks);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, bits_that_can_be_written);
	tcase_add_test(tc, plugged);
	tcase_add_test(tc, bars_behind_a_port);
	tcase_add_test(tc, bus_numbers_lead_nowhere);
	tcase_add_test(tc, plugs_refused);
	tcase_add_test(tc, registers_of_the_host);
	tcase_add_test(tc, registers_of_the_host_refused);
	tcase_add_test(tc, no_power_no_master);
	tcase_add_test(tc, an_event_interrupts_once);
	tcase_add_test(tc, an_event_is_told_when_it_is_enabled);
	tcase_add_test(tc, an_interrupt_waits);
	tcase_add_test(tc, gone_at_once);
	tcase_add_test(tc, asked_and_let_go);
	tcase_add_test(tc, comes_while_the_last_one_goes);
	tcase_add_test(tc, power_makes_it_new);
	tcase_add_test(tc, places_do_not_mix);
	tcase_add_test(tc, it_cannot_be_taken_out);
	tcase_add_loop_test(tc, gone_while_it_is_called, 0, 2);
	tcase_add_test(tc, gone_while_it_is_used);
	tcase_add_test(tc, cannot_be_added);
	tcase_add_test(tc, saved_and_restored);
	suite_add_tcase(s, cold);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
