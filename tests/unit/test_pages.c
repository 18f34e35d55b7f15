/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Device pages in a snapshot: a vhost-user device is part of it as long as no driver has it, on
 * both sides, and its next helper meets its back end for the first time; or with what its back end
 * holds, which the next one gets.
 */
#include <check.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/state.h>

#include "devices/vhost/vhost_page.h"
#include "supervisor/snapshot/held.h"
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
	held_free(&vm.device[1]);
	snapdir_close(&dir);
	ck_assert_int_eq(rmdir(top), 0);
}

static void write_all(void)
{
	ck_assert_msg(!pages_write(&vm, &dir, &e), "%s", e.text);
}

static int read_all(void)
{
	held_free(&vm.device[1]);
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

/* ---- what its back end holds ---- */

static void flags(uint32_t v)
{
	put(&vm.device[1], &v, sizeof(v), VHOST_STATE_OFF + offsetof(struct vhost_state, flags));
}

static uint8_t byte_of(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

/* A driver has it, and its helper has said so much. */
static void holds(size_t n)
{
	struct held *h;

	status(0xf);
	flags(VHOST_CAN_SAVE);
	ck_assert_int_eq(held_new(&vm.device[1], n + 1, &e), 0);
	h = vm.device[1].held;
	for (size_t i = 0; i < n; i++) {
		uint8_t b = byte_of(i);

		ck_assert_int_eq(shm_write(h->fd, &b, 1, i), 0);
	}
	h->len = n;
	h->whole = true;
}

static struct vhost_state state_there(void)
{
	struct vhost_state st;

	ck_assert_int_eq(read_full(page_of(&vm.device[1]), &st, sizeof(st), VHOST_STATE_OFF), 0);
	return st;
}

/* Up to the ends of its records, and past them. */
START_TEST(held_comes_back)
{
	static const size_t sizes[] = {1, 7, 65535, 65536, 65537, 200000};
	size_t n = sizes[_i];
	struct vhost_state st;
	const struct held *h;

	holds(n);
	ck_assert(held_any(&vm));
	write_all();
	ck_assert_msg(!read_all(), "%s", e.text);
	ck_assert(held_is_to_load(&vm.device[1]));
	h = vm.device[1].held;
	ck_assert_uint_eq(h->len, n);
	for (size_t i = 0; i < n; i++) {
		uint8_t b = 0;

		ck_assert_int_eq(shm_read(h->fd, &b, 1, i), 0);
		ck_assert_uint_eq(b, byte_of(i));
	}
	/* Its driver knows what it was. */
	st = state_there();
	ck_assert_uint_eq(st.known, 1);
	ck_assert_uint_eq(st.features, 7);
	ck_assert_uint_eq(st.flags, 0);
	/* A snapshot that is over does not forget what one goes on from. */
	held_saved(&vm);
	ck_assert_ptr_nonnull(vm.device[1].held);
}
END_TEST

START_TEST(nothing_is_held)
{
	holds(0);
	ck_assert(!held_any(&vm));
	write_all();
	ck_assert_msg(!read_all(), "%s", e.text);
	ck_assert_ptr_null(vm.device[1].held);
	ck_assert_uint_eq(state_there().known, 1);
	ck_assert_uint_eq(state_there().flags, 0);
}
END_TEST

/* The helper has not answered, or was not asked; a driver has come meanwhile. */
START_TEST(is_not_said)
{
	holds(10);
	vm.device[1].held->whole = false;
	ck_assert_int_eq(pages_write(&vm, &dir, &e), -EAGAIN);
	held_saved(&vm);
	ck_assert_ptr_null(vm.device[1].held);
	ck_assert_int_eq(pages_write(&vm, &dir, &e), -EAGAIN);
}
END_TEST

/* What the helper says of it: it may have been taken over. */
START_TEST(answers)
{
	struct msg_saved m = {.error = -EIO};

	memset(m.text, 'x', sizeof(m.text));
	holds(1);
	vm.device[1].held->whole = false;
	ck_assert_int_eq(held_came(&vm.device[1], &m, &e), -EIO);
	ck_assert_ptr_nonnull(strstr(e.text, "fs0: xxx"));
	m.error = 5;
	ck_assert_int_eq(held_came(&vm.device[1], &m, &e), -EIO);
	m.error = INT32_MIN;
	ck_assert_int_eq(held_came(&vm.device[1], &m, &e), -EIO);
	m.error = 0;
	m.len = VHOST_HELD_MAX + 1ull;
	ck_assert_int_eq(held_came(&vm.device[1], &m, &e), -EIO);
	ck_assert(!vm.device[1].held->whole);
	m.len = VHOST_HELD_MAX;
	ck_assert_int_eq(held_came(&vm.device[1], &m, &e), 0);
	ck_assert(vm.device[1].held->whole);
}
END_TEST

/* ---- another's input ---- */

static uint8_t *all;
static size_t all_len;

static void read_file(void)
{
	uint64_t size = 0;

	ck_assert_int_eq(file_size(dir.file[SNAPDIR_DEVICES], &size), 0);
	all = malloc((size_t)size);
	all_len = (size_t)size;
	ck_assert_int_eq(read_full(dir.file[SNAPDIR_DEVICES], all, all_len, 0), 0);
}

static int with(const void *p, size_t len)
{
	int fd = dir.file[SNAPDIR_DEVICES];

	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(pwrite(fd, p, len, 0), (ssize_t)len);
	return read_all();
}

/* The nth record, and its whole length. */
static size_t find(unsigned nth, size_t *len)
{
	struct state_head h;
	size_t at = 0;

	for (;; at += *len) {
		memcpy(&h, all + at, sizeof(h));
		*len = (size_t)state_size(&h);
		if (!nth--)
			return at;
	}
}

/* In place of the nth record, of the whole file but for it. */
static int instead(unsigned nth, uint32_t type, uint32_t index, const void *body, uint32_t len)
{
	size_t was, at = find(nth, &was);
	size_t room = all_len + len + 64;
	uint8_t *p = malloc(room);
	struct state_out o = {p, room, at};
	int rc;

	memcpy(p, all, at);
	ck_assert_int_eq(state_put(&o, type, 1, index, body, len), 0);
	memcpy(p + o.len, all + at + was, all_len - at - was);
	rc = with(p, o.len + all_len - at - was);
	free(p);
	return rc;
}

#define LENGTH (STATE_PAGES + 1)
#define PART (STATE_PAGES + 2)

START_TEST(hostile_held)
{
	static uint8_t long_part[70000];
	const uint64_t lengths[] = {0,         99999, 100001, VHOST_HELD_MAX, VHOST_HELD_MAX + 1ull,
				    UINT64_MAX};
	size_t len, at;

	holds(100000);
	write_all();
	read_file();
	ck_assert_msg(!with(all, all_len), "%s", e.text);
	/* It ends too early: in each record, and between two. */
	for (unsigned i = 1; i < 5; i++) {
		at = find(i, &len);
		for (int d = -9; d <= 25; d += 17) {
			if (at + (size_t)d >= all_len)
				continue;
			ck_assert_int_eq(with(all, at + (size_t)d), -EPROTO);
			ck_assert_ptr_null(vm.device[1].held);
		}
	}
	for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
		ck_assert_int_lt(instead(2, LENGTH, 1, &lengths[i], 8), 0);
		/* Nothing is kept of it but what could be used: nobody starts after this. */
		ck_assert(i == 0 || !vm.device[1].held);
	}
	/* Parts of another length, device, or kind. */
	ck_assert_int_eq(instead(3, PART, 1, long_part, 65535), -EPROTO);
	ck_assert_int_eq(instead(3, PART, 1, long_part, 65537), -EPROTO);
	ck_assert_int_eq(instead(3, PART, 1, long_part, sizeof(long_part)), -EPROTO);
	ck_assert_int_eq(instead(4, PART, 1, long_part, 0), -EPROTO);
	ck_assert_int_eq(instead(3, PART, 0, long_part, 65536), -EPROTO);
	ck_assert_int_eq(instead(3, LENGTH, 1, long_part, 65536), -EPROTO);
	ck_assert_int_eq(instead(2, PART, 1, long_part, 8), -EPROTO);
	ck_assert_int_eq(instead(2, LENGTH, 1, long_part, 16), -EPROTO);
	/* And as it was. */
	ck_assert_msg(!with(all, all_len), "%s", e.text);
	/* A head that says more than there is. */
	at = find(3, &len);
	memset(all + at + offsetof(struct state_head, size), 0xff, 4);
	ck_assert_int_eq(with(all, all_len), -EPROTO);
	free(all);
}
END_TEST

/* A snapshot is another's input: one with a device that was in use is refused. */
START_TEST(hostile)
{
	struct device_class lax = device_vhost;

	lax.unsaved = NULL;
	vm.device[1].class = &lax;
	holds(10);
	flags(0);
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
	tcase_add_loop_test(t, held_comes_back, 0, 6);
	tcase_add_test(t, nothing_is_held);
	tcase_add_test(t, is_not_said);
	tcase_add_test(t, answers);
	tcase_add_test(t, hostile_held);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
