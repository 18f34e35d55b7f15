/* SPDX-License-Identifier: BSD-2-Clause */
/* What the Windows backend makes of each exit, and which registers it writes. */
#include "whprig.h"

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

int main(void)
{
	/* clang-format off */
	const TTest *const tests[] = {
		port_out, port_in, end_of_instruction, string_out,
		mmio, truncated_bytes, several_accesses, completion_is_owed, read_only_memory,
		cannot_emulate, page_fault, platform_fails_in_between,
		msr, cpuid_exits, cpuid_topology, other_exits, registers,
	};
	/* clang-format on */

	return whp_run_all("whp_exits", tests, ARRAY_LEN(tests));
}
