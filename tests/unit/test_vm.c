/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a VM makes of its children: the real policy (child.c, vm_children.c, recover.c) with a table
 * of processes that are none (fakechild.h).
 */
#include <check.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/guestproto.h>
#include <insula/log.h>

#include "devices/describe.h"
#include "devices/virtio/virtio_pci.h"
#include "fakevm.h"
#include "supervisor/recover.h"

/* ---- a VM ---- */

static void setup(void)
{
	fakevm_make("test_vm");
	fakevm_start();
}

static void teardown(void)
{
	config_free(&conf);
}

static void run(void)
{
	says(&vm.vmm, MSG_READY, NULL, 0);
	ck_assert(!vm.running);
	says(&rng->child, MSG_READY, NULL, 0);
	ck_assert(vm.running);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_GO), 1);
}

/* It was killed, and its death is answered by another one. */
static void replaced(void)
{
	unsigned deaths = rng->restart.total, before = fake_of(&rng->child)->spawned;

	ck_assert(fake_of(&rng->child)->shot);
	child_died(&rng->child);
	ck_assert(!vm.ended);
	ck_assert_uint_eq(rng->restart.total, deaths + 1);
	vm_restart_due(&vm);
	ck_assert_uint_eq(fake_of(&rng->child)->spawned, before + 1);
	fake_of(&rng->child)->unfit = false;
	says(&rng->child, MSG_READY, NULL, 0);
	ck_assert_int_eq(rng->child.state, CHILD_READY);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_DEV_UP), 1);
}

static void ended(int status, const char *why)
{
	ck_assert(vm.ended);
	ck_assert_int_eq(vm.end.status, status);
	ck_assert_str_eq(vm.end.why, why);
}

START_TEST(death_while_starting)
{
	says(&vm.vmm, MSG_READY, NULL, 0);
	child_died(&rng->child);
	ended(RUN_FAILED, "insula-rng rng exited with status 1 before the guest ran");
}
END_TEST

START_TEST(failure_while_starting)
{
	struct msg_failed f = {.step = "start", .text = "no luck"};

	f.bad_input = _i == 1;
	says(&rng->child, MSG_FAILED, &f, sizeof(f));
	ended(_i ? RUN_BAD_INPUT : RUN_FAILED, _i ? "no luck" : "insula-rng rng: start: no luck");
	child_died(&rng->child); /* its consequence */
	ended(_i ? RUN_BAD_INPUT : RUN_FAILED, _i ? "no luck" : "insula-rng rng: start: no luck");
}
END_TEST

START_TEST(not_in_its_jail)
{
	fake_of(&rng->child)->unfit = true;
	says(&rng->child, MSG_READY, NULL, 0);
	ended(RUN_FAILED, "insula-rng rng: not in its jail: no filter");
	ck_assert_int_eq(rng->child.state, CHILD_STARTING);
	ck_assert(fake_of(&rng->child)->shot);
}
END_TEST

static void lost(struct vm *v, uint32_t id, const struct msg_exec_exit *x)
{
	(void)v;
	(void)id;
	ck_assert_uint_eq(x->end, EXEC_LOST);
}

/* A command's process, too; while the guest runs that is its client's affair. */
START_TEST(command_not_in_its_jail)
{
	struct child *c = &vm.exec[0];

	vm.execs.place[0].id = 1;
	vm.execs.place[0].done = lost;
	child_name(c, "insula-exec", "");
	fake_spawn(c);
	fake_of(c)->unfit = true;
	if (_i)
		run();
	says(c, MSG_READY, NULL, 0);
	ck_assert(fake_of(c)->shot);
	ck_assert(vm.execs.place[0].ended);
	if (_i)
		ck_assert(!vm.ended);
	else
		ended(RUN_FAILED, "insula-exec: not in its jail: no filter");
}
END_TEST

/* While the guest runs it is one helper's affair. */
START_TEST(not_in_its_jail_later)
{
	run();
	child_shoot(&rng->child);
	child_died(&rng->child);
	vm_restart_due(&vm);
	fake_of(&rng->child)->unfit = true;
	says(&rng->child, MSG_READY, NULL, 0);
	ck_assert_int_eq(rng->child.state, CHILD_STARTING);
	rng->restart.next_ns = 1; /* no pause */
	ck_assert(fake_of(&rng->child)->shot);
	child_died(&rng->child);
	ck_assert(!vm.ended);
	rng->restart.next_ns = 1;
	vm_restart_due(&vm);
	fake_of(&rng->child)->unfit = false;
	says(&rng->child, MSG_READY, NULL, 0);
	ck_assert_int_eq(rng->child.state, CHILD_READY);
}
END_TEST

/* Whoever is not verified has nothing to say but that it is ready. */
START_TEST(asks_too_early)
{
	static const enum msg_type what[] = {MSG_VSOCK_CONNECT, MSG_QUIT, MSG_STOPPED, MSG_VM_EXIT};
	struct child *c = _i == 3 ? &vm.vmm : &rng->child;
	uint8_t body[sizeof(struct msg_vm_exit)] = {0};

	says(c, what[_i], body, _i == 3 ? sizeof(body) : 8);
	ck_assert(fake_of(c)->shot);
	ck_assert(!vm.have_exit);
	says(c, MSG_READY, NULL, 0);
	ck_assert_int_eq(c->state, CHILD_STARTING); /* it is not heard any more */
}
END_TEST

START_TEST(stopped_unasked)
{
	struct msg_stats s = {.n = {7}};

	run();
	says(&rng->child, MSG_STOPPED, &s, sizeof(s));
	ck_assert_uint_eq(rng->stats.n[0], 0);
	replaced();
}
END_TEST

/* Each question has one answer; what a helper had said when it died stays counted. */
START_TEST(counts)
{
	struct msg_stats s = {.n = {7}}, got;

	run();
	device_count(rng, &got);
	ck_assert_uint_eq(got.n[0], 0);
	device_count(rng, &got);
	ck_assert_uint_eq(sent(&rng->child, MSG_COUNT), 1);
	says(&rng->child, MSG_COUNTED, &s, sizeof(s));
	device_count(rng, &got);
	ck_assert_uint_eq(got.n[0], 7);
	ck_assert_uint_eq(sent(&rng->child, MSG_COUNT), 2);
	child_shoot(&rng->child);
	child_died(&rng->child);
	device_count(rng, &got);
	ck_assert_uint_eq(got.n[0], 7);
	ck_assert_uint_eq(rng->stats.n[0], 0); /* of those that stopped in order alone */
}
END_TEST

/* In the order of their ends: what it says last is all that it has counted. */
START_TEST(counts_once)
{
	struct msg_stats s = {.n = {7}}, last = {.n = {9}}, got;

	run();
	device_count(rng, &got);
	says(&rng->child, MSG_COUNTED, &s, sizeof(s));
	vm_end(&vm, 0, "%s", "");
	restart_stop(&rng->restart);
	ck_assert(child_stop(&rng->child));
	queue(&rng->child, MSG_STOPPED, &last, sizeof(last));
	child_died(&rng->child);
	device_count(rng, &got);
	ck_assert_uint_eq(got.n[0], 9);
	ck_assert_uint_eq(rng->stats.n[0], 9);
	ended(0, "");
}
END_TEST

START_TEST(counted_unasked)
{
	struct msg_stats s = {.n = {7}}, got;

	run();
	if (_i)
		device_count(rng, &got);
	says(&rng->child, MSG_COUNTED, &s, _i ? 8 : sizeof(s));
	device_count(rng, &got);
	ck_assert_uint_eq(got.n[0], 0);
	replaced();
}
END_TEST

START_TEST(failed_too_late)
{
	struct msg_failed f = {.step = "start", .text = "no luck"};

	run();
	says(&rng->child, MSG_FAILED, &f, sizeof(f));
	replaced();
}
END_TEST

/* A failure is said once: what follows it fills no log. */
START_TEST(failed_again)
{
	struct msg_failed f = {.step = "start", .text = "no luck"};
	struct fake *k = fake_of(&rng->child);

	run();
	child_shoot(&rng->child);
	child_died(&rng->child);
	rng->restart.next_ns = 1; /* no pause */
	vm_restart_due(&vm);
	ck_assert_int_eq(rng->child.state, CHILD_STARTING);
	says(&rng->child, MSG_FAILED, &f, sizeof(f));
	says(&rng->child, MSG_FAILED, &f, sizeof(f));
	ck_assert_uint_eq(k->heard, 1);
	ck_assert(!k->shot); /* it ends by itself, with its status */
	child_died(&rng->child);
	ck_assert_uint_eq(k->heard, 1);
	ck_assert(!vm.ended);
}
END_TEST

START_TEST(breaks_the_protocol)
{
	struct msg_vm_exit x = {.reason = VM_EXIT_POWEROFF};

	run();
	switch (_i) {
	case 0: /* a message of somebody else's */
		queue(&rng->child, MSG_VM_EXIT, &x, sizeof(x));
		break;
	case 1: /* twice ready */
		queue(&rng->child, MSG_READY, NULL, 0);
		break;
	default: /* of another length */
		queue(&rng->child, MSG_FAILED, &x, 3);
		break;
	}
	/* What follows it is not heard, even after its death. */
	queue(&rng->child, MSG_READY, NULL, 0);
	child_hear(&rng->child);
	child_hear(&rng->child);
	ck_assert_uint_eq(fake_of(&rng->child)->heard, 2); /* with the first MSG_READY */
	ck_assert(!vm.have_exit);
	replaced();
}
END_TEST

START_TEST(death_while_stopping)
{
	struct msg_stats s = {.n = {7}};

	run();
	vm_end(&vm, 0, "%s", "");
	restart_stop(&rng->restart);
	ck_assert(child_stop(&rng->child));
	ck_assert_uint_eq(sent(&rng->child, MSG_STOP), 1);
	if (_i)
		queue(&rng->child, MSG_STOPPED, &s, sizeof(s)); /* said before it died */
	child_died(&rng->child);
	ck_assert_uint_eq(rng->stats.n[0], _i ? 7 : 0);
	ck_assert(!child_stop(&rng->child));
	vm_restart_due(&vm);
	ck_assert_uint_eq(fake_of(&rng->child)->spawned, 1);
	ended(0, "");
}
END_TEST

START_TEST(last_words_count)
{
	struct msg_vm_exit x = {.reason = VM_EXIT_STATUS, .status = 42};

	run();
	queue(&vm.vmm, MSG_VM_EXIT, &x, sizeof(x));
	child_died(&vm.vmm);
	ck_assert(vm.have_exit);
	ended(42, "");
	ck_assert_ptr_null(vm.reason);
}
END_TEST

START_TEST(vmm_dies)
{
	run();
	child_died(&vm.vmm);
	ended(RUN_FAILED, "insula-vmm exited with status 1");
	ck_assert_str_eq(vm.reason, "vmm-died");
}
END_TEST

/* After so many deaths in a row insula-vmm is told, once, and it is tried on. */
START_TEST(fails_too_often)
{
	run();
	for (unsigned i = 1; i <= RESTART_TELL + 2; i++) {
		child_died(&rng->child);
		ck_assert(rng->restart.failed == (i >= RESTART_TELL));
		ck_assert_uint_eq(sent(&vm.vmm, MSG_DEV_DOWN), i >= RESTART_TELL);
		rng->restart.next_ns = 1; /* no pause */
		vm_restart_due(&vm);
		ck_assert_uint_eq(fake_of(&rng->child)->spawned, 1 + i);
	}
	ck_assert(!vm.ended);
	says(&rng->child, MSG_READY, NULL, 0);
	ck_assert(!rng->restart.failed);
}
END_TEST

/* A wait can end for no reason (base.h): one that must see the event goes on. */
static bool is_told(int event, bool must)
{
	const uint64_t until = clock_ns() + 10000000000;
	bool told;

	do
		told = events_wait(&event, 1, -1, must ? 1000 : 0) & 1;
	while (must && !told && clock_ns() < until);
	return told;
}

/* What the described device has: its page. */
static uint8_t *open_slots(void)
{
	struct device_desc *m = &rng->desc;
	struct err e = {0};
	void *page;

	for (unsigned i = 0; i < m->nslots; i++)
		rng->slot[i] = i == m->page_slot ? device_page(&e) : event_create();
	ck_assert_msg(!shm_map(rng->slot[m->page_slot], DP_SIZE, 0, DP_SIZE, true, &page, &e), "%s",
		      e.text);
	memset(page, 0, DP_SHADOW_SIZE);
	return page;
}

static void close_slots(uint8_t *page)
{
	shm_unmap(page, DP_SIZE);
	for (unsigned i = 0; i < rng->desc.nslots; i++)
		fd_close(&rng->slot[i]);
}

/* The registers that a guest reads, and the interrupt that it waits for: on MMIO, on PCI, and on
 * PCI with vectors that interrupt nobody. */
START_TEST(failed_and_told)
{
	static const struct {
		bool pci;
		uint16_t vector;
		uint32_t status;
		bool told;
	} cases[] = {{false, 0, 0xf, true}, {true, 0, 0xf, true},
		     {true, 1, 0xf, true},  {true, VPCI_NO_VECTOR, 0xf, false},
		     {true, 2, 0xf, false}, {false, 0, 0xb, false},
		     {true, 0, 0xb, false}};
	const bool pci = cases[_i].pci;
	const uint32_t at = pci ? VPCI_STATUS : VIRTIO_MMIO_STATUS;
	const uint32_t isr = pci ? VPCI_ISR_PLACE : VIRTIO_MMIO_INTERRUPT_STATUS;
	struct device_desc *m = &rng->desc;
	uint8_t *page;
	bool told;
	int event;

	if (pci)
		describe_virtio_pci(m, 1, 0xd8000000, 4, 1);
	else
		describe_virtio_mmio(m, 0xd0000000, 5, 1);
	page = open_slots();
	page[at] = (uint8_t)cases[_i].status;
	if (pci) {
		memcpy(page + VPCI_CONFIG_VECTOR, &cases[_i].vector, 2);
		page[VPCI_GENERATION] = page[VPCI_QUEUE_SELECT] = 0x55;
	}
	vm_device_down(&vm, 0); /* it has not failed */
	ck_assert_uint_eq(page[at], cases[_i].status);
	rng->restart.failed = true;
	rng->restart.state = RESTART_WAITS;
	vm_device_down(&vm, 0);
	ck_assert_uint_eq(page[at], cases[_i].status | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(page[isr], cases[_i].status == 0xf ? 2 : 0);
	if (pci)
		ck_assert(page[VPCI_GENERATION] == 0x55 && page[VPCI_QUEUE_SELECT] == 0x55);
	for (unsigned i = 0; i < m->nvectors; i++) {
		event = rng->slot[m->vector[i].slot];
		told = cases[_i].told && i == cases[_i].vector;
		ck_assert(is_told(event, told) == told);
	}
	close_slots(page);
}
END_TEST

/* Each time: what interrupts is done aside, and the one before may be just ending. */
START_TEST(told_each_time)
{
	uint8_t *page;

	describe_virtio_mmio(&rng->desc, 0xd0000000, 5, 1);
	page = open_slots();
	rng->restart.failed = true;
	rng->restart.state = RESTART_WAITS;
	for (unsigned i = 0; i < 100; i++) {
		page[VIRTIO_MMIO_STATUS] = 0xf;
		vm_device_down(&vm, 0);
		ck_assert_msg(is_told(rng->slot[rng->desc.vector[0].slot], true), "time %u", i);
	}
	close_slots(page);
}
END_TEST

/* ---- the guest is told that it goes on ---- */

static void nobody(struct vm *v, uint32_t id, const struct msg_exec_exit *x)
{
	(void)v, (void)id, (void)x;
	ck_abort_msg("it was never asked");
}

#define MAC "52:54:00:00:00:01"
#define ID "0123456789abcdef0123456789abcdef"

static const struct {
	struct resumed r;
	int code;
	const char *says;
} bad_resumed[] = {
	{{.host_name = "a b"}, -EINVAL, "host name 'a b'; expected 1 to 64 letters"},
	{{.host_name = "../etc"}, -EINVAL, "host name '../etc'"},
	{{.machine_id = ID "0"}, -EINVAL, "machine-id '" ID "0'; expected 32 digits"},
	{{.ncards = GP_CARDS_MAX + 1}, -EINVAL, "9 network cards; expected at most 8"},
	{{.ncards = 1, .card = (const char *const[]){MAC}}, -EINVAL, "network card 0: '" MAC "'"},
	{{.ncards = 2, .card = (const char *const[]){MAC "," MAC, MAC "," MAC ",a\nb"}},
	 -EINVAL,
	 "network card 1:"},
	{{.vm = "two\nlines"}, -EINVAL, "the VM's name; expected no control"},
};

START_TEST(resumed_refused)
{
	struct err e;
	uint32_t id = 42;

	ck_assert_int_eq(exec_resumed(&vm, &bad_resumed[_i].r, nobody, &id, &e),
			 bad_resumed[_i].code);
	ck_assert_msg(strstr(e.text, bad_resumed[_i].says), "%s", e.text);
	ck_assert_uint_eq(id, 42);
}
END_TEST

START_TEST(resumed_once_at_a_time)
{
	static const struct resumed r = {.host_name = "clone-1", .machine_id = ID};
	struct err e;

	vm.execs.place[VM_MAX_EXECS].id = 7;
	ck_assert_int_eq(exec_resumed(&vm, &r, nobody, NULL, &e), -EALREADY);
}
END_TEST

/* Two VMs, or one that starts twice, are not of the same generation. */
START_TEST(generation_is_new)
{
	static const uint8_t none[sizeof(((struct msg_start_vmm *)0)->genid)];
	struct msg_start_vmm one, two;
	int fds[MSG_MAX_FDS];

	(void)vm_word_start(&vm, -1, &one, fds);
	(void)vm_word_start(&vm, -1, &two, fds);
	ck_assert_int_ne(memcmp(one.genid, two.genid, sizeof(one.genid)), 0);
	ck_assert_int_ne(memcmp(one.genid, none, sizeof(none)), 0);
	for (unsigned i = 0; i < ARRAY_LEN(one.clock); i++)
		ck_assert(one.clock[i] && one.clock[i] != two.clock[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vm");
	TCase *t = tcase_create("children");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, generation_is_new);
	tcase_add_loop_test(t, resumed_refused, 0, (int)ARRAY_LEN(bad_resumed));
	tcase_add_test(t, resumed_once_at_a_time);
	tcase_add_test(t, death_while_starting);
	tcase_add_loop_test(t, failure_while_starting, 0, 2);
	tcase_add_test(t, not_in_its_jail);
	tcase_add_test(t, not_in_its_jail_later);
	tcase_add_loop_test(t, command_not_in_its_jail, 0, 2);
	tcase_add_loop_test(t, asks_too_early, 0, 4);
	tcase_add_test(t, stopped_unasked);
	tcase_add_test(t, counts);
	tcase_add_test(t, counts_once);
	tcase_add_loop_test(t, counted_unasked, 0, 2);
	tcase_add_test(t, failed_too_late);
	tcase_add_test(t, failed_again);
	tcase_add_loop_test(t, breaks_the_protocol, 0, 3);
	tcase_add_loop_test(t, death_while_stopping, 0, 2);
	tcase_add_test(t, last_words_count);
	tcase_add_test(t, vmm_dies);
	tcase_add_test(t, fails_too_often);
	tcase_add_loop_test(t, failed_and_told, 0, 7);
	tcase_add_test(t, told_each_time);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
