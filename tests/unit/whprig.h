/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM of the Windows backend on the scripted double (tests/whp-double), with 64 KiB of memory. */
#ifndef TESTS_WHPRIG_H
#define TESTS_WHPRIG_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <insula/base.h>

#include "hv/whp/backend.h"
#include "../whp-double/double.h"
#include "host.h"

#define RAM 0x10000u
#define CODE 0x1000u
#define ROM 0x20000u
#define MMIO 0xd0000000u
#define ATTR_CODE64 0x209b /* in Windows' form */
#define ATTR_DATA 0xc093
#define ATTR_CODE32 0xc09b
#define PENDING_EVENT ((uint32_t)WHP_REG_PENDING_EVENT)
#define INTERRUPT_STATE ((uint32_t)WHP_REG_INTERRUPT_STATE)
#define PENDING_DEBUG ((uint32_t)WHP_REG_PENDING_DEBUG)

struct fixture {
	struct whp_double d;
	struct hv_vm *vm;
	struct hv_vcpu *v;
	uint8_t *ram, *rom;
	struct hv_exit x;
	struct err e;
};

static inline int create(struct fixture *f, unsigned ncpus, bool old)
{
	struct hv_vm_params p = {.ncpus = ncpus, .nlines = 24};
	struct whp_api api = double_api(old);

	return whp_vm_create(&f->vm, &p, &api, &f->e);
}

/* 64-bit code at CODE, without paging: the double has no processor that could mind. */
static inline void set_mode(struct fixture *f)
{
	double_reg(&f->d, 0, WHP_REG_RIP)->u64 = CODE;
	double_reg(&f->d, 0, WHP_REG_RFLAGS)->u64 = 2;
	double_reg(&f->d, 0, WHP_REG_CR0)->u64 = 1;
	double_reg(&f->d, 0, WHP_REG_EFER)->u64 = 0x500;
	for (uint32_t i = WHP_REG_ES; i <= WHP_REG_GS; i++)
		double_reg(&f->d, 0, i)->seg = (struct whp_segment){0, UINT32_MAX, 8, ATTR_DATA};
	double_reg(&f->d, 0, WHP_REG_CS)->seg = (struct whp_segment){0, UINT32_MAX, 8, ATTR_CODE64};
}

static inline void open_vm(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	double_init(&f->d);
	ck_assert_msg(create(f, 2, false) == 0, "%s", f->e.text);
	f->ram = host_pages(RAM);
	f->rom = host_pages(HV_PAGE);
	ck_assert_int_eq(hv_mem_map(f->vm, 0, 0, f->ram, RAM, HV_MEM_DIRTY_LOG, &f->e), 0);
	ck_assert_int_eq(hv_mem_map(f->vm, 1, ROM, f->rom, HV_PAGE, HV_MEM_READONLY, &f->e), 0);
	ck_assert_int_eq(hv_vcpu_create(f->vm, 0, &f->v, &f->e), 0);
	set_mode(f);
	double_written(&f->d, 0);
}

static inline void close_vm(struct fixture *f)
{
	hv_vcpu_destroy(f->v);
	hv_vm_destroy(f->vm);
	ck_assert_msg(!f->d.violation[0], "%s", f->d.violation);
	ck_assert(f->d.deleted);
	double_end(&f->d);
	host_free_pages(f->ram, RAM);
	host_free_pages(f->rom, HV_PAGE);
}

static inline uint64_t reg(struct fixture *f, uint32_t name)
{
	return double_reg(&f->d, 0, name)->u64;
}

static inline void set_reg(struct fixture *f, uint32_t name, uint64_t v)
{
	double_reg(&f->d, 0, name)->u64 = v;
}

static inline void run(struct fixture *f, enum hv_exit_kind kind)
{
	ck_assert_int_eq(hv_vcpu_run(f->v, &f->x), 0);
	ck_assert_int_eq(f->x.kind, kind);
}

static inline void complete(struct fixture *f)
{
	ck_assert_int_eq(hv_vcpu_complete(f->v, &f->x), 0);
}

/* The next exit, at the registers' RIP. */
static inline struct whp_exit *push(struct fixture *f, uint32_t reason)
{
	struct whp_exit *x = double_push(&f->d, reason);

	x->vp.rip = reg(f, WHP_REG_RIP);
	x->vp.rflags = reg(f, WHP_REG_RFLAGS);
	x->vp.cs = double_reg(&f->d, 0, WHP_REG_CS)->seg;
	return x;
}

/* A memory access by the given bytes, of which the platform tells `known`. */
static inline struct whp_exit *push_memory(struct fixture *f, const uint8_t *code, unsigned n,
					   unsigned known)
{
	struct whp_exit *x = push(f, WHP_EXIT_MEMORY);

	memcpy(f->ram + CODE, code, n);
	x->u.memory.insn.count = (uint8_t)known;
	memcpy(x->u.memory.insn.byte, code, known);
	return x;
}
#define PUSH_MEMORY(f, ...)                                          \
	({                                                           \
		const uint8_t code_[] = {__VA_ARGS__};               \
		push_memory(f, code_, sizeof(code_), sizeof(code_)); \
	})

static inline void expect_event(struct fixture *f, unsigned vector, bool has_code, uint32_t code)
{
	const struct whp_event *ev = &double_reg(&f->d, 0, PENDING_EVENT)->event;

	ck_assert_uint_eq(ev->what, 1u | (has_code ? 0x100u : 0) | vector << 16);
	ck_assert_uint_eq(ev->error_code, code);
	ck_assert_uint_eq(reg(f, WHP_REG_RIP), CODE);
}

static inline int whp_run_all(const char *name, const TTest *const *test, size_t n)
{
	Suite *s = suite_create(name);
	TCase *t = tcase_create("double");
	SRunner *sr;
	int failed;

	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(t, test[i]);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}

#endif
