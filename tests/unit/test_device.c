/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptions of devices (insula/device.h): the two real ones pass, and what contradicts itself is
 * refused in words; and the head of a start message. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/device.h>
#include <insula/devpage.h>
#include <insula/start.h>

#include "devices/describe.h"

#define BASE 0xd0000000ull
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
	d.nwindows = DEVICE_MAX_WINDOWS;
	d.ndoorbells = DEVICE_MAX_DOORBELLS;
	d.nvectors = DEVICE_MAX_VECTORS;
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
	d.version = DEVICE_VERSION + 1;
	refused(-EPROTO, "a description of version 2; expected 1");
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
	refused(-EINVAL, "1 to 6");
	d.nwindows = DEVICE_MAX_WINDOWS + 1;
	refused(-EINVAL, "1 to 6");
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

	w->space = DEVICE_PCI_CONFIG;
	refused(-EOPNOTSUPP, "there is no PCI yet");
	w->space = 4;
	refused(-EINVAL, "window 0: space 0x4");
	w->len = 0;
	refused(-EINVAL, "length 0x0");
	w->base = ~0ull << 12;
	refused(-EINVAL, "length 0x1000");
	w->space = DEVICE_PIO;
	refused(-EINVAL, "within the space");
	w->serve = DEVICE_DIRECT;
	refused(-EOPNOTSUPP, "foreign memory is not mapped yet");
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
	refused(-EOPNOTSUPP, "no message-signalled interrupts yet");
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
	head_refused(-EPROTO, "version 2; expected 1");
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
	tcase_add_test(tc, start_sorted);
	tcase_add_test(tc, start_refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
