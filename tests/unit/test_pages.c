/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Device pages in a snapshot: a vhost-user device is part of it as long as no driver has it, on
 * both sides, and its next helper meets its back end for the first time.
 */
#include <check.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/vhost/vhost_page.h"
#include "supervisor/snapshot/pages.h"
#include "supervisor/snapshot/snapdir.h"
#include "supervisor/vm.h"

#define STATUS_OFF (DP_STATE_OFF + PORT_STATE_LEN)
#define SHADOW 0x55u

static struct vm vm;
static struct snapdir dir;
static struct err e;
static char top[64], path[80];

static int page_of(const struct device *d)
{
	return d->slot[d->desc.page_slot];
}

static void put(const struct device *d, const void *v, size_t len, size_t off)
{
	ck_assert_int_eq(pwrite(page_of(d), v, len, (off_t)off), (ssize_t)len);
}

static void new_page(struct device *d)
{
	d->slot[d->desc.page_slot] = shm_create("page", DP_SIZE, &e);
	ck_assert_int_ge(page_of(d), 0);
}

static void status(uint32_t v)
{
	put(&vm.device[1], &v, sizeof(v), STATUS_OFF);
}

/* A device of our own, which a driver has, and one whose back end has said what it is. */
static void setup(void)
{
	const struct port_state port = {.magic = PORT_STATE_MAGIC, .tag = VHOST_PAGE_TAG};
	const struct vhost_state met = {.known = 1, .features = 7, .config = {1, 2, 3}};
	const uint32_t ok = 0xf, seen = VIRTIO_CONFIG_S_ACKNOWLEDGE;
	const uint8_t shadow = SHADOW;

	vm = (struct vm){.ndevices = 2};
	vm.device[0].class = &device_rng;
	vm.device[1].class = &device_vhost;
	strcpy(vm.device[0].desc.name, "rng");
	strcpy(vm.device[1].desc.name, "fs0");
	for (unsigned i = 0; i < 2; i++) {
		new_page(&vm.device[i]);
		put(&vm.device[i], &port, sizeof(port), DP_STATE_OFF);
		put(&vm.device[i], i ? &seen : &ok, sizeof(ok), STATUS_OFF);
		put(&vm.device[i], &shadow, 1, 0);
	}
	put(&vm.device[1], &met, sizeof(met), VHOST_STATE_OFF);
	strcpy(top, "/tmp/insula-test-pages-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/s", top);
	snapdir_none(&dir);
	ck_assert_int_eq(snapdir_make(&dir, path, &e), 0);
}

static void teardown(void)
{
	for (unsigned i = 0; i < 2; i++)
		fd_close(&vm.device[i].slot[vm.device[i].desc.page_slot]);
	snapdir_close(&dir);
	ck_assert_int_eq(rmdir(top), 0);
}

static void write_all(void)
{
	ck_assert_msg(!pages_write(&vm, &dir, &e), "%s", e.text);
}

static int read_all(void)
{
	for (unsigned i = 0; i < 2; i++) {
		fd_close(&vm.device[i].slot[vm.device[i].desc.page_slot]);
		new_page(&vm.device[i]);
	}
	return pages_read(&vm, dir.file[SNAPDIR_DEVICES], &e);
}

START_TEST(comes_back)
{
	static const struct vhost_state none;
	struct vhost_state st;
	struct port_state port;
	uint32_t was = 0;
	uint8_t byte = 0;

	write_all();
	ck_assert_msg(!read_all(), "%s", e.text);
	ck_assert_int_eq(read_full(page_of(&vm.device[1]), &byte, 1, 0), 0);
	ck_assert_uint_eq(byte, SHADOW);
	ck_assert_int_eq(read_full(page_of(&vm.device[1]), &port, sizeof(port), DP_STATE_OFF), 0);
	ck_assert_uint_eq(port.tag, VHOST_PAGE_TAG);
	ck_assert_int_eq(read_full(page_of(&vm.device[1]), &was, sizeof(was), STATUS_OFF), 0);
	ck_assert_uint_eq(was, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	/* The next back end may be of another kind. */
	ck_assert_int_eq(read_full(page_of(&vm.device[1]), &st, sizeof(st), VHOST_STATE_OFF), 0);
	ck_assert(!memcmp(&st, &none, sizeof(st)));
	/* A device of our own keeps all of it. */
	ck_assert_int_eq(read_full(page_of(&vm.device[0]), &was, sizeof(was), STATUS_OFF), 0);
	ck_assert_uint_eq(was, 0xf);
}
END_TEST

/* 0: reset by its driver, or never seen. */
START_TEST(idle)
{
	const char *why = "";

	for (unsigned i = 0; i < 2; i++) {
		status(i ? VIRTIO_CONFIG_S_ACKNOWLEDGE : 0);
		ck_assert_int_eq(pages_unsaved(&vm.device[1], &why, &e), 0);
		ck_assert_ptr_null(why);
	}
	write_all();
}
END_TEST

/* Each bit but the first is a driver's. */
START_TEST(in_use)
{
	static const uint32_t bits[] = {VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_FEATURES_OK,
					VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
					VIRTIO_CONFIG_S_FAILED};
	const char *why;

	for (unsigned i = 0; i < ARRAY_LEN(bits); i++) {
		status(VIRTIO_CONFIG_S_ACKNOWLEDGE | bits[i]);
		why = NULL;
		ck_assert_int_eq(pages_unsaved(&vm.device[1], &why, &e), 0);
		ck_assert_ptr_nonnull(why);
		/* And when all rest. */
		ck_assert_int_eq(pages_write(&vm, &dir, &e), -EOPNOTSUPP);
		ck_assert_ptr_nonnull(strstr(e.text, "fs0: what its back end holds"));
	}
	ck_assert_int_eq(pages_unsaved(&vm.device[0], &why, &e), 0);
	ck_assert_ptr_null(why);
}
END_TEST

/* Another kind of device is never saved, whatever its page says. */
START_TEST(never)
{
	const char *why = NULL;

	vm.device[1].class = &device_vfio;
	ck_assert_int_eq(pages_unsaved(&vm.device[1], &why, &e), 0);
	ck_assert_ptr_nonnull(why);
}
END_TEST

/* A snapshot is another's input: one with a device that was in use is refused. */
START_TEST(hostile)
{
	struct device_class lax = device_vhost;

	lax.unsaved = NULL;
	vm.device[1].class = &lax;
	status(0xf);
	write_all();
	vm.device[1].class = &device_vhost;
	ck_assert_int_eq(read_all(), -EINVAL);
	ck_assert_msg(strstr(e.text, "fs0: what its back end holds") != NULL, "%s", e.text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pages");
	TCase *t = tcase_create("pages");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, comes_back);
	tcase_add_test(t, idle);
	tcase_add_test(t, in_use);
	tcase_add_test(t, never);
	tcase_add_test(t, hostile);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
