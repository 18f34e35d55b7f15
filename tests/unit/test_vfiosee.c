/* SPDX-License-Identifier: BSD-2-Clause */
/* --vfio: what the supervisor makes of what an open device says of itself; where its BARs go. */
#include <check.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/backing/vfio.h"

static struct err e;

static void setup(void)
{
	log_setup("test_vfiosee", LOG_LVL_ERROR);
}

/* ---- places of BARs ---- */

#define MiB(n) ((uint64_t)(n) << 20)

START_TEST(places_of_bars)
{
	struct device_pci f = {.bar_size = {MiB(1) >> 6, 4096, MiB(32), 0, MiB(16) << 10, 0}};
	struct vfio_room room, before;

	vfio_room_set(&room, MiB(256));
	ck_assert_uint_eq(room.high, MiB(4096));
	ck_assert_uint_ge(room.end, 1ull << 32);
	ck_assert_uint_le(room.end, 1ull << 52);
	vfio_room_set(&room, MiB(5000));
	ck_assert_uint_eq(room.high, MiB(5000));
	room.end = 1ull << 39;
	before = room;
	ck_assert_msg(vfio_place(&f, 0x14, "x", &room, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(f.bar_at[0], 0xd8100000);
	ck_assert_uint_eq(f.bar_at[1], 0xd8104000);
	ck_assert_uint_eq(f.bar_at[2], MiB(5024)); /* a multiple of 32 MiB */
	ck_assert_uint_eq(f.bar_at[4], 1ull << 34);
	ck_assert_uint_eq(room.high, 1ull << 35);
	/* Of 32 bits it has to be below. */
	f = (struct device_pci){.bar_size = {MiB(32)}};
	room = before;
	ck_assert_int_eq(vfio_place(&f, 0, "x", &room, &e), 0);
	ck_assert_uint_eq(f.bar_at[0], 0xda000000);
	f = (struct device_pci){.bar_size = {MiB(32)}};
	ck_assert_int_eq(vfio_place(&f, 0, "x", &room, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--vfio x: no room for BAR 0 of 32 MiB below 4 GiB");
	/* A small one of 64 bits goes above when there is no room below. */
	room.low = 0xdc000000;
	f = (struct device_pci){.bar_size = {4096}};
	ck_assert_int_eq(vfio_place(&f, 1, "x", &room, &e), 0);
	ck_assert_uint_eq(f.bar_at[0], MiB(5000));
	f = (struct device_pci){.bar_size = {1ull << 39}};
	ck_assert_int_eq(vfio_place(&f, 1, "x", &room, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "in what the processor can address"));
}
END_TEST

/* ---- what a device says of itself ---- */

/* A device whose configuration space is a file, and which has MSI and no BAR. What it says there
 * may be what the one who had it before has made of it: an FPGA. */
static int device = -1;
static uint8_t space[256];

/* In the place of the C library's. */
int ioctl(int fd, unsigned long request, ...)
{
	struct vfio_region_info *r;
	struct vfio_irq_info *irq;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (fd != device || device < 0)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		((struct vfio_device_info *)arg)->flags =
			VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		r = arg;
		r->size = r->index == VFIO_PCI_CONFIG_REGION_INDEX ? sizeof(space) : 0;
		return 0;
	case VFIO_DEVICE_GET_IRQ_INFO:
		irq = arg;
		irq->flags = VFIO_IRQ_INFO_EVENTFD;
		irq->count = irq->index == VFIO_PCI_MSI_IRQ_INDEX;
		return 0;
	default:
		errno = ENOTTY;
		return -1;
	}
}

static struct vfio_back seen;

/* One capability, and where the next one is; 0: nowhere. `third`: its third byte. */
static void capability(uint8_t at, uint8_t kind, uint8_t next, uint8_t third)
{
	space[at] = kind;
	space[at + PCI_CAP_LIST_NEXT] = next;
	space[at + 2] = third;
}

static int see(void)
{
	static const struct vfio_config conf = {.address = "0000:01:00.0"};
	int rc;

	device = memfd_create("device", MFD_CLOEXEC);
	ck_assert(device >= 0 && write(device, space, sizeof(space)) == sizeof(space));
	seen = (struct vfio_back){.conf = &conf, .device = device};
	rc = vfio_see(&seen, &e);
	close(device);
	device = -1;
	return rc;
}

static void has_capabilities(void)
{
	memset(space, 0, sizeof(space));
	space[PCI_STATUS] = PCI_STATUS_CAP_LIST;
	space[PCI_CAPABILITY_LIST] = 0x40;
}

/* Lengths that cannot be: less than what says the length, over the end, more than there is room
 * for. Those that can be are taken. */
START_TEST(vendors_lengths)
{
	for (unsigned len = 0; len < 256; len++) {
		bool good = len > 2 && len <= DEVICE_MAX_CAPS;

		has_capabilities();
		capability(0x40, PCI_CAP_ID_VNDR, 0, (uint8_t)len);
		space[0x43] = 0x5a;
		ck_assert_msg(see() == 0, "%s", e.text);
		ck_assert_uint_eq(seen.seen.pci.caps_len, good ? (len + 3) & ~3u : 0);
		if (len > 3 && good)
			ck_assert_uint_eq(seen.seen.pci.caps[3], 0x5a);
	}
	has_capabilities();
	space[PCI_CAPABILITY_LIST] = 0xfc;
	capability(0xfc, PCI_CAP_ID_VNDR, 0, 8);
	ck_assert_int_eq(see(), 0);
	ck_assert_uint_eq(seen.seen.pci.caps_len, 0);
}
END_TEST

/* What is there once is seen once, and a chain that leads to itself has an end. */
START_TEST(twice_and_again)
{
	has_capabilities();
	capability(0x40, PCI_CAP_ID_PM, 0x48, 3);
	capability(0x48, PCI_CAP_ID_PM, 0x50, 3);
	capability(0x50, PCI_CAP_ID_EXP, 0x90, 2);
	capability(0x90, PCI_CAP_ID_EXP, 0x40, 2);
	ck_assert_msg(see() == 0, "%s", e.text);
	ck_assert_uint_eq(seen.seen.pci.caps_len, PCI_PM_SIZEOF + 0x3c);
	ck_assert_uint_eq(seen.start.power, 0x40);
	ck_assert_uint_eq(seen.start.express, 0x50);
	has_capabilities();
	capability(0x40, PCI_CAP_ID_VNDR, 0x40, 4);
	ck_assert_int_eq(see(), 0);
	ck_assert_uint_le(seen.seen.pci.caps_len, DEVICE_MAX_CAPS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfiosee");
	TCase *tc = tcase_create("vfiosee");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, places_of_bars);
	tcase_add_test(tc, vendors_lengths);
	tcase_add_test(tc, twice_and_again);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
