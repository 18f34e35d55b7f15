/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptions of devices (insula/device.h): the real ones pass, and what contradicts itself is
 * refused in words; and the head of a start message. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/device.h>
#include <insula/devpage.h>
#include <insula/start.h>

#include "devices/describe.h"
#include "devices/virtio/virtio_pci.h"

#define BASE 0xd0000000ull
#define PCI_BAR 0xd8000000ull
#define QUEUES 3

static struct device_desc d;
static struct err e;

static void setup(void)
{
	describe_virtio_mmio(&d, BASE, 5, QUEUES);
	strcpy(d.name, "vda");
	memset(&e, 0, sizeof(e));
}

static void refused(int code, const char *words)
{
	ck_assert_int_eq(device_check(&d, d.nslots, &e), code);
	ck_assert_int_eq(e.code, code);
	ck_assert_msg(strstr(e.text, words), "expected \"%s\", got \"%s\"", words, e.text);
	ck_assert_ptr_null(strchr(e.text, '\n'));
	setup();
}

START_TEST(real_ones_pass)
{
	unsigned answer = word_events();

	ck_assert_msg(device_check(&d, 3 + QUEUES + 1 + answer, &e) == 0, "%s", e.text);
	describe_16550(&d, 0x3f8, 4);
	ck_assert_msg(device_check(&d, 3 + answer, &e) == 0, "%s", e.text);
	describe_virtio_mmio(&d, BASE, 5, 17); /* the most that a device has */
	ck_assert_msg(device_check(&d, 3 + 17 + 1 + answer, &e) == 0, "%s", e.text);
	for (unsigned n = 1; n <= 17; n++) {
		describe_virtio_pci(&d, 1, PCI_BAR, 2, n);
		ck_assert_msg(device_check(&d, 2 + n + n + 1 + answer, &e) == 0, "%s", e.text);
	}
}
END_TEST

/* Registers in memory, a smaller window and one of ports behind them. */
START_TEST(several_windows_pass)
{
	d.window[0].serve = DEVICE_EXITS;
	d.window[0].len = 0x800;
	d.window[1] = d.window[0];
	d.window[1].base = BASE + 0x800;
	d.window[1].at = 0x800;
	d.window[1].len = 0x100;
	d.window[2] = d.window[1];
	d.window[2].space = DEVICE_PIO;
	d.window[2].base = 0xff00;
	d.window[2].at = 0x900;
	d.nwindows = 3;
	d.doorbell[0].space = DEVICE_PIO;
	d.doorbell[0].addr = 0xfffc;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
}
END_TEST

/* What is sent is what is used; and it comes back as it was. */
START_TEST(packed)
{
	uint8_t body[sizeof(d) + 1] = {0};
	struct device_desc back;
	size_t len = device_pack(&d, body);

	ck_assert_uint_eq(d.ndoorbells, QUEUES + 1); /* and the acknowledge */
	ck_assert_uint_eq(len, 80 + 80 + (QUEUES + 1) * 32 + 16);
	ck_assert_int_eq(device_unpack(&back, body, len), 0);
	ck_assert_mem_eq(&back, &d, sizeof(d));
	ck_assert_int_eq(device_unpack(&back, body, len - 1), -EPROTO);
	ck_assert_int_eq(device_unpack(&back, body, len + 1), -EPROTO);
	ck_assert_int_eq(device_unpack(&back, body, 79), -EPROTO);
	d.version = DEVICE_VERSION_PCI;
	d.nwindows = DEVICE_MAX_WINDOWS;
	d.ndoorbells = DEVICE_MAX_DOORBELLS;
	d.nvectors = DEVICE_MAX_VECTORS;
	memset(&d.pci, 6, sizeof(d.pci));
	memset(d.vector, 5, sizeof(d.vector));
	ck_assert_uint_eq(device_pack(&d, body), sizeof(d));
	ck_assert_int_eq(device_unpack(&back, body, sizeof(d)), 0);
	ck_assert_mem_eq(&back, &d, sizeof(d));
	for (size_t at = offsetof(struct device_desc, nwindows);
	     at <= offsetof(struct device_desc, nvectors); at += 4) {
		body[at]++; /* more than there can be */
		ck_assert_int_eq(device_unpack(&back, body, sizeof(d)), -EPROTO);
		ck_assert_int_eq(device_unpack(&back, body, sizeof(d) + 1), -EPROTO);
		body[at]--;
	}
}
END_TEST

START_TEST(heads_refused)
{
	d.version = DEVICE_VERSION_PLACE + 1;
	refused(-EPROTO, "a description of version 4; expected 1 to 3");
	d.version = 0;
	refused(-EPROTO, "a description of version 0; expected 1 to 3");
	ck_assert_int_eq(device_check(&d, d.nslots - 1, &e), -EINVAL);
	ck_assert_int_eq(device_check(&d, d.nslots + 1, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "as many as came along"));
	d.nslots = DEVICE_MAX_SLOTS + 1;
	refused(-EINVAL, "slots");
	memset(d.name, 'x', sizeof(d.name));
	refused(-EINVAL, "names that end");
	d.uid = 256;
	refused(-EINVAL, "uid 0x100");
	d.nwindows = 0;
	refused(-EINVAL, "1 to 14");
	d.nwindows = DEVICE_MAX_WINDOWS + 1;
	refused(-EINVAL, "1 to 14");
	d.ndoorbells = UINT32_MAX;
	refused(-EINVAL, "at most 24");
	d.nvectors = DEVICE_MAX_VECTORS + 1;
	refused(-EINVAL, "at most 24");
	d.page_slot = d.nslots;
	refused(-EINVAL, "slots of page");
	d.call_slot = d.page_slot;
	refused(-EINVAL, "slots of page");
	d.answer_slot = d.nslots;
	refused(-EINVAL, "slots of page");
	d.state_size = 4095;
	refused(-EINVAL, "state_size 0xfff");
	d.probe_at = DP_SHADOW_SIZE;
	refused(-EINVAL, "probe_at");
	d.probe_size = 3;
	refused(-EINVAL, "probe_at");
}
END_TEST

START_TEST(windows_refused)
{
	struct device_window *w = d.window;

	w->space = DEVICE_BAR;
	refused(-EINVAL, "window 0: space 0x8; expected 1 (ports) or 2 (memory)");
	w->space = DEVICE_CONFIG;
	refused(-EINVAL, "window 0: space 0x3; expected 1");
	w->space = 4;
	refused(-EINVAL, "window 0: space 0x4");
	w->len = 0;
	refused(-EINVAL, "length 0x0");
	w->base = ~0ull << 12;
	refused(-EINVAL, "length 0x1000");
	w->space = DEVICE_PIO;
	refused(-EINVAL, "within the space");
	w->serve = DEVICE_DIRECT;
	refused(-EINVAL, "base 0xd0000000; expected whole pages of a BAR");
	w->serve = DEVICE_CALLS;
	refused(-EINVAL, "serve 0x4; expected a PCI function");
	w->serve = 5;
	refused(-EINVAL, "serve 0x5; expected 1 to 4");
	w->serve = 0;
	refused(-EINVAL, "serve 0x0");
	w->at = 4;
	refused(-EINVAL, "place 0x4");
	w->at = UINT32_MAX;
	refused(-EINVAL, "place");
	w->base += 4;
	refused(-EINVAL, "one whole page");
	w->shift = 4;
	refused(-EINVAL, "shift 0x4");
	w->call_reads = 1;
	refused(-EINVAL, "reads do not exit");
	w->slot = 0;
	refused(-EINVAL, "only a direct window");
	w->serve = DEVICE_EXITS;
	w->len = 0x800;
	w[1] = w[0];
	w[1].at = 0x800;
	w[1].base += 0x7ff;
	d.nwindows = 2;
	refused(-EINVAL, "window 1: base 0xd00007ff; expected that it overlaps no other");
	w->serve = DEVICE_EXITS;
	w->len = 0x800;
	w[1] = w[0];
	w[1].at = 0x7ff;
	w[1].base += 0x1000;
	d.nwindows = 2;
	refused(-EINVAL, "window 1: place 0x7ff; expected that it overlaps no other");
}
END_TEST

START_TEST(doorbells_refused)
{
	struct device_doorbell *b = &d.doorbell[1];

	b->addr = BASE - 4;
	refused(-EINVAL, "doorbell 1: address 0xcffffffc; expected one in a window");
	b->addr = BASE + DP_SHADOW_SIZE - 2;
	refused(-EINVAL, "one in a window");
	b->addr = UINT64_MAX;
	refused(-EINVAL, "one in a window");
	b->space = DEVICE_PIO;
	refused(-EINVAL, "one in a window");
	b->size = 3;
	refused(-EINVAL, "size 0x3");
	b->size = 0; /* any, and one value */
	refused(-EINVAL, "size 0x0; expected 1, 2, 4 or 8, or in memory any");
	b->size = 0;
	b->match = 0;
	b->space = DEVICE_PIO;
	refused(-EINVAL, "size 0x0");
	b->size = b->match = 0;
	b->value = 0;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
	setup();
	b->value = 1ull << 32;
	refused(-EINVAL, "value 0x100000000");
	b->match = 2;
	refused(-EINVAL, "match 0 or 1");
	b->slot = d.nslots;
	refused(-EINVAL, "doorbell 1: slot");
	b->slot = d.page_slot;
	refused(-EINVAL, "doorbell 1: slot");
}
END_TEST

START_TEST(vectors_refused)
{
	struct device_vector *v = &d.vector[0];

	v->kind = DEVICE_MSI;
	refused(-EINVAL, "kind 0x2; expected 1 (a pin)");
	v->kind = 0;
	refused(-EINVAL, "vector 0: kind 0x0");
	v->ack_slot = 2;
	refused(-EOPNOTSUPP, "no level-triggered pins");
	v->slot = DEVICE_NO_SLOT;
	refused(-EINVAL, "vector 0: slot");
	v->slot = d.page_slot;
	refused(-EINVAL, "vector 0: slot");
}
END_TEST

/* ---- a PCI function ---- */

static void setup_pci(void)
{
	describe_virtio_pci(&d, 4, PCI_BAR, 1, QUEUES);
	strcpy(d.name, "eth0");
	memset(&e, 0, sizeof(e));
}

static void pci_refused(int code, const char *words)
{
	refused(code, words);
	setup_pci();
}

/* What it says: virtio 1.2, 4.1.2 to 4.1.4. */
START_TEST(pci_describes)
{
	static const uint8_t ids[] = {2, 1, 3, 4};
	static const uint32_t classes[] = {0x01800001, 0x02000001, 0x07800001, 0x00ff0001};
	static const struct {
		uint8_t type, len;
		uint32_t offset, length;
	} caps[] = {{1, 16, 0, 0x40},
		    {2, 20, 0x2000, QUEUES * 4},
		    {3, 16, 0x1000, 4},
		    {4, 16, 0x100, 0xef0}};
	const uint8_t *c;

	for (unsigned i = 0; i < 4; i++) {
		describe_virtio_pci(&d, 31, PCI_BAR + 0x4000, ids[i], 1);
		ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
		ck_assert_uint_eq(d.pci.vendor, 0x1af4);
		ck_assert_uint_eq(d.pci.device, 0x1040 + ids[i]);
		ck_assert_uint_ge(d.pci.subsystem, 0x40);
		ck_assert_uint_eq(d.pci.class_revision, classes[i]);
		ck_assert_uint_eq(d.pci.number, 31);
		ck_assert_uint_eq(d.pci.bar_at[0], PCI_BAR + 0x4000);
	}
	setup_pci();
	describe_virtio_id(&d, 26); /* it turned out to be something else */
	ck_assert_uint_eq(d.pci.device, 0x1040 + 26);
	ck_assert_uint_eq(d.pci.class_revision, 0x00ff0001);
	ck_assert_uint_eq(d.nvectors, QUEUES + 1);
	ck_assert_uint_eq(d.ndoorbells, QUEUES);
	for (unsigned i = 0; i < QUEUES; i++) {
		ck_assert_uint_eq(d.doorbell[i].addr, 0x2000 + 4 * i);
		ck_assert_uint_eq(d.doorbell[i].size, 0);
		ck_assert_uint_eq(d.doorbell[i].match, 0);
		/* Each event is one thing's. */
		for (unsigned k = 0; k < d.nvectors; k++)
			ck_assert_uint_ne(d.doorbell[i].slot, d.vector[k].slot);
	}
	c = d.pci.caps;
	for (unsigned i = 0; i < 4; c += caps[i++].len) {
		uint32_t at[2];

		memcpy(at, c + 8, sizeof(at));
		ck_assert_uint_eq(c[0], DEVICE_CAP_VENDOR);
		ck_assert_uint_eq(c[2], caps[i].len);
		ck_assert_uint_eq(c[3], caps[i].type);
		ck_assert_uint_eq(c[4], 0);
		ck_assert_uint_eq(at[0], caps[i].offset);
		ck_assert_uint_eq(at[1], caps[i].length);
		if (caps[i].type == 2)
			ck_assert_uint_eq(c[16], 4);
	}
	ck_assert_ptr_eq(c, d.pci.caps + d.pci.caps_len);
	/* On MMIO the page says it. */
	setup();
	describe_virtio_id(&d, 26);
	ck_assert_uint_eq(d.pci.device, 0);
}
END_TEST

START_TEST(bars_refused)
{
	struct device_pci *f = &d.pci;

	setup_pci();
	f->bar_size[0] = 0x3000;
	pci_refused(-EINVAL, "device 0 (eth0): BAR 0: size 0x3000; expected a power of two");
	f->bar_size[2] = 2048;
	pci_refused(-EINVAL, "BAR 2: size 0x800");
	f->bar_at[0] += 0x2000;
	pci_refused(-EINVAL, "BAR 0: address 0xd8002000; expected a multiple of its size");
	f->bar_at[5] = 0x1000;
	pci_refused(-EINVAL, "BAR 5: address 0x1000");
	f->bar_size[2] = 1ull << 36;
	f->bar_at[2] = 1ull << 40;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
	f->bar_at[2] = 1ull << 31;
	pci_refused(-EINVAL, "BAR 2: address 0x80000000; expected a multiple of its size");
	f->bar_size[2] = 1ull << 36;
	f->bar_at[2] = 1ull << 52;
	pci_refused(-EINVAL, "BAR 2: address 0x10000000000000; expected a place that has room");
	f->bar_size[2] = 1ull << 63;
	pci_refused(-EINVAL, "a place that has room");
	f->bar_size[2] = 1ull << 32;
	f->bar_at[2] = 1ull << 32;
	f->bar_size[3] = 4096;
	pci_refused(-EINVAL, "BAR 2: address 0x100000000; expected below 4 GiB, or no BAR behind");
	f->bar_size[5] = f->bar_at[5] = 1ull << 32;
	pci_refused(-EINVAL, "BAR 5: address 0x100000000; expected below 4 GiB");
	f->number = 0;
	pci_refused(-EINVAL, "function 0: number 0x0; expected 1 to 31");
	f->number = 32;
	pci_refused(-EINVAL, "function 32: number 0x20");
	strcpy(d.hid, "LNRO0005");
	pci_refused(-EINVAL, "no name in the ACPI tables");
	d.nvectors = 0;
	pci_refused(-EINVAL, "vectors 0x0; expected some");
	f->bar_size[0] = 0;
	f->bar_at[0] = 0;
	pci_refused(-EINVAL, "function 4: table 0x3000; expected a BAR with room");
}
END_TEST

START_TEST(msix_refused)
{
	struct device_pci *f = &d.pci;

	setup_pci();
	f->msix_bar = DEVICE_BARS;
	pci_refused(-EINVAL, "a BAR with room for the table");
	f->msix_bar = 1;
	pci_refused(-EINVAL, "a BAR with room for the table");
	f->msix_table += 4;
	pci_refused(-EINVAL, "table 0x3004");
	f->msix_pba += 4;
	pci_refused(-EINVAL, "a BAR with room for the table");
	f->msix_pba = f->msix_table + 16 * (QUEUES + 1) - 8;
	pci_refused(-EINVAL, "the pending bits behind it");
	f->msix_pba = VPCI_BAR_SIZE;
	pci_refused(-EINVAL, "a BAR with room for the table");
	f->msix_table = UINT32_MAX - 7;
	pci_refused(-EINVAL, "a BAR with room for the table");
	f->msix_pba = UINT32_MAX - 7;
	pci_refused(-EINVAL, "a BAR with room for the table");
	f->msix_table = 0x2800; /* beside the doorbells */
	pci_refused(-EINVAL, "table 0x2800; expected pages without a window");
}
END_TEST

START_TEST(msi_refused)
{
	struct device_pci *f = &d.pci;

	setup_pci();
	f->msi = 1;
	pci_refused(-EINVAL, "msi 0x1; expected 0, or 1 and one vector");
	f->msi = 2;
	d.nvectors = 1;
	pci_refused(-EINVAL, "msi 0x2; expected 0, or 1 and one vector");
	f->msi = d.nvectors = 1;
	pci_refused(-EINVAL, "table 0x3000; expected none beside MSI");
	setup_pci();
	f->msi = d.nvectors = 1;
	f->msix_table = f->msix_pba = 0;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
}
END_TEST

/* What the hypervisor knows it by is nothing else. */
START_TEST(host_slot_refused)
{
	setup_pci();
	d.pci.host_slot = d.nslots;
	pci_refused(-EINVAL, "expected the place of a descriptor");
	d.pci.host_slot = d.vector[0].slot;
	pci_refused(-EINVAL, "vector 0: slot");
	d.pci.host_slot = d.call_slot;
	pci_refused(-EINVAL, "slots of page, call and answer");
	d.pci.host_slot = d.nslots++;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
}
END_TEST

START_TEST(capabilities_refused)
{
	struct device_pci *f = &d.pci;

	setup_pci();
	f->caps[0] = 0x11;
	pci_refused(-EINVAL, "capabilities 0x44; expected those of power, vendor or Express");
	f->caps[1] = 0;
	pci_refused(-EINVAL, "capabilities");
	f->caps[1] = 15;
	pci_refused(-EINVAL, "capabilities");
	f->caps[16 + 1] = 24; /* not where the next one begins */
	pci_refused(-EINVAL, "capabilities");
	f->caps_len -= 4;
	pci_refused(-EINVAL, "capabilities 0x40");
	f->caps_len += 4;
	pci_refused(-EINVAL, "capabilities 0x48");
	f->caps_len = DEVICE_MAX_CAPS + 4;
	pci_refused(-EINVAL, "capabilities 0x84");
	f->can[3].bits = 1; /* the kind of the first one */
	pci_refused(-EINVAL, "bits 0x1; expected none where a capability begins");
	f->can[0].bits = 1;
	f->can[0].at = 16;
	pci_refused(-EINVAL, "none where a capability begins");
	f->can[0].bits = 1;
	f->can[0].at = 6;
	pci_refused(-EINVAL, "bits 0x6; expected a place in the capabilities");
	f->can[0].bits = 1;
	f->can[0].at = f->caps_len;
	pci_refused(-EINVAL, "a place in the capabilities");
	f->can[0].bits = ~0u;
	f->can[0].at = 4;
	f->caps[0] = DEVICE_CAP_EXPRESS;
	f->caps[16] = DEVICE_CAP_POWER;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
	setup_pci();
	f->caps_len = 0;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
}
END_TEST

START_TEST(pci_parts_refused)
{
	struct device_window *w = d.window;
	struct device_vector *v = d.vector;

	setup_pci();
	w[0].space = DEVICE_MMIO;
	pci_refused(-EINVAL, "window 0: space 0x2; expected 8 to 13 (a BAR) or 3 (configuration)");
	w[1].space = DEVICE_BAR + DEVICE_BARS;
	pci_refused(-EINVAL, "window 1: space 0xe");
	w[1].space = DEVICE_BAR + 1; /* there is none */
	pci_refused(-EINVAL, "window 1: length 0x4; expected some, within the space");
	w[1].base = VPCI_BAR_SIZE - 2;
	pci_refused(-EINVAL, "table 0x3000; expected pages without a window");
	w[1].base = VPCI_BAR_SIZE;
	pci_refused(-EINVAL, "window 1: length 0x4");
	w[1].base = 0xffc;
	pci_refused(-EINVAL, "window 1: base 0xffc; expected that it overlaps no other");
	w[1].at = w[2].at; /* two that exit */
	pci_refused(-EINVAL, "window 2: place 0x80; expected that it overlaps no other");
	v[1].kind = DEVICE_PIN;
	pci_refused(-EINVAL, "vector 1: kind 0x1; expected 2 (a message)");
	v[2].number = 1;
	pci_refused(-EINVAL, "vector 2: number 0x1; expected the entry of its place");
	d.doorbell[0].space = DEVICE_MMIO;
	pci_refused(-EINVAL, "doorbell 0: address 0x2000; expected one in a window");
}
END_TEST

/* ---- a place ---- */

static void setup_place(void)
{
	d = (struct device_desc){.version = DEVICE_VERSION_PLACE,
				 .index = 7,
				 .name = "slot1",
				 .nslots = 1,
				 .call_slot = DEVICE_NO_SLOT,
				 .answer_slot = DEVICE_NO_SLOT,
				 .state_size = DP_STATE_SIZE,
				 .pci = {.number = 31}};
	memset(&e, 0, sizeof(e));
}

static void place_refused(const char *words)
{
	refused(-EINVAL, words);
	setup_place();
}

START_TEST(places)
{
	uint8_t body[sizeof(d)];
	struct device_desc back;
	size_t len;

	setup_place();
	for (d.pci.number = 24; d.pci.number < 32; d.pci.number++)
		ck_assert_msg(device_check(&d, 1, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(BOARD_PORT_NUMBER(0, BOARD_MAX_PLACES), 24);
	ck_assert_uint_eq(BOARD_PORT_NUMBER(0, 1), 31);
	ck_assert_uint_eq(BOARD_PORT_NUMBER(1, 3), 30);
	setup_place();
	ck_assert(device_is_place(&d) && !device_is_pci(&d));
	len = device_pack(&d, body);
	ck_assert_uint_eq(len, 80 + sizeof(d.pci));
	ck_assert_int_eq(device_unpack(&back, body, len), 0);
	ck_assert_mem_eq(&back, &d, sizeof(d));
	ck_assert_int_eq(device_unpack(&back, body, len - sizeof(d.pci)), -EPROTO);
}
END_TEST

START_TEST(places_refused)
{
	setup_place();
	d.pci.number = 23;
	place_refused("device 7 (slot1): port 23: number 0x17; expected 24 to 31");
	d.pci.number = 32;
	place_refused("port 32: number 0x20");
	memset(d.name, 'x', sizeof(d.name));
	place_refused("a name that ends");
	ck_assert_int_eq(device_check(&d, 0, &e), -EINVAL);
	ck_assert_int_eq(device_check(&d, 2, &e), -EINVAL);
	d.nslots = 2;
	place_refused("slots 0x2; expected its page alone");
	d.page_slot = 1;
	place_refused("its page alone");
	d.call_slot = 0;
	place_refused("its page alone");
	d.answer_slot = 0;
	place_refused("its page alone");
	d.state_size += 4096;
	place_refused("state_size 0x1e000");
	d.nwindows = 1;
	place_refused("windows 0x1; expected no part of a device");
	d.ndoorbells = 1;
	place_refused("no part of a device");
	d.nvectors = 1;
	place_refused("no part of a device");
	d.hid[0] = 'X';
	place_refused("no part of a device");
	d.uid = 1;
	place_refused("no part of a device");
	d.probe_size = 1;
	place_refused("no part of a device");
	d.pci.bar_size[0] = 4096;
	place_refused("no part of a device");
	d.pci.caps[DEVICE_MAX_CAPS - 1] = 1;
	place_refused("no part of a device");
}
END_TEST

/* With a BAR of a device of the host, and two registers of which its helper hears. */
static void setup_assigned(void)
{
	setup_pci();
	d.pci.bar_size[2] = 0x10000;
	d.window[d.nwindows] = (struct device_window){.len = 0x4000,
						      .space = DEVICE_BAR + 2,
						      .serve = DEVICE_DIRECT,
						      .offset = 2ull << 40,
						      .slot = d.nslots++};
	d.window[d.nwindows + 1] = (struct device_window){.base = 0x4000,
							  .len = 0x1234,
							  .space = DEVICE_BAR + 2,
							  .serve = DEVICE_CALLS,
							  .at = 0x4000,
							  .slot = DEVICE_NO_SLOT};
	d.window[d.nwindows + 2] = (struct device_window){.base = 4,
							  .len = 4,
							  .space = DEVICE_CONFIG,
							  .serve = DEVICE_CALLS,
							  .slot = DEVICE_NO_SLOT};
	d.nwindows += 3;
}

static void assigned_refused(const char *words)
{
	pci_refused(-EINVAL, words);
	setup_assigned();
}

START_TEST(assigned_parts)
{
	struct device_window *direct, *calls, *config;

	setup_assigned();
	config = &d.window[d.nwindows - 1];
	calls = config - 1;
	direct = config - 2;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
	direct->base = 0x800;
	assigned_refused("base 0x800; expected whole pages of a BAR");
	direct->len = 0x800;
	assigned_refused("whole pages of a BAR");
	direct->offset = 0x800;
	assigned_refused("offset 0x800; expected a multiple of 4096");
	direct->offset = INT64_MAX - 0xfff;
	assigned_refused("offset 0x7ffffffffffff000");
	direct->slot = d.nslots;
	assigned_refused("expected the place of a descriptor");
	direct->slot = d.page_slot;
	assigned_refused("expected the place of a descriptor");
	direct->slot = d.vector[0].slot; /* it is memory then */
	assigned_refused("vector 0: slot 0x2; expected the place of a descriptor");
	direct->slot = d.call_slot;
	assigned_refused("slots of page, call and answer");
	direct->len = 0x5000;
	assigned_refused("base 0x4000; expected that it overlaps no other");
	direct->space = DEVICE_CONFIG;
	direct->len = 256;
	assigned_refused("serve 0x3; expected 4 in configuration space");
	calls->at = UINT32_MAX - 0x1000;
	assigned_refused("place 0xffffefff; expected that it ends within 32 bits");
	calls->len = 0x10000;
	assigned_refused("length 0x10000; expected some, within the space");
	config->base = 2;
	assigned_refused("base 0x2; expected whole registers of four bytes");
	config->len = 2;
	assigned_refused("whole registers");
	config->base = 256;
	assigned_refused("length 0x4; expected some, within the space");
	config->serve = DEVICE_EXITS;
	assigned_refused("serve 0x1; expected 4 in configuration space");
	/* Beside the MSI-X table: registers that exit may share its page, memory may not. */
	*calls = (struct device_window){.base = VPCI_MSIX_TABLE + 0x100,
					.len = 0x400,
					.space = DEVICE_BAR,
					.serve = DEVICE_CALLS,
					.slot = DEVICE_NO_SLOT};
	ck_assert_msg(device_check(&d, d.nslots, &e) == -EINVAL, "it is on the table");
	calls->base = VPCI_MSIX_PBA + 8;
	ck_assert_msg(device_check(&d, d.nslots, &e) == 0, "%s", e.text);
	direct->space = DEVICE_BAR;
	direct->base = VPCI_MSIX_TABLE;
	direct->len = 0x1000;
	assigned_refused("pages without a window");
}
END_TEST

/* ---- the head of a start message (insula/start.h) ---- */

#define TAG START_TAG('t', 's', 't', '1')

static const int fds[] = {10, 11, 12, 13};
static struct start_head head;
static struct start_fds sorted;

static void set_head(void)
{
	head = (struct start_head){
		.version = START_VERSION,
		.tag = TAG,
		.nslots = 4,
		.slot = {START_KICK, START_MEMORY, START_OWN, START_KICK},
		.mem = {.nregions = 1, .region = {{.gpa = 0, .size = 1 << 20}}},
	};
	memset(&e, 0, sizeof(e));
}

static void head_refused(int code, const char *words)
{
	ck_assert_int_eq(start_sort(&head, TAG, fds, 4, &sorted, &e), code);
	ck_assert_msg(strstr(e.text, words), "expected \"%s\", got \"%s\"", words, e.text);
	set_head();
}

/* Descriptors are told apart by their roles, wherever they are. */
START_TEST(start_sorted)
{
	set_head();
	ck_assert_msg(start_sort(&head, TAG, fds, 4, &sorted, &e) == 0, "%s", e.text);
	ck_assert_int_eq(start_expect(&sorted, START_KICK, 2, &e), 0);
	ck_assert_int_eq(sorted.fd[START_KICK][0], 10);
	ck_assert_int_eq(sorted.fd[START_KICK][1], 13);
	ck_assert_int_eq(sorted.fd[START_MEMORY][0], 11);
	ck_assert_int_eq(sorted.fd[START_OWN][0], 12);
	ck_assert_int_eq(start_expect(&sorted, START_PAGE, 0, &e), 0);
	ck_assert_int_eq(start_expect(&sorted, START_PAGE, 1, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "\"device page\": 0; expected 1"));
}
END_TEST

START_TEST(start_refused)
{
	set_head();
	head.version = START_VERSION + 1;
	head_refused(-EPROTO, "version 3; expected 2");
	head.tag++;
	head_refused(-EPROTO, "start message for program");
	head.log_level = 99;
	head_refused(-EINVAL, "log level 99");
	head.nslots = 3;
	head_refused(-EINVAL, "3 slots; expected 4");
	head.nslots = UINT32_MAX;
	head_refused(-EINVAL, "slots; expected 4");
	head.slot[2] = 0;
	head_refused(-EINVAL, "slot 2: role 0");
	head.slot[3] = START_ROLES;
	head_refused(-EINVAL, "slot 3: role");
	head.slot[1] = START_OWN; /* a region without its descriptor */
	head_refused(-EINVAL, "region 0: descriptor 0x0");
	head.mem.region[0].size = 1;
	head_refused(-EINVAL, "memory map: region 0: size");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("device");
	TCase *tc = tcase_create("device");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, real_ones_pass);
	tcase_add_test(tc, several_windows_pass);
	tcase_add_test(tc, packed);
	tcase_add_test(tc, heads_refused);
	tcase_add_test(tc, windows_refused);
	tcase_add_test(tc, doorbells_refused);
	tcase_add_test(tc, vectors_refused);
	tcase_add_test(tc, pci_describes);
	tcase_add_test(tc, bars_refused);
	tcase_add_test(tc, msix_refused);
	tcase_add_test(tc, msi_refused);
	tcase_add_test(tc, host_slot_refused);
	tcase_add_test(tc, capabilities_refused);
	tcase_add_test(tc, pci_parts_refused);
	tcase_add_test(tc, places);
	tcase_add_test(tc, places_refused);
	tcase_add_test(tc, assigned_parts);
	tcase_add_test(tc, start_sorted);
	tcase_add_test(tc, start_refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
