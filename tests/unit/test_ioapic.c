/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IOAPIC against a model of the hypervisor that keeps the contract of hv.h: events latch while
 * unbound, a bound event sends the message of its line. Each test counts what was asked of the
 * hypervisor and what reached the LAPIC.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "vmm/x86/ioapic.h"

#define PINS 24
#define EVENT(pin) (100 + (hv_event)(pin)) /* any number >= 0 will do */
#define NEVENTS 256

#define SEL 0x00
#define WIN 0x10
#define EOI 0x40
#define MASKED (1u << 16)
#define LOW(pin) (0x10 + 2 * (pin))
#define HIGH(pin) (0x11 + 2 * (pin))

/* hv.h leaves the struct to the backend: here it is the model. */
struct hv_vm {
	struct {
		hv_event event; /* bound */
		uint64_t addr;
		uint32_t data;
		bool routed;
	} line[IOAPIC_MAX_PINS];
	unsigned count[NEVENTS]; /* eventfd counters */
	unsigned routes, binds, unbinds;
	unsigned delivered;
	uint64_t last_addr;
	uint32_t last_data;
	int fail_route, fail_bind, fail_unbind;
};

static struct hv_vm hv;
static struct ioapic *ioapic;

static void deliver(struct hv_vm *vm, unsigned line)
{
	ck_assert_msg(vm->line[line].routed, "line %u delivers without a route", line);
	vm->delivered++;
	vm->last_addr = vm->line[line].addr;
	vm->last_data = vm->line[line].data;
}

static int fake_route(struct hv_vm *vm, unsigned line, uint64_t addr, uint32_t data, struct err *e)
{
	vm->routes++;
	if (vm->fail_route)
		return err_set(e, vm->fail_route, "no route for line %u", line);
	vm->line[line].addr = addr;
	vm->line[line].data = data;
	vm->line[line].routed = true;
	return 0;
}

static int fake_bind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	vm->binds++;
	if (vm->fail_bind)
		return err_set(e, vm->fail_bind, "no bind for line %u", line);
	ck_assert_int_eq(vm->line[line].event, -1); /* one event per line */
	vm->line[line].event = event;
	if (vm->count[event]) {
		vm->count[event] = 0;
		deliver(vm, line);
	}
	return 0;
}

static int fake_unbind(struct hv_vm *vm, unsigned line, hv_event event, struct err *e)
{
	vm->unbinds++;
	if (vm->fail_unbind)
		return err_set(e, vm->fail_unbind, "no unbind for line %u", line);
	ck_assert_int_eq(vm->line[line].event, event);
	vm->line[line].event = -1;
	return 0;
}

static const struct line_ops ops = {fake_route, fake_bind, fake_unbind};

static void fire(hv_event event)
{
	for (unsigned i = 0; i < IOAPIC_MAX_PINS; i++) {
		if (hv.line[i].event == event) {
			deliver(&hv, i);
			return;
		}
	}
	hv.count[event]++;
}

static unsigned calls(void)
{
	return hv.routes + hv.binds + hv.unbinds;
}

static uint32_t reg_read(unsigned index)
{
	ck_assert_int_eq(ioapic_write(ioapic, SEL, 4, index), 0);
	return (uint32_t)ioapic_read(ioapic, WIN, 4);
}

static int reg_write(unsigned index, uint32_t value)
{
	ck_assert_int_eq(ioapic_write(ioapic, SEL, 4, index), 0);
	return ioapic_write(ioapic, WIN, 4, value);
}

static void setup(void)
{
	memset(&hv, 0, sizeof(hv));
	for (unsigned i = 0; i < IOAPIC_MAX_PINS; i++)
		hv.line[i].event = -1;
	ck_assert_int_eq(ioapic_create(&ioapic, PINS, &ops, &hv, NULL), 0);
	for (unsigned i = 0; i < PINS; i++)
		ck_assert_int_eq(ioapic_set_event(ioapic, i, EVENT(i), NULL), 0);
	ck_assert_uint_eq(calls(), 0); /* masked pins cost nothing */
}

static void teardown(void)
{
	ioapic_destroy(ioapic);
	for (unsigned i = 0; i < IOAPIC_MAX_PINS; i++)
		ck_assert_int_eq(hv.line[i].event, -1);
}

START_TEST(identity_registers)
{
	ck_assert_uint_eq(reg_read(0), 0);
	ck_assert_uint_eq(reg_read(1), 0x20 | (PINS - 1) << 16);
	ck_assert_int_eq(reg_write(0, 0xffffffff), 0);
	ck_assert_uint_eq(reg_read(0), 0x0f000000);
	ck_assert_uint_eq(reg_read(2), 0x0f000000);
	ck_assert_int_eq(reg_write(1, 0), 0); /* read-only */
	ck_assert_int_eq(reg_write(2, 0), 0);
	ck_assert_uint_eq(reg_read(1), 0x20 | (PINS - 1) << 16);
	ck_assert_uint_eq(reg_read(2), 0x0f000000);
}
END_TEST

START_TEST(reset_state)
{
	for (unsigned i = 0; i < PINS; i++) {
		ck_assert_uint_eq(reg_read(LOW(i)), MASKED);
		ck_assert_uint_eq(reg_read(HIGH(i)), 0);
	}
	ck_assert_uint_eq(calls(), 0);
}
END_TEST

START_TEST(entry_bits)
{
	ck_assert_int_eq(reg_write(LOW(3), 0xffffffff), 0);
	ck_assert_int_eq(reg_write(HIGH(3), 0xffffffff), 0);
	/* delivery status (12), remote IRR (14) and reserved bits stay 0 */
	ck_assert_uint_eq(reg_read(LOW(3)), 0x0001afff);
	ck_assert_uint_eq(reg_read(HIGH(3)), 0xff000000);
	ck_assert_uint_eq(reg_read(LOW(2)), MASKED);
	ck_assert_uint_eq(reg_read(LOW(4)), MASKED);
	ck_assert_uint_eq(calls(), 0);
}
END_TEST

START_TEST(undefined_accesses)
{
	static const unsigned none[] = {3, 0xf, LOW(PINS), HIGH(PINS), 0xfe, 0xff};

	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		ck_assert_int_eq(reg_write(none[i], 0x31), 0);
		ck_assert_uint_eq(reg_read(none[i]), 0);
	}
	ck_assert_int_eq(reg_write(LOW(1), 0x31 | MASKED), 0);
	for (unsigned size = 1; size <= 8; size *= 2) {
		if (size == 4)
			continue;
		ck_assert_int_eq(ioapic_write(ioapic, WIN, size, 0x31), 0);
		ck_assert_uint_eq(ioapic_read(ioapic, WIN, size), 0);
	}
	for (uint64_t off = 0; off < 0x1000; off++) {
		if (off == SEL || off == WIN)
			continue;
		ck_assert_int_eq(ioapic_write(ioapic, off, 4, 0x31), 0);
		ck_assert_uint_eq(ioapic_read(ioapic, off, 4), 0);
	}
	ck_assert_int_eq(ioapic_write(ioapic, EOI, 4, 0x31), 0);
	ck_assert_uint_eq(reg_read(LOW(1)), 0x31 | MASKED);
	ck_assert_uint_eq(calls(), 0);
	/* The index is a byte and readable. */
	ck_assert_int_eq(ioapic_write(ioapic, SEL, 4, 0xabcd10), 0);
	ck_assert_uint_eq(ioapic_read(ioapic, SEL, 4), 0x10);
	ck_assert_int_eq(ioapic_write(ioapic, SEL, 1, 0x11), 0);
	ck_assert_uint_eq(ioapic_read(ioapic, SEL, 1), 0x11);
}
END_TEST

START_TEST(message)
{
	static const struct {
		uint32_t high, low;
		uint64_t addr;
		uint32_t data;
	} t[] = {
		{0x00000000, 0x00000031, 0xfee00000, 0x031},
		{0x05000000, 0x000000fe, 0xfee05000, 0x0fe},
		{0xff000000, 0x00000810, 0xfeeff004, 0x010}, /* logical */
		{0x03000000, 0x00000931, 0xfee03004, 0x131}, /* logical, lowest priority */
		{0x01000000, 0x0000a031, 0xfee01000, 0x031}, /* active low, level: an edge all the
								same */
	};
	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		ck_assert_int_eq(reg_write(HIGH(i), t[i].high), 0);
		ck_assert_int_eq(reg_write(LOW(i), t[i].low), 0);
		fire(EVENT(i));
		ck_assert_uint_eq(hv.delivered, i + 1);
		ck_assert_uint_eq(hv.last_addr, t[i].addr);
		ck_assert_uint_eq(hv.last_data, t[i].data);
		ck_assert_uint_eq(reg_read(LOW(i)), t[i].low);
		ck_assert_uint_eq(reg_read(HIGH(i)), t[i].high);
	}
}
END_TEST

START_TEST(undeliverable_stays_masked)
{
	/* reserved, SMI, NMI, INIT, ExtINT; vectors below 16 */
	static const uint32_t low[] = {0x231, 0x331, 0x431, 0x531, 0x631, 0x731, 0x00, 0x0f, 0x10f};

	for (unsigned i = 0; i < sizeof(low) / sizeof(low[0]); i++) {
		ck_assert_int_eq(reg_write(LOW(i), low[i]), 0);
		ck_assert_uint_eq(reg_read(LOW(i)),
				  low[i]); /* as written, not masked for the guest */
		fire(EVENT(i));
	}
	ck_assert_uint_eq(calls(), 0);
	ck_assert_uint_eq(hv.delivered, 0);
	/* And an entry that was fine is switched off by them; the edge waits. */
	ck_assert_int_eq(reg_write(LOW(20), 0x31), 0);
	ck_assert_int_eq(reg_write(LOW(20), 0x431), 0);
	ck_assert_uint_eq(hv.unbinds, 1);
	fire(EVENT(20));
	ck_assert_uint_eq(hv.delivered, 0);
	ck_assert_int_eq(reg_write(LOW(20), 0x31), 0);
	ck_assert_uint_eq(hv.delivered, 1);
}
END_TEST

START_TEST(no_call_without_change)
{
	ck_assert_int_eq(reg_write(HIGH(5), 0), 0);
	ck_assert_int_eq(reg_write(LOW(5), 0x31), 0);
	ck_assert_uint_eq(hv.routes, 1);
	ck_assert_uint_eq(hv.binds, 1);
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(reg_write(HIGH(5), 0), 0);
		ck_assert_int_eq(reg_write(LOW(5), 0x31), 0);
		ck_assert_int_eq(reg_write(LOW(5), 0x31 | 0xf000),
				 0); /* bits without a meaning here */
		ck_assert_int_eq(ioapic_set_event(ioapic, 5, EVENT(5), NULL), 0);
	}
	ck_assert_uint_eq(calls(), 2);
	/* Mask and unmask: one unbind, one bind, no route. */
	ck_assert_int_eq(reg_write(LOW(5), 0x31 | MASKED), 0);
	ck_assert_int_eq(reg_write(LOW(5), 0x31 | MASKED), 0);
	ck_assert_int_eq(reg_write(LOW(5), 0x31), 0);
	ck_assert_uint_eq(hv.routes, 1);
	ck_assert_uint_eq(hv.unbinds, 1);
	ck_assert_uint_eq(hv.binds, 2);
	/* Rewritten while masked: one route, at the unmask. */
	ck_assert_int_eq(reg_write(LOW(5), 0x31 | MASKED), 0);
	ck_assert_int_eq(reg_write(HIGH(5), 1u << 24), 0);
	ck_assert_int_eq(reg_write(LOW(5), 0x32 | MASKED), 0);
	ck_assert_int_eq(reg_write(HIGH(5), 2u << 24), 0);
	ck_assert_uint_eq(hv.routes, 1);
	ck_assert_int_eq(reg_write(LOW(5), 0x32), 0);
	ck_assert_uint_eq(hv.routes, 2);
	fire(EVENT(5));
	ck_assert_uint_eq(hv.last_addr, 0xfee02000);
	ck_assert_uint_eq(hv.last_data, 0x32);
}
END_TEST

START_TEST(edge_while_masked_is_latched)
{
	fire(EVENT(7));
	fire(EVENT(7));
	ck_assert_uint_eq(hv.delivered, 0);
	ck_assert_int_eq(reg_write(LOW(7), 0x41), 0);
	ck_assert_uint_eq(hv.delivered, 1);
	ck_assert_uint_eq(hv.last_data, 0x41); /* by the new route, never by none or an old one */
	ck_assert_int_eq(reg_write(LOW(7), 0x41 | MASKED), 0);
	fire(EVENT(7));
	ck_assert_uint_eq(hv.delivered, 1);
	ck_assert_int_eq(reg_write(LOW(7), 0x42), 0);
	ck_assert_uint_eq(hv.delivered, 2);
	ck_assert_uint_eq(hv.last_data, 0x42);
}
END_TEST

START_TEST(reroute_keeps_event_bound)
{
	ck_assert_int_eq(reg_write(LOW(7), 0x41), 0);
	for (unsigned cpu = 1; cpu < 5; cpu++) {
		ck_assert_int_eq(reg_write(HIGH(7), cpu << 24), 0);
		fire(EVENT(7));
		ck_assert_uint_eq(hv.delivered, cpu);
		ck_assert_uint_eq(hv.last_addr, 0xfee00000 | cpu << 12);
	}
	ck_assert_uint_eq(hv.unbinds, 0);
	ck_assert_uint_eq(hv.binds, 1);
	ck_assert_uint_eq(hv.routes, 5);
}
END_TEST

START_TEST(event_comes_and_goes)
{
	ck_assert_int_eq(ioapic_set_event(ioapic, 9, -1, NULL), 0);
	ck_assert_int_eq(reg_write(LOW(9), 0x51), 0);
	ck_assert_uint_eq(calls(), 0);
	fire(EVENT(9));
	ck_assert_int_eq(ioapic_set_event(ioapic, 9, EVENT(9), NULL), 0); /* on an unmasked pin */
	ck_assert_uint_eq(hv.delivered, 1);
	ck_assert_int_eq(ioapic_set_event(ioapic, 9, -1, NULL), 0);
	ck_assert_int_eq(ioapic_set_event(ioapic, 9, EVENT(50), NULL), 0);
	fire(EVENT(9));
	ck_assert_uint_eq(hv.delivered, 1);
	fire(EVENT(50));
	ck_assert_uint_eq(hv.delivered, 2);
	ck_assert_int_eq(ioapic_set_event(ioapic, 9, -1, NULL), 0);
	fire(EVENT(50));
	ck_assert_uint_eq(hv.delivered, 2);
	ck_assert_uint_eq(hv.routes, 1);
}
END_TEST

START_TEST(bad_parameters)
{
	struct ioapic *a = NULL;
	struct err e = {0};

	ck_assert_int_eq(ioapic_create(&a, 0, &ops, &hv, &e), -EINVAL);
	ck_assert_int_eq(ioapic_create(&a, IOAPIC_MAX_PINS + 1, &ops, &hv, &e), -EINVAL);
	ck_assert_ptr_null(a);
	ck_assert_str_eq(e.text, "IOAPIC: 121 pins, expected 1 to 120");
	ck_assert_int_eq(ioapic_set_event(ioapic, PINS, EVENT(0), &e), -EINVAL);
	ck_assert_str_eq(e.text, "IOAPIC: pin 24 of 24");
	ck_assert_int_eq(ioapic_set_event(ioapic, 3, EVENT(3), &e), 0); /* it has it */
	ck_assert_int_eq(ioapic_set_event(ioapic, 3, EVENT(4), &e), -EEXIST);
	ck_assert_str_eq(e.text, "IOAPIC: two devices on pin 3");
	ck_assert_uint_eq(calls(), 0);
	ioapic_destroy(NULL);
}
END_TEST

START_TEST(most_pins)
{
	struct ioapic *a = NULL, *keep = ioapic;

	ck_assert_int_eq(ioapic_create(&a, IOAPIC_MAX_PINS, &ops, &hv, NULL), 0);
	ioapic = a;
	ck_assert_uint_eq(reg_read(1), 0x20 | (IOAPIC_MAX_PINS - 1) << 16);
	ck_assert_int_eq(ioapic_set_event(a, IOAPIC_MAX_PINS - 1, EVENT(0), NULL), 0);
	ck_assert_int_eq(reg_write(0xfe, 0x61), 0);
	ck_assert_int_eq(reg_write(0xff, 4u << 24), 0);
	fire(EVENT(0));
	ck_assert_uint_eq(hv.last_addr, 0xfee04000);
	ck_assert_uint_eq(hv.last_data, 0x61);
	ioapic_destroy(a);
	ioapic = keep;
}
END_TEST

START_TEST(hypervisor_refuses)
{
	struct err e;

	ioapic_failure(ioapic, &e);
	ck_assert_int_eq(e.code, 0);
	hv.fail_route = -ENOMEM;
	ck_assert_int_eq(reg_write(LOW(2), 0x31), -ENOMEM);
	ioapic_failure(ioapic, &e);
	ck_assert_int_eq(e.code, -ENOMEM);
	ck_assert_str_eq(e.text, "no route for line 2");
	ck_assert_uint_eq(hv.binds, 0); /* never bound without its message */
	hv.fail_route = 0;
	hv.fail_bind = -EBUSY;
	ck_assert_int_eq(reg_write(LOW(2), 0x31), -EBUSY);
	hv.fail_bind = 0;
	ck_assert_int_eq(reg_write(LOW(2), 0x31), 0); /* the same write tries again */
	fire(EVENT(2));
	ck_assert_uint_eq(hv.delivered, 1);
	hv.fail_unbind = -EIO;
	ck_assert_int_eq(reg_write(LOW(2), 0x31 | MASKED), -EIO);
	ck_assert_int_eq(ioapic_set_event(ioapic, 2, -1, &e), -EIO);
	ck_assert_str_eq(e.text, "no unbind for line 2");
	hv.fail_unbind = 0;
	ck_assert_int_eq(reg_write(LOW(2), 0x31 | MASKED), 0);
	fire(EVENT(2));
	ck_assert_uint_eq(hv.delivered, 1);
}
END_TEST

/* Two vCPUs rewrite entries of their own and of each other; the model's assertions watch the calls.
 */
static void *hammer(void *arg)
{
	unsigned seed = *(const unsigned *)arg;

	for (unsigned i = 0; i < 20000; i++) {
		seed = seed * 1103515245 + 12345;
		(void)ioapic_write(ioapic, seed & 0x10000 ? WIN : SEL, 4, seed >> 7 & 0x1ff);
		(void)ioapic_read(ioapic, WIN, 4);
	}
	return NULL;
}

START_TEST(several_vcpus)
{
	unsigned seed[2] = {1, 2};
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, hammer, &seed[0]), 0);
	hammer(&seed[1]);
	pthread_join(t, NULL);
	for (unsigned i = 0; i < PINS; i++) {
		ck_assert_int_eq(reg_write(LOW(i), 0x31), 0);
		ck_assert_int_eq(hv.line[i].event, EVENT(i));
		ck_assert_int_eq(reg_write(LOW(i), MASKED), 0);
		ck_assert_int_eq(hv.line[i].event, -1);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ioapic");
	TCase *tc = tcase_create("ioapic");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, identity_registers);
	tcase_add_test(tc, reset_state);
	tcase_add_test(tc, entry_bits);
	tcase_add_test(tc, undefined_accesses);
	tcase_add_test(tc, message);
	tcase_add_test(tc, undeliverable_stays_masked);
	tcase_add_test(tc, no_call_without_change);
	tcase_add_test(tc, edge_while_masked_is_latched);
	tcase_add_test(tc, reroute_keeps_event_bound);
	tcase_add_test(tc, event_comes_and_goes);
	tcase_add_test(tc, bad_parameters);
	tcase_add_test(tc, most_pins);
	tcase_add_test(tc, hypervisor_refuses);
	tcase_add_test(tc, several_vcpus);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
