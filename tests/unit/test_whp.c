/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Windows backend against the scripted double (tests/whp-double): what it asks for and in which
 * order, what it makes of each exit, which registers it writes, what happens when the platform
 * refuses, and that no kick is lost.
 */
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

static int create(struct fixture *f, unsigned ncpus, bool old)
{
	struct hv_vm_params p = {.ncpus = ncpus, .nlines = 24};
	struct whp_api api = double_api(old);

	return whp_vm_create(&f->vm, &p, &api, &f->e);
}

/* 64-bit code at CODE, without paging: the double has no processor that could mind. */
static void set_mode(struct fixture *f)
{
	double_reg(&f->d, 0, WHP_REG_RIP)->u64 = CODE;
	double_reg(&f->d, 0, WHP_REG_RFLAGS)->u64 = 2;
	double_reg(&f->d, 0, WHP_REG_CR0)->u64 = 1;
	double_reg(&f->d, 0, WHP_REG_EFER)->u64 = 0x500;
	for (uint32_t i = WHP_REG_ES; i <= WHP_REG_GS; i++)
		double_reg(&f->d, 0, i)->seg = (struct whp_segment){0, UINT32_MAX, 8, ATTR_DATA};
	double_reg(&f->d, 0, WHP_REG_CS)->seg = (struct whp_segment){0, UINT32_MAX, 8, ATTR_CODE64};
}

static void open_vm(struct fixture *f)
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

static void close_vm(struct fixture *f)
{
	hv_vcpu_destroy(f->v);
	hv_vm_destroy(f->vm);
	ck_assert_msg(!f->d.violation[0], "%s", f->d.violation);
	ck_assert(f->d.deleted);
	double_end(&f->d);
	host_free_pages(f->ram, RAM);
	host_free_pages(f->rom, HV_PAGE);
}

static uint64_t reg(struct fixture *f, uint32_t name)
{
	return double_reg(&f->d, 0, name)->u64;
}

static void set_reg(struct fixture *f, uint32_t name, uint64_t v)
{
	double_reg(&f->d, 0, name)->u64 = v;
}

static void run(struct fixture *f, enum hv_exit_kind kind)
{
	ck_assert_int_eq(hv_vcpu_run(f->v, &f->x), 0);
	ck_assert_int_eq(f->x.kind, kind);
}

static void complete(struct fixture *f)
{
	ck_assert_int_eq(hv_vcpu_complete(f->v, &f->x), 0);
}

/* The next exit, at the registers' RIP. */
static struct whp_exit *push(struct fixture *f, uint32_t reason)
{
	struct whp_exit *x = double_push(&f->d, reason);

	x->vp.rip = reg(f, WHP_REG_RIP);
	x->vp.rflags = reg(f, WHP_REG_RFLAGS);
	x->vp.cs = double_reg(&f->d, 0, WHP_REG_CS)->seg;
	return x;
}

/* A memory access by the given bytes, of which the platform tells `known`. */
static struct whp_exit *push_memory(struct fixture *f, const uint8_t *code, unsigned n,
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

static void expect_event(struct fixture *f, unsigned vector, bool has_code, uint32_t code)
{
	const struct whp_event *ev = &double_reg(&f->d, 0, PENDING_EVENT)->event;

	ck_assert_uint_eq(ev->what, 1u | (has_code ? 0x100u : 0) | vector << 16);
	ck_assert_uint_eq(ev->error_code, code);
	ck_assert_uint_eq(reg(f, WHP_REG_RIP), CODE);
}

/* ---- creation ---- */

static uint64_t number(const struct fixture *f, uint32_t code)
{
	const struct double_prop *p = double_prop(&f->d, code);
	uint64_t v = 0;

	ck_assert_ptr_nonnull(p);
	memcpy(&v, p->value, p->size < 8 ? p->size : 8);
	return v;
}

START_TEST(properties)
{
	struct fixture f = {0};
	const struct double_prop *p;
	struct whp_synthetic s;
	uint32_t leaf;

	double_init(&f.d);
	ck_assert_int_eq(create(&f, 3, false), 0);
	ck_assert(f.d.set_up);
	ck_assert_uint_eq(number(&f, WHP_PROP_PROCESSORS), 3);
	ck_assert_uint_eq(number(&f, WHP_PROP_LAPIC), WHP_LAPIC_X2APIC);
	ck_assert_uint_eq(number(&f, WHP_PROP_EXITS), WHP_EXT_CPUID | WHP_EXT_MSR);
	ck_assert_uint_eq(number(&f, WHP_PROP_MSR_BITMAP), WHP_MSR_UNHANDLED);
	ck_assert_uint_eq(number(&f, WHP_PROP_SECURITY_DOMAIN), 1);
	p = double_prop(&f.d, WHP_PROP_CPUID_EXITS);
	ck_assert_uint_eq(p->size % 4, 0);
	memcpy(&leaf, p->value, 4);
	ck_assert_uint_eq(leaf, 1);
	p = double_prop(&f.d, WHP_PROP_SYNTHETIC);
	memcpy(&s, p->value, sizeof(s));
	ck_assert_uint_eq(s.banks, 1);
	ck_assert_uint_eq(s.bank0, 0xb8b);
	hv_vm_destroy(f.vm);
	ck_assert_msg(!f.d.violation[0], "%s", f.d.violation);
	double_end(&f.d);
}
END_TEST

START_TEST(less_of_a_host)
{
	struct fixture f = {0};

	/* What is optional: no x2APIC mode, no MSR exits, no Hyper-V leaves. */
	double_init(&f.d);
	f.d.no_x2apic = true;
	f.d.exits = WHP_EXT_CPUID;
	f.d.synthetic.bank0 &= ~(uint64_t)WHP_SYN_FREQUENCY;
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_uint_eq(number(&f, WHP_PROP_LAPIC), WHP_LAPIC_XAPIC);
	ck_assert_uint_eq(number(&f, WHP_PROP_EXITS), WHP_EXT_CPUID);
	ck_assert_ptr_null(double_prop(&f.d, WHP_PROP_MSR_BITMAP));
	ck_assert_ptr_null(double_prop(&f.d, WHP_PROP_SYNTHETIC));
	hv_vm_destroy(f.vm);
	double_end(&f.d);
}
END_TEST

static void expect_refusal(struct fixture *f, int code, const char *text)
{
	int r = create(f, 1, false);

	ck_assert_int_eq(r, code);
	ck_assert_ptr_null(f->vm);
	ck_assert_msg(strstr(f->e.text, text) != NULL, "%s", f->e.text);
	ck_assert_msg(!f->d.violation[0], "%s", f->d.violation);
	ck_assert(f->d.deleted == f->d.created);
	double_end(&f->d);
}

START_TEST(hosts_that_cannot)
{
	struct fixture f = {0};
	struct hv_vm_params bad = {.ncpus = 0, .nlines = 1};
	struct whp_api api = double_api(false);

	double_init(&f.d);
	f.d.present = 0;
	expect_refusal(&f, -EOPNOTSUPP, "HypervisorPlatform");
	double_init(&f.d);
	f.d.features = 0;
	expect_refusal(&f, -EOPNOTSUPP, "LocalApicEmulation");
	double_init(&f.d);
	f.d.exits = 0;
	expect_refusal(&f, -EOPNOTSUPP, "X64CpuidExit");
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EINVAL);
	bad = (struct hv_vm_params){.ncpus = HV_MAX_CPUS + 1, .nlines = 1};
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EINVAL);
	bad = (struct hv_vm_params){.ncpus = 1, .nlines = HV_MAX_LINES + 1};
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EINVAL);
	double_init(&f.d);
	bad = (struct hv_vm_params){
		.ncpus = 1, .nlines = 1, .epc_gpa = 1ull << 32, .epc_size = 4096};
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.e.text, "memory for enclaves; expected none"));
}
END_TEST

/* Every function of the creation fails in turn, at each of its calls. */
START_TEST(creation_fails)
{
	static const struct {
		const char *function;
		unsigned calls;
		whp_hr hr;
		int code;
	} cases[] = {
		{"create_partition", 1, WHP_E_ACCESSDENIED, -EACCES},
		{"set_property", 7, WHP_E_OUTOFMEMORY, -ENOMEM},
		{"setup_partition", 1, WHP_E_INVALID_CONFIG, -EINVAL},
		{"setup_partition", 1, (whp_hr)0x80001234, -EIO},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (unsigned n = 0; n < cases[i].calls; n++) {
			struct fixture f = {0};
			int r;

			double_init(&f.d);
			f.d.fail = cases[i].function;
			f.d.fail_hr = cases[i].hr;
			f.d.skip = n;
			r = create(&f, 1, false);
			ck_assert_msg(f.d.failed, "%s is not called %u times", cases[i].function,
				      n + 1);
			/* The second property has another value to try. */
			if (strcmp(cases[i].function, "set_property") == 0 && n == 1) {
				ck_assert_int_eq(r, 0);
				hv_vm_destroy(f.vm);
			} else {
				ck_assert_int_eq(r, cases[i].code);
				ck_assert_ptr_null(f.vm);
				ck_assert_ptr_nonnull(strstr(f.e.text, "HRESULT 0x8"));
			}
			ck_assert(f.d.deleted == f.d.created);
			ck_assert_msg(!f.d.violation[0], "%s", f.d.violation);
			double_end(&f.d);
		}
	}
}
END_TEST

START_TEST(unknown_properties)
{
	/* The optional ones, by the order in which they are set. */
	for (unsigned n = 4; n < 7; n++) {
		struct fixture f = {0};

		double_init(&f.d);
		f.d.fail = "set_property";
		f.d.fail_hr = n == 4 ? WHP_E_INVALIDARG : WHP_E_UNKNOWN_PROPERTY;
		f.d.skip = n;
		ck_assert_msg(create(&f, 1, false) == 0, "%s", f.e.text);
		ck_assert(f.d.failed && f.d.set_up);
		hv_vm_destroy(f.vm);
		double_end(&f.d);
	}
}
END_TEST

START_TEST(vcpus)
{
	struct fixture f;
	struct hv_vcpu *v;

	open_vm(&f);
	ck_assert_uint_eq(reg(&f, WHP_REG_MTRR_DEF_TYPE), 0x806);
	ck_assert_int_eq(hv_vcpu_create(f.vm, 2, &v, &f.e), -EINVAL);
	ck_assert_int_eq(hv_vcpu_create(f.vm, 0, &v, &f.e), -EEXIST);
	f.d.fail = "set_registers";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vcpu_create(f.vm, 1, &v, &f.e), -EINVAL);
	ck_assert_ptr_null(v);
	ck_assert(!f.d.vp[1].exists);
	close_vm(&f);
}
END_TEST

/* ---- memory ---- */

START_TEST(memory_slots)
{
	struct fixture f;
	uint8_t *p = host_pages(2 * HV_PAGE);

	open_vm(&f);
	ck_assert_uint_eq(f.d.map[0].flags,
			  WHP_MAP_READ | WHP_MAP_WRITE | WHP_MAP_EXECUTE | WHP_MAP_DIRTY);
	ck_assert_uint_eq(f.d.map[1].flags, WHP_MAP_READ | WHP_MAP_EXECUTE);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, RAM - 4096, p, 8192, 0, &f.e), -EEXIST);
	ck_assert_int_eq(hv_mem_map(f.vm, 1, 0x50000, p, 4096, 0, &f.e), -EEXIST);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, HV_X86_LAPIC, p, 4096, 0, &f.e), -EEXIST);
	ck_assert_int_eq(hv_mem_map(f.vm, HV_MAX_SLOTS, 0x50000, p, 4096, 0, &f.e), -EINVAL);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50001, p, 4096, 0, &f.e), -EINVAL);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50000, p, 4096, 4, &f.e), -EINVAL);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, UINT64_MAX - 4095, p, 8192, 0, &f.e), -EINVAL);
	f.d.fail = "map";
	f.d.fail_hr = WHP_E_OUTOFMEMORY;
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50000, p, 4096, HV_MEM_DIRTY_LOG, &f.e), -ENOMEM);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 2, &f.e), -ENOENT);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50000, p, 4096, HV_MEM_DIRTY_LOG, &f.e), 0);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 2, &f.e), 0);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 2, &f.e), -ENOENT);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 99, &f.e), -ENOENT);
	ck_assert_uint_eq(f.d.nmaps, 2);
	close_vm(&f);
	host_free_pages(p, 2 * HV_PAGE);
}
END_TEST

/* What the hypervisor saw, and what the emulator wrote, which the hypervisor cannot see. */
START_TEST(dirty_pages)
{
	struct fixture f;
	uint64_t bits = 99;

	open_vm(&f);
	set_reg(&f, X86_RSI, MMIO);
	set_reg(&f, X86_RDI, 0x5ffe); /* into two pages */
	PUSH_MEMORY(&f, 0xa5);
	run(&f, HV_EXIT_MMIO);
	memcpy(f.x.u.mmio.data, "\x11\x22\x33\x44", 4);
	complete(&f);
	ck_assert_mem_eq(f.ram + 0x5ffe, "\x11\x22\x33\x44", 4);
	f.d.dirty[0] = 1 << 2;
	ck_assert_int_eq(hv_mem_dirty(f.vm, 0, &bits, &f.e), 0);
	ck_assert_uint_eq(bits, 1 << 2 | 1 << 5 | 1 << 6);
	ck_assert_int_eq(hv_mem_dirty(f.vm, 0, &bits, &f.e), 0);
	ck_assert_uint_eq(bits, 0);
	ck_assert_int_eq(hv_mem_dirty(f.vm, 1, &bits, &f.e), -ENOENT);
	f.d.fail = "query_dirty";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_mem_dirty(f.vm, 0, &bits, &f.e), -EINVAL);
	close_vm(&f);
}
END_TEST

START_TEST(no_dirty_tracking)
{
	struct fixture f = {0};
	uint8_t *p = host_pages(4096);

	double_init(&f.d);
	f.d.features = WHP_FEATURE_LAPIC;
	ck_assert_int_eq(create(&f, 1, false), 0);
	ck_assert_int_eq(hv_mem_map(f.vm, 0, 0, p, 4096, HV_MEM_DIRTY_LOG, &f.e), -EOPNOTSUPP);
	ck_assert_int_eq(hv_mem_map(f.vm, 0, 0, p, 4096, 0, &f.e), 0);
	hv_vm_destroy(f.vm);
	double_end(&f.d);
	host_free_pages(p, 4096);
}
END_TEST

/* ---- ports ---- */

static struct whp_exit *push_port(struct fixture *f, unsigned size, bool out, uint64_t rax)
{
	struct whp_exit *x = push(f, WHP_EXIT_PORT);

	x->vp.insn_len = 2 | 0x50; /* CR8 lies in the upper half */
	x->u.port.info = (out ? 1 : 0) | size << 1;
	x->u.port.port = 0x3f8;
	x->u.port.rax = rax;
	return x;
}

START_TEST(port_out)
{
	struct fixture f;

	open_vm(&f);
	push_port(&f, 2, true, 0x1122334455667788);
	run(&f, HV_EXIT_PIO);
	ck_assert_uint_eq(f.x.u.pio.port, 0x3f8);
	ck_assert_uint_eq(f.x.u.pio.size, 2);
	ck_assert_uint_eq(f.x.u.pio.count, 1);
	ck_assert(f.x.u.pio.out);
	ck_assert_mem_eq(f.x.u.pio.data, "\x88\x77", 2);
	ck_assert_uint_eq(double_written(&f.d, 0), 0);
	complete(&f);
	ck_assert_uint_eq(double_written(&f.d, 0), 1);
	ck_assert_uint_eq(reg(&f, WHP_REG_RIP), CODE + 2);
	close_vm(&f);
}
END_TEST

START_TEST(port_in)
{
	static const struct {
		unsigned size;
		uint64_t rax;
	} cases[] = {
		{1, 0x11223344556677dd},
		{2, 0x112233445566ccdd},
		{4, 0xaabbccdd},
	};
	struct fixture f;

	open_vm(&f);
	for (unsigned i = 0; i < 3; i++) {
		set_reg(&f, WHP_REG_RIP, CODE);
		push_port(&f, cases[i].size, false, 0x1122334455667788);
		run(&f, HV_EXIT_PIO);
		ck_assert(!f.x.u.pio.out);
		memcpy(f.x.u.pio.data, "\xdd\xcc\xbb\xaa", cases[i].size);
		complete(&f);
		ck_assert_uint_eq(reg(&f, X86_RAX), cases[i].rax);
		ck_assert_uint_eq(double_written(&f.d, 0), 2);
	}
	push_port(&f, 3, false, 0);
	run(&f, HV_EXIT_ERROR);
	close_vm(&f);
}
END_TEST

/* All that ends with an instruction: the shadow, RF, a single step; and 32-bit code wraps. */
START_TEST(end_of_instruction)
{
	struct fixture f;
	struct whp_exit *x;

	open_vm(&f);
	set_reg(&f, WHP_REG_RFLAGS, 0x10102);
	set_reg(&f, WHP_REG_RIP, 0xffffffff);
	double_reg(&f.d, 0, WHP_REG_CS)->seg.attr = ATTR_CODE32;
	x = push_port(&f, 1, true, 0);
	x->vp.state = WHP_VP_SHADOW;
	set_reg(&f, INTERRUPT_STATE, 1);
	run(&f, HV_EXIT_PIO);
	complete(&f);
	ck_assert_uint_eq(reg(&f, WHP_REG_RIP), 1);
	ck_assert_uint_eq(reg(&f, WHP_REG_RFLAGS), 0x102);
	ck_assert_uint_eq(reg(&f, INTERRUPT_STATE), 0);
	ck_assert_uint_eq(reg(&f, PENDING_DEBUG), WHP_DEBUG_STEP);
	close_vm(&f);
}
END_TEST

static void check_string_out(unsigned known)
{
	static const uint8_t code[] = {0xf3, 0x6e};
	struct fixture f;
	struct whp_exit *x;

	open_vm(&f);
	memcpy(f.ram + 0x3000, "hello", 5);
	memcpy(f.ram + CODE, code, 2);
	set_reg(&f, X86_RSI, 0x3000);
	set_reg(&f, X86_RCX, 5);
	set_reg(&f, X86_RDX, 0x3f8);
	x = push_port(&f, 1, true, 0);
	x->u.port.info |= WHP_PORT_STRING;
	x->u.port.insn.count = (uint8_t)known;
	memcpy(x->u.port.insn.byte, code, known);
	run(&f, HV_EXIT_PIO);
	ck_assert_uint_eq(f.x.u.pio.count, 5);
	ck_assert_mem_eq(f.x.u.pio.data, "hello", 5);
	complete(&f);
	ck_assert_uint_eq(reg(&f, X86_RCX), 0);
	ck_assert_uint_eq(reg(&f, X86_RSI), 0x3005);
	ck_assert_uint_eq(reg(&f, WHP_REG_RIP), CODE + 2);
	close_vm(&f);
}

START_TEST(string_out)
{
	for (unsigned known = 0; known <= 2; known++)
		check_string_out(known);
}
END_TEST

/* ---- memory accesses ---- */

START_TEST(mmio)
{
	struct fixture f;

	open_vm(&f);
	set_reg(&f, X86_RBX, MMIO + 0x50);
	set_reg(&f, X86_RAX, 0xcafe);
	PUSH_MEMORY(&f, 0x66, 0x89, 0x03);
	run(&f, HV_EXIT_MMIO);
	ck_assert(f.x.u.mmio.write);
	ck_assert_uint_eq(f.x.u.mmio.gpa, MMIO + 0x50);
	ck_assert_uint_eq(f.x.u.mmio.size, 2);
	ck_assert_mem_eq(f.x.u.mmio.data, "\xfe\xca", 2);
	complete(&f);
	ck_assert_uint_eq(reg(&f, WHP_REG_RIP), CODE + 3);
	set_reg(&f, WHP_REG_RIP, CODE);
	PUSH_MEMORY(&f, 0x0f, 0xb7, 0x4b, 0x10); /* movzwl 0x10(%rbx), %ecx */
	run(&f, HV_EXIT_MMIO);
	ck_assert(!f.x.u.mmio.write);
	memcpy(f.x.u.mmio.data, "\x34\x12\xff\xff", 4);
	complete(&f);
	ck_assert_uint_eq(reg(&f, X86_RCX), 0x1234);
	close_vm(&f);
}
END_TEST

/* However few bytes the platform gives. */
START_TEST(truncated_bytes)
{
	static const uint8_t code[] = {0xc7, 0x43, 0x50, 0x78, 0x56, 0x34, 0x12};
	struct fixture f;

	open_vm(&f);
	set_reg(&f, X86_RBX, MMIO);
	for (unsigned known = 0; known <= sizeof(code); known++) {
		set_reg(&f, WHP_REG_RIP, CODE);
		push_memory(&f, code, sizeof(code), known);
		run(&f, HV_EXIT_MMIO);
		ck_assert_mem_eq(f.x.u.mmio.data, code + 3, 4);
		complete(&f);
		ck_assert_uint_eq(reg(&f, WHP_REG_RIP), CODE + sizeof(code));
	}
	close_vm(&f);
}
END_TEST

/* An instruction with several accesses: the guest does not run between them. */
START_TEST(several_accesses)
{
	struct fixture f;

	open_vm(&f);
	set_reg(&f, X86_RBX, MMIO + 0xffe);
	PUSH_MEMORY(&f, 0x83, 0x03, 0x01); /* addl $1, (%rbx) over two pages */
	run(&f, HV_EXIT_MMIO);
	ck_assert_uint_eq(f.x.u.mmio.size, 2);
	memcpy(f.x.u.mmio.data, "\xff\xff", 2);
	complete(&f);
	ck_assert_uint_eq(double_written(&f.d, 0), 0);
	run(&f, HV_EXIT_MMIO);
	ck_assert_uint_eq(f.x.u.mmio.gpa, MMIO + 0x1000);
	memcpy(f.x.u.mmio.data, "\x05\x00", 2);
	complete(&f);
	run(&f, HV_EXIT_MMIO);
	ck_assert(f.x.u.mmio.write);
	ck_assert_mem_eq(f.x.u.mmio.data, "\x00\x00", 2);
	/* A kick in the middle waits for the end of the instruction. */
	hv_vcpu_kick(f.v);
	complete(&f);
	run(&f, HV_EXIT_MMIO);
	ck_assert_mem_eq(f.x.u.mmio.data, "\x06\x00", 2);
	complete(&f);
	ck_assert_uint_eq(f.d.runs, 1);
	ck_assert_uint_eq(reg(&f, WHP_REG_RIP), CODE + 3);
	run(&f, HV_EXIT_CANCELED);
	close_vm(&f);
}
END_TEST

START_TEST(completion_is_owed)
{
	struct fixture f;

	open_vm(&f);
	set_reg(&f, X86_RBX, MMIO);
	PUSH_MEMORY(&f, 0x8b, 0x03);
	run(&f, HV_EXIT_MMIO);
	ck_assert_int_eq(hv_vcpu_run(f.v, &f.x), -EINVAL);
	close_vm(&f);
}
END_TEST

START_TEST(read_only_memory)
{
	struct fixture f;

	open_vm(&f);
	f.rom[8] = 0x41;
	set_reg(&f, X86_RBX, ROM + 8);
	PUSH_MEMORY(&f, 0xfe, 0x03); /* incb (%rbx): read from memory, written to a device */
	run(&f, HV_EXIT_MMIO);
	ck_assert(f.x.u.mmio.write);
	ck_assert_uint_eq(f.x.u.mmio.data[0], 0x42);
	complete(&f);
	ck_assert_uint_eq(f.rom[8], 0x41);
	/* From where nothing is into read-only memory: two accesses to devices. */
	set_reg(&f, WHP_REG_RIP, CODE);
	set_reg(&f, X86_RBX, ROM - 4);
	set_reg(&f, X86_RAX, 0x1111111122222222);
	PUSH_MEMORY(&f, 0x48, 0x89, 0x03);
	run(&f, HV_EXIT_MMIO);
	ck_assert_uint_eq(f.x.u.mmio.gpa, ROM - 4);
	complete(&f);
	run(&f, HV_EXIT_MMIO);
	ck_assert_uint_eq(f.x.u.mmio.gpa, ROM);
	ck_assert_mem_eq(f.x.u.mmio.data, "\x11\x11\x11\x11", 4);
	complete(&f);
	close_vm(&f);
}
END_TEST

START_TEST(cannot_emulate)
{
	struct fixture f;
	struct whp_exit *x;

	open_vm(&f);
	set_reg(&f, X86_RBX, MMIO);
	PUSH_MEMORY(&f, 0x0f, 0x11, 0x03); /* movups */
	run(&f, HV_EXIT_ERROR);
	ck_assert_uint_eq(f.x.u.error.code, WHP_EXIT_MEMORY);
	ck_assert_uint_eq(f.x.u.error.pc, CODE);
	ck_assert_uint_ge(f.x.u.error.ninsn, 3);
	ck_assert_mem_eq(f.x.u.error.insn, "\x0f\x11\x03", 3);
	/* A program of the guest gets #UD: it must not end the VM. */
	x = PUSH_MEMORY(&f, 0x0f, 0x11, 0x03);
	x->vp.state = 3;
	run(&f, HV_EXIT_NONE);
	expect_event(&f, 6, false, 0);
	close_vm(&f);
}
END_TEST

START_TEST(page_fault)
{
	struct fixture f;

	open_vm(&f);
	set_reg(&f, X86_RSI, MMIO);
	set_reg(&f, X86_RDI, UINT64_C(0x123456789000));
	set_reg(&f, WHP_REG_CR0, 0x80000001);
	set_reg(&f, WHP_REG_CR4, 0x20);
	set_reg(&f, WHP_REG_CR3, 0x4000);
	memcpy(f.ram + 0x4000, "\x03\x50\0\0\0\0\0\0", 8); /* the first GiB ... */
	memcpy(f.ram + 0x5000, "\x83\0\0\0\0\0\0\0", 8);   /* ... as it is */
	memcpy(f.ram + 0x5018, "\x83\0\0\xc0\0\0\0\0", 8); /* and the one of MMIO */
	PUSH_MEMORY(&f, 0xa4);
	run(&f, HV_EXIT_MMIO);
	complete(&f);
	expect_event(&f, 14, true, 2);
	ck_assert_uint_eq(reg(&f, WHP_REG_CR2), UINT64_C(0x123456789000));
	ck_assert_uint_eq(double_reg(&f.d, 0, PENDING_EVENT)->event.parameter,
			  UINT64_C(0x123456789000));
	ck_assert_uint_eq(reg(&f, X86_RSI), MMIO);
	close_vm(&f);
}
END_TEST

START_TEST(platform_fails_in_between)
{
	static const char *const functions[] = {"get_registers", "run"};
	struct fixture f;

	open_vm(&f);
	for (unsigned i = 0; i < 2; i++) {
		set_reg(&f, X86_RBX, MMIO);
		PUSH_MEMORY(&f, 0x8b, 0x03);
		f.d.fail = functions[i];
		f.d.fail_hr = WHP_E_NO_SUCH_VP;
		ck_assert_int_eq(hv_vcpu_run(f.v, &f.x), -ENOENT);
	}
	run(&f, HV_EXIT_MMIO);
	f.d.fail = "set_registers";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vcpu_complete(f.v, &f.x), -EINVAL);
	close_vm(&f);
}
END_TEST

/* ---- MSR, CPUID, the rest ---- */

START_TEST(msr)
{
	struct fixture f;
	struct whp_exit *x;

	open_vm(&f);
	x = push(&f, WHP_EXIT_MSR);
	x->u.msr = (struct whp_msr_access){1, 0x4b564d00, 0xffffffff11111111, 0xffffffff22222222};
	run(&f, HV_EXIT_MSR);
	ck_assert(f.x.u.msr.write);
	ck_assert_uint_eq(f.x.u.msr.index, 0x4b564d00);
	ck_assert_uint_eq(f.x.u.msr.value, 0x2222222211111111);
	complete(&f);
	ck_assert_uint_eq(double_written(&f.d, 0), 1);
	ck_assert_uint_eq(reg(&f, WHP_REG_RIP), CODE + 2);
	set_reg(&f, WHP_REG_RIP, CODE);
	x = push(&f, WHP_EXIT_MSR);
	x->u.msr.index = 0x10a;
	run(&f, HV_EXIT_MSR);
	f.x.u.msr.value = 0x3333333344444444;
	complete(&f);
	ck_assert_uint_eq(reg(&f, X86_RAX), 0x44444444);
	ck_assert_uint_eq(reg(&f, X86_RDX), 0x33333333);
	set_reg(&f, WHP_REG_RIP, CODE);
	push(&f, WHP_EXIT_MSR);
	run(&f, HV_EXIT_MSR);
	f.x.u.msr.fault = true;
	complete(&f);
	expect_event(&f, 13, true, 0);
	close_vm(&f);
}
END_TEST

static void cpuid(struct fixture *f, uint32_t leaf, uint32_t sub, const uint32_t in[4])
{
	struct whp_exit *x = push(f, WHP_EXIT_CPUID);

	x->u.cpuid.rax = leaf;
	x->u.cpuid.rcx = sub;
	x->u.cpuid.default_rax = in[0];
	x->u.cpuid.default_rbx = in[1];
	x->u.cpuid.default_rcx = in[2];
	x->u.cpuid.default_rdx = in[3];
	run(f, HV_EXIT_NONE);
	ck_assert_uint_eq(reg(f, WHP_REG_RIP), CODE + 2);
	set_reg(f, WHP_REG_RIP, CODE);
}

START_TEST(cpuid_exits)
{
	static const uint32_t ones[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
	static const uint32_t zero[4], some[4] = {1, 2, 3, 4};
	struct fixture f;

	open_vm(&f);
	cpuid(&f, 1, 0, ones);
	ck_assert_uint_eq(reg(&f, X86_RBX), 0x0002ffff); /* APIC id 0, two ids */
	ck_assert_uint_eq(reg(&f, X86_RCX) & (1 << 5), 0);
	ck_assert_uint_eq(reg(&f, X86_RCX) >> 31, 1);
	ck_assert_uint_eq(reg(&f, X86_RDX) & (1 << 28), 1 << 28);
	cpuid(&f, 0xb, 1, some);
	ck_assert_uint_eq(reg(&f, X86_RAX), 1);
	ck_assert_uint_eq(reg(&f, X86_RBX), 2);
	ck_assert_uint_eq(reg(&f, X86_RCX), 0x201);
	cpuid(&f, 0xb, 0, zero); /* a processor that has no such leaf */
	ck_assert_uint_eq(reg(&f, X86_RCX), 0);
	cpuid(&f, 0xa, 0, ones);
	ck_assert_uint_eq(reg(&f, X86_RAX), 0);
	cpuid(&f, 0x15, 0, zero);
	ck_assert_uint_eq(reg(&f, X86_RCX), 200000000);
	/* As Linux computes it: kHz, 32 bits. */
	ck_assert_uint_eq((uint32_t)reg(&f, X86_RCX) / 1000 * (uint32_t)reg(&f, X86_RBX) /
				  (uint32_t)reg(&f, X86_RAX),
			  2900000);
	cpuid(&f, 7, 0, some); /* not ours: as the hypervisor says */
	ck_assert_uint_eq(reg(&f, X86_RAX), 1);
	ck_assert_uint_eq(reg(&f, X86_RBX), 2);
	ck_assert_uint_eq(reg(&f, X86_RCX), 3);
	ck_assert_uint_eq(reg(&f, X86_RDX), 4);
	close_vm(&f);
}
END_TEST

START_TEST(cpuid_topology)
{
	for (unsigned ncpus = 1; ncpus <= HV_MAX_CPUS; ncpus++) {
		struct whp_cpuid_params p = {ncpus - 1, ncpus, ncpus % 2, 0, 0};
		uint32_t r[4] = {1, 1, 0x100, 0}, c[4] = {0x63, 0, 0, 0}, t[4] = {1, 2, 3, 4};

		whp_cpuid_fix(&p, 0xb, 1, r);
		ck_assert_uint_eq(r[1], ncpus);
		ck_assert_uint_eq(r[3], ncpus - 1);
		ck_assert_uint_ge(1u << r[0], ncpus);
		ck_assert(ncpus == 1 || 1u << (r[0] - 1) < ncpus);
		whp_cpuid_fix(&p, 4, 3, c); /* the third level is shared by all */
		ck_assert_uint_ge((c[0] >> 14 & 0xfff) + 1, ncpus);
		whp_cpuid_fix(&p, 0x8000001e, 0, t);
		ck_assert_uint_eq(t[0], p.amd ? ncpus - 1 : 1);
		t[0] = 7;
		whp_cpuid_fix(&p, 0x15, 0, t); /* frequencies unknown: nothing is invented */
		ck_assert_uint_eq(t[0], 7);
	}
}
END_TEST

START_TEST(other_exits)
{
	static const struct {
		uint32_t reason;
		enum hv_exit_kind kind;
	} cases[] = {
		{WHP_EXIT_NONE, HV_EXIT_NONE},
		{WHP_EXIT_UNRECOVERABLE, HV_EXIT_SHUTDOWN},
		{WHP_EXIT_INVALID_REGISTER, HV_EXIT_ERROR},
		{WHP_EXIT_UNSUPPORTED, HV_EXIT_ERROR},
		{WHP_EXIT_WINDOW, HV_EXIT_IRQ_WINDOW},
		{WHP_EXIT_HALT, HV_EXIT_HALT},
		{WHP_EXIT_EOI, HV_EXIT_EOI},
		{0x1005, HV_EXIT_ERROR},
		{0xdeadbeef, HV_EXIT_ERROR},
	};
	struct fixture f;

	open_vm(&f);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct whp_exit *x = push(&f, cases[i].reason);

		x->u.eoi_vector = 0x41;
		run(&f, cases[i].kind);
		if (cases[i].kind == HV_EXIT_EOI)
			ck_assert_uint_eq(f.x.u.eoi.vector, 0x41);
		if (cases[i].kind == HV_EXIT_ERROR) {
			ck_assert_uint_eq(f.x.u.error.code, cases[i].reason);
			ck_assert_uint_gt(strlen(f.x.u.error.text), 0);
		}
	}
	ck_assert_uint_eq(double_written(&f.d, 0), 0);
	close_vm(&f);
}
END_TEST

START_TEST(registers)
{
	struct fixture f;
	struct hv_regs a, b;

	open_vm(&f);
	memset(&a, 0, sizeof(a));
	for (size_t i = 0; i < 18; i++) /* rax to rflags */
		((uint64_t *)(void *)&a)[i] = 0x1111111111111111 * (i + 1);
	a.cr0 = 0x80000011;
	a.cr2 = 0x1234;
	a.cr3 = 0x9000;
	a.cr4 = 0x20;
	a.efer = 0x500;
	a.cs = (struct hv_seg){1, 2, 3, 0xa9b};
	a.ds = a.es = a.fs = a.gs = a.ss = (struct hv_seg){4, 5, 6, 0xc93};
	a.tr = (struct hv_seg){7, 8, 9, 0x8b};
	a.ldt = (struct hv_seg){10, 11, 12, 0x82};
	a.gdt_base = 0x500;
	a.gdt_limit = 31;
	a.idt_base = 0x600;
	a.idt_limit = 255;
	ck_assert_int_eq(hv_vcpu_set_regs(f.v, &a, &f.e), 0);
	ck_assert_uint_eq(double_reg(&f.d, 0, WHP_REG_CS)->seg.attr, 0xa09b);
	ck_assert_uint_eq(reg(&f, X86_RSP), a.rsp);
	ck_assert_uint_eq(reg(&f, X86_RBX), a.rbx);
	memset(&b, 0, sizeof(b));
	ck_assert_int_eq(hv_vcpu_get_regs(f.v, &b, &f.e), 0);
	ck_assert_mem_eq(&a, &b, sizeof(a));
	f.d.fail = "get_registers";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vcpu_get_regs(f.v, &b, &f.e), -EINVAL);
	close_vm(&f);
}
END_TEST

/* ---- kicks ---- */

START_TEST(kick_before_run)
{
	struct fixture f;

	open_vm(&f);
	hv_vcpu_kick(f.v);
	run(&f, HV_EXIT_CANCELED);
	ck_assert_uint_eq(f.d.runs, 0);
	/* The cancel itself is still in the hypervisor: it means nothing any more. */
	run(&f, HV_EXIT_NONE);
	push(&f, WHP_EXIT_HALT);
	run(&f, HV_EXIT_HALT);
	close_vm(&f);
}
END_TEST

struct runner {
	struct fixture *f;
	atomic_uint seen, stop;
};

static void *run_until_stopped(void *arg)
{
	struct runner *r = arg;
	struct hv_exit x;

	while (!atomic_load(&r->stop)) {
		pthread_mutex_lock(&r->f->d.lock);
		if (r->f->d.at == r->f->d.nscript)
			r->f->d.at = 0;
		pthread_mutex_unlock(&r->f->d.lock);
		if (hv_vcpu_run(r->f->v, &x) == 0 && x.kind == HV_EXIT_CANCELED)
			atomic_fetch_add(&r->seen, 1);
	}
	return NULL;
}

static bool wait_for(atomic_uint *what, unsigned least)
{
	time_t end = time(NULL) + 10;

	while (atomic_load(what) < least) {
		if (time(NULL) > end)
			return false;
		sched_yield();
	}
	return true;
}

/* The guest never exits by itself: each kick must bring it out, wherever the thread is just then.
 */
START_TEST(no_kick_is_lost)
{
	struct fixture f;
	struct runner r = {.f = &f};
	pthread_t t;

	open_vm(&f);
	double_push(&f.d, DOUBLE_BLOCK);
	ck_assert_int_eq(pthread_create(&t, NULL, run_until_stopped, &r), 0);
	for (unsigned i = 1; i <= 3000; i++) {
		hv_vcpu_kick(f.v);
		ck_assert_msg(wait_for(&r.seen, i), "kick %u is lost", i);
	}
	atomic_store(&r.stop, 1);
	hv_vcpu_kick(f.v);
	pthread_join(t, NULL);
	close_vm(&f);
}
END_TEST

/* ---- state ---- */

struct saved {
	_Alignas(8) uint8_t vm[HV_STATE_MAX], cpu[HV_STATE_MAX];
	size_t vm_len, cpu_len;
};

static void save(struct fixture *f, struct saved *s)
{
	struct state_out vm = {s->vm, sizeof(s->vm), 0}, cpu = {s->cpu, sizeof(s->cpu), 0};

	ck_assert_msg(hv_vm_state_get(f->vm, &vm, &f->e) == 0, "%s", f->e.text);
	ck_assert_msg(hv_vcpu_state_get(f->v, &cpu, &f->e) == 0, "%s", f->e.text);
	s->vm_len = vm.len;
	s->cpu_len = cpu.len;
}

static int set(struct fixture *f, const struct saved *s)
{
	double_written(&f->d, 0);
	return hv_vcpu_state_set(f->v, s->cpu, s->cpu_len, &f->e);
}

/* The same with another name for one register, which a record that is right in all else has; by
 * `more` bytes longer or shorter. */
static int set_renamed(struct fixture *f, const struct saved *s, uint32_t from, uint32_t to,
		       int more)
{
	static uint8_t body[HV_STATE_MAX], room[2 * HV_STATE_MAX];
	struct state_out o = {room, sizeof(room), 0};
	struct state_head h;
	bool found = false;

	for (size_t at = 0; at < s->cpu_len; at += (size_t)state_size(&h)) {
		memcpy(&h, s->cpu + at, sizeof(h));
		memcpy(body, s->cpu + at + sizeof(h), h.size);
		for (uint32_t i = 0; h.type == STATE_WHP_X86 + 1 && i < h.size; i += 24) {
			if (memcmp(body + i, &from, sizeof(from)) != 0)
				continue;
			memcpy(body + i, &to, sizeof(to));
			found = true;
		}
		ck_assert_int_eq(
			state_put(&o, h.type, h.version, h.index, body,
				  h.size + (h.type == STATE_WHP_X86 + 1 ? (uint32_t)more : 0)),
			0);
	}
	ck_assert(found);
	double_written(&f->d, 0);
	return hv_vcpu_state_set(f->v, o.at, o.len, &f->e);
}

START_TEST(state_is_set_as_it_was)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	set_reg(&f, 0, 0x1234);
	set_reg(&f, WHP_REG_TSC, 0x5678);
	set_reg(&f, (uint32_t)WHP_REG_ACTIVITY, 2);
	f.d.vp[0].xsave[160] = 3;
	f.d.vp[0].lapic[0x80] = 4;
	f.d.time = 99;
	ck_assert_int_eq(hv_irq_route(f.vm, 5, 0xfee00000, 0x41, &f.e), 0);
	save(&f, &s);
	set_reg(&f, 0, 0);
	set_reg(&f, WHP_REG_TSC, 0);
	set_reg(&f, (uint32_t)WHP_REG_ACTIVITY, 0);
	f.d.vp[0].xsave[160] = f.d.vp[0].lapic[0x80] = 0;
	f.d.time = 0;
	ck_assert_msg(hv_vm_state_set(f.vm, s.vm, s.vm_len, &f.e) == 0, "%s", f.e.text);
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	ck_assert_uint_eq(reg(&f, 0), 0x1234);
	ck_assert_uint_eq(reg(&f, WHP_REG_TSC), 0x5678);
	ck_assert_uint_eq(reg(&f, (uint32_t)WHP_REG_ACTIVITY), 2);
	ck_assert_uint_eq(f.d.vp[0].xsave[160], 3);
	ck_assert_uint_eq(f.d.vp[0].lapic[0x80], 4);
	ck_assert_uint_eq(f.d.time, 99);
	ck_assert_uint_eq(f.d.suspensions, 1); /* it stands until the first run */
	close_vm(&f);
}
END_TEST

/* The deadline of a timer that is set before its mode would be lost. */
START_TEST(state_of_an_armed_timer)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	f.d.vp[0].lapic[0x322] = 4;
	set_reg(&f, WHP_REG_TSC_DEADLINE, 0x9999);
	save(&f, &s);
	f.d.vp[0].lapic[0x322] = 0;
	set_reg(&f, WHP_REG_TSC_DEADLINE, 0);
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	ck_assert_uint_eq(reg(&f, WHP_REG_TSC_DEADLINE), 0x9999);
	close_vm(&f);
}
END_TEST

/* Whichever of the two the platform moves with the other one; with both, the TSC. */
START_TEST(state_of_the_tsc)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	set_reg(&f, WHP_REG_TSC, 70000000000);
	set_reg(&f, WHP_REG_TSC_ADJUST, 5);
	save(&f, &s);
	for (unsigned i = 0; i < 4; i++) {
		f.d.tsc_moves_adjust = i & 1;
		f.d.adjust_moves_tsc = i & 2;
		set_reg(&f, WHP_REG_TSC, 200000000000);
		set_reg(&f, WHP_REG_TSC_ADJUST, 100000000000);
		ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
		ck_assert_uint_eq(reg(&f, WHP_REG_TSC), 70000000000);
		if (i != 3)
			ck_assert_uint_eq(reg(&f, WHP_REG_TSC_ADJUST), 5);
	}
	close_vm(&f);
}
END_TEST

START_TEST(state_and_time_that_does_not_stand_still)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	f.d.time = 99;
	save(&f, &s);
	f.d.time = 1;
	f.d.fail = "suspend_time";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vm_state_set(f.vm, s.vm, s.vm_len, &f.e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(f.e.text, "WHvSuspendPartitionTime"));
	ck_assert_uint_eq(f.d.time, 1);
	close_vm(&f);
}
END_TEST

START_TEST(state_that_is_refused)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	save(&f, &s);
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, 0x3002, 0), -EPROTO);
	ck_assert_str_eq(f.e.text, "state: register 0x10 is missing");
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_SPEC_CTRL, 0x80000003, 0), -EPROTO);
	ck_assert_str_eq(f.e.text, "state: register 0x2000 is missing");
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, WHP_REG_RAX, 0), -EPROTO);
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, WHP_REG_RIP, -24), -EPROTO);
	ck_assert_str_eq(f.e.text, "state: register 0x80000005 is missing");
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, WHP_REG_RIP, 24), -EPROTO);
	ck_assert_ptr_nonnull(strstr(f.e.text, "is not expected"));
	f.d.cpuid = 1;
	ck_assert_int_eq(set(&f, &s), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.e.text, "CPUID differs"));
	f.d.cpuid = 0;
	f.d.lacks = WHP_REG_XSS;
	ck_assert_int_eq(set(&f, &s), -EOPNOTSUPP);
	ck_assert_str_eq(f.e.text, "state: register 0x208b, which this host lacks");
	ck_assert_uint_eq(double_written(&f.d, 0), 0); /* none of these has changed anything */
	save(&f, &s);
	f.d.lacks = 0; /* the other way it may be: it stays as it is in a new processor */
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	f.d.lacks = WHP_REG_RIP;
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &(struct state_out){s.cpu, sizeof(s.cpu), 0}, &f.e),
			 -EIO);
	f.d.lacks = 0;
	close_vm(&f);
}
END_TEST

/* One that cannot be written is right where it has its value, and else it is named. */
START_TEST(state_that_cannot_be_written)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	set_reg(&f, WHP_REG_DR0, 7);
	save(&f, &s);
	f.d.fail = "set_registers";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(set(&f, &s), -EINVAL);
	f.d.fail = "set_registers";
	f.d.skip = 1;
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	set_reg(&f, WHP_REG_DR0, 8);
	f.d.fail = "set_registers";
	f.d.skip = 1;
	ck_assert_int_eq(set(&f, &s), -EOPNOTSUPP);
	ck_assert_str_eq(f.e.text, "vCPU 0: state: the hypervisor refuses 0x7 for register 0x21");
	close_vm(&f);
}
END_TEST

/* Not with half an instruction. */
START_TEST(state_amid_an_access)
{
	struct state_out o;
	static uint8_t room[HV_STATE_MAX];
	struct fixture f;

	open_vm(&f);
	o = (struct state_out){room, sizeof(room), 0};
	push(&f, WHP_EXIT_MSR);
	run(&f, HV_EXIT_MSR);
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &o, &f.e), -EAGAIN);
	complete(&f);
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &o, &f.e), 0);
	close_vm(&f);
}
END_TEST

START_TEST(no_state_on_an_older_windows)
{
	uint8_t room[64] = {0};
	struct state_out o = {room, sizeof(room), 0};
	struct fixture f;

	memset(&f, 0, sizeof(f));
	double_init(&f.d);
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_int_eq(hv_vcpu_create(f.vm, 0, &f.v, &f.e), 0);
	ck_assert_int_eq(hv_vm_state_get(f.vm, &o, &f.e), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.e.text, "expected Windows 10 20H2"));
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &o, &f.e), -EOPNOTSUPP);
	ck_assert_int_eq(hv_vm_state_set(f.vm, room, sizeof(room), &f.e), -EOPNOTSUPP);
	ck_assert_int_eq(hv_vcpu_state_set(f.v, room, sizeof(room), &f.e), -EOPNOTSUPP);
	ck_assert_uint_eq(o.len, 0);
	hv_vcpu_destroy(f.v);
	hv_vm_destroy(f.vm);
	double_end(&f.d);
}
END_TEST

/* ---- time ---- */

START_TEST(time_is_suspended)
{
	struct fixture f;

	open_vm(&f);
	ck_assert_int_eq(hv_vm_suspend_time(f.vm, &f.e), 0);
	ck_assert_uint_eq(f.d.suspensions, 1);
	f.d.fail = "suspend_time";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vm_suspend_time(f.vm, &f.e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(f.e.text, "WHvSuspendPartitionTime"));
	hv_vcpu_was_paused(f.v); /* asks nothing of the platform */
	ck_assert_uint_eq(double_written(&f.d, 0), 0);
	close_vm(&f);
	/* An older Windows: time goes on, and that is no error. */
	memset(&f, 0, sizeof(f));
	double_init(&f.d);
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_int_eq(hv_vm_suspend_time(f.vm, &f.e), 0);
	ck_assert_uint_eq(f.d.suspensions, 0);
	hv_vm_destroy(f.vm);
	double_end(&f.d);
}
END_TEST

/* ---- doorbells ---- */

START_TEST(doorbells)
{
	struct hv_doorbell d = {
		.addr = MMIO + 0x50, .size = 4, .match = true, .value = 1, .event = 77};
	struct hv_doorbell pio = {.pio = true, .addr = 0x600, .size = 1, .event = 78};
	struct hv_doorbell any = {.addr = MMIO + 0x64, .size = 4, .event = 79};
	struct fixture f;

	open_vm(&f);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), 0);
	ck_assert_uint_eq(f.d.nbells, 1);
	ck_assert(f.d.bell[0].port && f.d.bell[0].live);
	ck_assert_ptr_eq(f.d.bell[0].event, (void *)77);
	ck_assert_uint_eq(f.d.bell[0].d.gpa, MMIO + 0x50);
	ck_assert_uint_eq(f.d.bell[0].d.length, 4);
	ck_assert_uint_eq(f.d.bell[0].d.match, WHP_MATCH_VALUE | WHP_MATCH_LENGTH);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), -EEXIST);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &pio, &f.e), 0); /* exits; the caller signals */
	ck_assert_uint_eq(f.d.nbells, 1);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &pio, &f.e), 0);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &pio, &f.e), -ENOENT);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &any, &f.e), 0);
	ck_assert_uint_eq(f.d.bell[1].d.match, WHP_MATCH_LENGTH);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), 0);
	ck_assert(!f.d.bell[0].live);
	d.size = 3;
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), -EINVAL);
	d.size = 4;
	f.d.fail = "create_port";
	f.d.fail_hr = WHP_E_OUTOFMEMORY;
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), -ENOMEM);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), -ENOENT);
	close_vm(&f); /* takes `any` along */
}
END_TEST

START_TEST(older_doorbells)
{
	struct hv_doorbell d = {.addr = MMIO + 0x50, .size = 4, .event = 77};
	struct fixture f = {0};

	double_init(&f.d);
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), 0);
	ck_assert(!f.d.bell[0].port && f.d.bell[0].live);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), 0);
	ck_assert(!f.d.bell[0].live);
	/* Neither way: the write exits, and the caller signals. */
	f.d.fail = "register_doorbell";
	f.d.fail_hr = WHP_E_NOTIMPL;
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), 0);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), 0);
	hv_vm_destroy(f.vm);
	ck_assert_msg(!f.d.violation[0], "%s", f.d.violation);
	double_end(&f.d);
}
END_TEST

/* ---- interrupts ---- */

START_TEST(messages)
{
	struct fixture f;

	open_vm(&f);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee03004, 0x8141), 0);
	ck_assert_uint_eq(f.d.ninterrupts, 1);
	ck_assert_uint_eq(f.d.interrupt[0].control,
			  WHP_INT_LOWEST | WHP_INT_LOGICAL | WHP_INT_LEVEL);
	ck_assert_uint_eq(f.d.interrupt[0].destination, 3);
	ck_assert_uint_eq(f.d.interrupt[0].vector, 0x41);
	/* Nonsense of the guest's is dropped: another address, SMI, INIT, ExtINT. */
	ck_assert_int_eq(hv_msi_send(f.vm, 0x1234, 0x41), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0x1fee00000, 0x41), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x241), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x541), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x741), 0);
	ck_assert_uint_eq(f.d.ninterrupts, 1);
	f.d.fail = "request_interrupt";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x01), 0);
	f.d.fail = "request_interrupt";
	f.d.fail_hr = WHP_E_OUTOFMEMORY;
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x41), -ENOMEM);
	close_vm(&f);
}
END_TEST

static void wait_interrupts(struct fixture *f, unsigned n)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 10;
	pthread_mutex_lock(&f->d.lock);
	while (f->d.ninterrupts < n)
		ck_assert_int_eq(pthread_cond_timedwait(&f->d.changed, &f->d.lock, &end), 0);
	ck_assert_uint_eq(f->d.ninterrupts, n);
	pthread_mutex_unlock(&f->d.lock);
}

START_TEST(lines)
{
	struct fixture f;
	hv_event ev = host_event();

	open_vm(&f);
	ck_assert_int_eq(hv_irq_route(f.vm, 24, 0xfee00000, 0x30, &f.e), -EINVAL);
	ck_assert_int_eq(hv_irq_bind(f.vm, 24, ev, &f.e), -EINVAL);
	ck_assert_int_eq(hv_irq_unbind(f.vm, 500, ev, &f.e), -EINVAL);
	ck_assert_int_eq(hv_irq_route(f.vm, 5, 0xfee00000, 0x30, &f.e), 0);
	host_ring(ev); /* before the bind: delivered at the bind */
	ck_assert_int_eq(hv_irq_bind(f.vm, 5, ev, &f.e), 0);
	wait_interrupts(&f, 1);
	ck_assert_uint_eq(f.d.interrupt[0].vector, 0x30);
	ck_assert_int_eq(hv_irq_bind(f.vm, 5, ev, &f.e), -EBUSY);
	ck_assert_int_eq(hv_irq_bind(f.vm, 6, ev, &f.e), -EBUSY); /* another line has it */
	ck_assert_int_eq(hv_irq_route(f.vm, 5, 0xfee01000, 0x31, &f.e), 0);
	host_ring(ev);
	wait_interrupts(&f, 2);
	ck_assert_uint_eq(f.d.interrupt[1].vector, 0x31);
	ck_assert_uint_eq(f.d.interrupt[1].destination, 1);
	/* Unbound, the event is a latch. */
	ck_assert_int_eq(hv_irq_unbind(f.vm, 5, ev, &f.e), 0);
	host_ring(ev);
	host_sleep_us(20000);
	ck_assert_uint_eq(f.d.ninterrupts, 2);
	ck_assert_int_eq(hv_irq_bind(f.vm, 5, ev, &f.e), 0);
	wait_interrupts(&f, 3);
	close_vm(&f); /* takes the watch along */
	host_close(ev);
}
END_TEST

int main(void)
{
	/* clang-format off */
	const TTest *const tests[] = {
		properties, less_of_a_host, hosts_that_cannot, creation_fails, unknown_properties, vcpus,
		memory_slots, dirty_pages, no_dirty_tracking,
		port_out, port_in, end_of_instruction, string_out,
		mmio, truncated_bytes, several_accesses, completion_is_owed, read_only_memory,
		cannot_emulate, page_fault, platform_fails_in_between,
		msr, cpuid_exits, cpuid_topology, other_exits, registers,
		kick_before_run, no_kick_is_lost, time_is_suspended, state_is_set_as_it_was,
		state_of_an_armed_timer, state_of_the_tsc, state_and_time_that_does_not_stand_still,
		state_that_is_refused, state_that_cannot_be_written, state_amid_an_access,
		no_state_on_an_older_windows, doorbells, older_doorbells, messages, lines,
	};
	/* clang-format on */
	Suite *s = suite_create("whp");
	TCase *t = tcase_create("double");
	SRunner *sr;
	int failed;

	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < ARRAY_LEN(tests); i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
