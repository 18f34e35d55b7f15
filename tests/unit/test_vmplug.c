/* SPDX-License-Identifier: BSD-2-Clause */
/* MSG_PLUG and MSG_UNPLUG as insula-vmm hears them (src/vmm/plug.h), and what it says. */
#include <check.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "vmm/plug.h"
#include "vmstate.h"

#define CONTROL (VS_PORT + 0x58)
#define NO_POWER 0x400u

static struct vmm *vm = &vs_vm;
static int far = -1; /* the supervisor's end of the channel */

/* Before Check has descriptors of its own. */
static void open_channel(void)
{
	int pair[2], near;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		panic("socketpair");
	far = fcntl(pair[0], F_DUPFD_CLOEXEC, 64);
	near = fcntl(pair[1], F_DUPFD_CLOEXEC, 64);
	close(pair[0]);
	close(pair[1]);
	if (far < 0 || near < 0 || dup2(near, MSG_CHANNEL_FD) != MSG_CHANNEL_FD)
		panic("the channel");
	close(near);
}

static void setup(void)
{
	vs_open();
	vs_poke(CONTROL, 0); /* the slot has power: what comes is there at once */
	vm->dev[VS_PLACE].ending = &vm->ending;
	vm->dev[VS_PLACE].wake_event = vm->main_event;
	(void)event_drain(vm->main_event);
}

static void teardown(void)
{
	vs_close();
}

/* The descriptors of a message are the receiver's. */
static unsigned a_disk(struct device_desc *d, int *fds)
{
	describe_virtio_pci(d, 31, 0, 2, 1);
	d->index = VS_PLACE;
	strcpy(d->name, "vdx");
	for (unsigned i = 0; i < d->nslots; i++)
		fds[i] = event_create();
	return d->nslots;
}

static void send_plug(const struct device_desc *d, int *fds, unsigned nfds)
{
	uint8_t body[sizeof(*d)];
	size_t len = device_pack(d, body);

	ck_assert(plug_message(vm, MSG_PLUG, body, len, fds, nfds));
}

static void send_unplug(uint32_t index, uint32_t now)
{
	struct msg_unplug m = {index, now};

	ck_assert(plug_message(vm, MSG_UNPLUG, &m, sizeof(m), NULL, 0));
}

static bool is_silent(void)
{
	return events_wait(NULL, 0, far, 0) == 0;
}

/* The one message that there is; `words`: NULL for no error. */
static void said(enum msg_type type, uint32_t index, int error, const char *words)
{
	struct msg_plugged m;
	struct err e;

	ck_assert(!is_silent());
	ck_assert_msg(!msg_expect(far, type, &m, sizeof(m), NULL, 0, &e), "%s", e.text);
	ck_assert_uint_eq(m.index, index);
	ck_assert_int_eq(m.error, error);
	ck_assert(memchr(m.text, 0, sizeof(m.text)));
	ck_assert_msg(words ? strstr(m.text, words) != NULL : !m.text[0], "\"%s\"", m.text);
	ck_assert(is_silent());
}

static void plug_one(void)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS];

	send_plug(&d, fds, a_disk(&d, fds));
	said(MSG_PLUGGED, VS_PLACE, 0, NULL);
}

static bool is_there(void)
{
	return !device_is_place(&vm->dev[VS_PLACE].desc);
}

START_TEST(plugged)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS];
	unsigned n;

	plug_one();
	ck_assert(is_there());
	n = a_disk(&d, fds);
	send_plug(&d, fds, n);
	said(MSG_PLUGGED, VS_PLACE, -EEXIST, "vdx: vdx is there");
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(fds[i], -1);
}
END_TEST

START_TEST(refused)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS];
	uint8_t body[sizeof(d)];
	size_t len;
	unsigned n;

	for (unsigned k = 0; k < 3; k++) {
		n = a_disk(&d, fds);
		d.index = k == 0 ? VS_PCI : k == 1 ? VS_DEVICES : UINT32_MAX;
		send_plug(&d, fds, n);
		said(MSG_PLUGGED, d.index, -EPROTO, "for no place");
		for (unsigned i = 0; i < n; i++)
			ck_assert_int_eq(fds[i], -1);
	}
	n = a_disk(&d, fds);
	len = device_pack(&d, body);
	ck_assert(plug_message(vm, MSG_PLUG, body, len - 1, fds, n));
	ck_assert(!is_silent() && fds[0] == -1 && !is_there());
	said(MSG_PLUGGED, VS_PLACE, -EPROTO, "does not fit");
	n = a_disk(&d, fds);
	d.pci.number = 30;
	send_plug(&d, fds, n);
	said(MSG_PLUGGED, VS_PLACE, -EINVAL, "vdx: expected a PCI function for port 31");
	/* Other messages, and other lengths of these, are somebody else's. */
	ck_assert(!plug_message(vm, MSG_DEV_UP, body, 4, NULL, 0));
	ck_assert(!plug_message(vm, MSG_UNPLUG, body, 4, NULL, 0));
	ck_assert(is_silent());
}
END_TEST

START_TEST(asked)
{
	plug_one();
	for (unsigned k = 0; k < 2; k++) { /* as often as somebody likes */
		send_unplug(VS_PLACE, 0);
		plug_report(vm);
		ck_assert(is_silent() && is_there());
	}
	ck_assert_uint_eq(vm->pci.place[0].port.config[0x58 / 4] >> 16 & 1, 1);
	vs_poke(CONTROL, NO_POWER);
	ck_assert(event_pending(vm->main_event));
	ck_assert(is_there()); /* until the main thread comes to it */
	plug_report(vm);
	said(MSG_UNPLUGGED, VS_PLACE, 0, NULL);
	ck_assert(!is_there());
	plug_report(vm);
	ck_assert(is_silent());
	/* One that has no power is given back at once. */
	plug_one();
	send_unplug(VS_PLACE, 0);
	said(MSG_UNPLUGGED, VS_PLACE, 0, NULL);
}
END_TEST

START_TEST(at_once)
{
	plug_one();
	send_unplug(VS_PLACE, 0);
	send_unplug(VS_PLACE, 1);
	said(MSG_UNPLUGGED, VS_PLACE, 0, NULL);
	ck_assert(!is_there());
	vs_poke(CONTROL, NO_POWER);
	plug_report(vm);
	ck_assert(is_silent());
	vs_poke(CONTROL, 0);
	/* What was asked of one is not asked of the next. */
	plug_one();
	vs_poke(CONTROL, NO_POWER);
	plug_report(vm);
	ck_assert(is_silent() && is_there());
	send_unplug(VS_PLACE, 1);
	said(MSG_UNPLUGGED, VS_PLACE, 0, NULL);
	for (uint32_t now = 0; now < 2; now++) {
		send_unplug(VS_PLACE, now);
		said(MSG_UNPLUGGED, VS_PLACE, 0, NULL); /* there is nothing */
		send_unplug(VS_PCI, now);
		said(MSG_UNPLUGGED, VS_PCI, -EPROTO, "no place");
	}
}
END_TEST

START_TEST(the_hypervisor_refuses)
{
	plug_one();
	vs_poke(BOARD_PCI_ECAM + BOARD_PCI_ECAM_SIZE + 0x10, (uint32_t)BOARD_PCI_PORT_MMIO);
	vs_poke(BOARD_PCI_ECAM + BOARD_PCI_ECAM_SIZE + 4, 2);
	hm.fail_at = hm.calls + 1;
	send_unplug(VS_PLACE, 1);
	said(MSG_UNPLUGGED, VS_PLACE, -ENOMEM, "it fails as told");
	ck_assert(is_there());
	send_unplug(VS_PLACE, 1);
	said(MSG_UNPLUGGED, VS_PLACE, 0, NULL);
}
END_TEST

/* What a device of the host needs later, from before: with a hypervisor that takes notice or
 * not. */
START_TEST(room)
{
	uint8_t *before;

	for (int fail = 0; fail >= -EOPNOTSUPP; fail -= EOPNOTSUPP) {
		struct err e;

		vs_hv.fail = fail;
		before = vm->room;
		ck_assert_int_eq(plug_make_room(vm, &e), 0);
		ck_assert(vm->room && vm->room != before);
		ck_assert_uint_eq((uintptr_t)vm->room % VMM_ROOM, 0);
	}
	vm->room = NULL;
	vs_hv.fail = 0;
}
END_TEST

int main(void)
{
	Suite *s;
	TCase *c;
	SRunner *r;
	int failed;

	open_channel();
	s = suite_create("vmplug");
	c = tcase_create("vmplug");
	r = srunner_create(s);

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, plugged);
	tcase_add_test(c, refused);
	tcase_add_test(c, asked);
	tcase_add_test(c, at_once);
	tcase_add_test(c, the_hypervisor_refuses);
	tcase_add_test(c, room);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
