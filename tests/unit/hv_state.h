/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of a VM as records (hv.h, "state"), for test_hv.c: taken from one VM, set in another
 * one that has the same memory, it goes on as if nothing had happened; and what is refused.
 */
#ifndef INSULA_TEST_HV_STATE_H
#define INSULA_TEST_HV_STATE_H

#include <unistd.h>

#include <insula/state.h>

#include "hv_cases.h"

struct snapshot {
	_Alignas(8) uint8_t vm[HV_STATE_MAX], cpu[2][HV_STATE_MAX];
	size_t vm_len, cpu_len[2];
};

/* -EAGAIN: an access is still to be answered. */
static int take(struct fixture *f, struct snapshot *s)
{
	struct state_out vm = {s->vm, sizeof(s->vm), 0};

	for (unsigned i = 0; i < f->ncpus; i++) {
		struct state_out cpu = {s->cpu[i], sizeof(s->cpu[i]), 0};
		int r = hv_vcpu_state_get(f->v[i], &cpu, &f->e);

		if (r == -EAGAIN)
			return r;
		ck_assert_msg(r == 0, "%s", f->e.text);
		s->cpu_len[i] = cpu.len;
	}
	ck_assert_msg(hv_vm_state_get(f->vm, &vm, &f->e) == 0, "%s", f->e.text);
	s->vm_len = vm.len;
	return 0;
}

/* Another VM with the same memory and state; the first one is gone. */
static void move(struct fixture *f, const struct snapshot *s)
{
	struct fixture to;

	open_vm(&to, f->ncpus);
	memcpy(to.ram, f->ram, RAM_SIZE);
	close_vm(f);
	*f = to;
	ck_assert_msg(hv_vm_state_set(f->vm, s->vm, s->vm_len, &f->e) == 0, "%s", f->e.text);
	for (unsigned i = 0; i < f->ncpus; i++)
		ck_assert_msg(hv_vcpu_state_set(f->v[i], s->cpu[i], s->cpu_len[i], &f->e) == 0,
			      "%s", f->e.text);
}

/* The records of `from` again, the `nth` one changed by the differences. */
static void rewrite(struct state_out *o, const uint8_t *from, size_t len, unsigned nth,
		    struct state_head add)
{
	struct state_head h;

	o->len = 0;
	for (size_t at = 0; at < len; at += sizeof(h) + ((h.size + 7) & ~(size_t)7)) {
		bool it = nth-- == 0;

		memcpy(&h, from + at, sizeof(h));
		ck_assert_int_eq(state_put(o, h.type + (it ? add.type : 0),
					   h.version + (it ? add.version : 0),
					   h.index + (it ? add.index : 0), from + at + sizeof(h),
					   h.size + (it ? add.size : 0)),
				 0);
	}
}

/* ---- a guest in long mode that counts ---- */

#define L_GDT 0x500u
#define L_IDT 0x6000u
#define L_TABLES 0x9000u
#define L_SEEN 0x4000u /* what the guest stores: see guest_counts */

/* clang-format off */
#define L_WRMSR(msr, high, low) \
	"mov $" msr ", %ecx\n mov $" high ", %edx\n mov $" low ", %eax\n wrmsr\n"
#define L_RDMSR(msr, to) \
	"mov $" msr ", %ecx\n rdmsr\n mov %eax, " to "\n mov %edx, " to " + 4\n"
#define L_ISR(n) \
	".balign 16\n l_isr" #n ": incq 0x4060 + 8 * " #n "\n push %rax\n push %rcx\n push %rdx\n" \
	L_WRMSR("0x80b", "0", "0") "pop %rdx\n pop %rcx\n pop %rax\n iretq\n"

/* Counts to port 0x20 and to memory until 0x4008 is not 0; then stores what it has in its registers
 * behind 0x4010, and waits for three interrupts of its timer and one of a line. */
GUEST(guest_counts, ".code64\n"
	L_WRMSR("0x10", "0x40000", "0")                         /* TSC */
	"mov $0x1b, %ecx\n rdmsr\n or $0xc00, %eax\n wrmsr\n"   /* x2APIC */
	L_WRMSR("0x80f", "0", "0x1ff") L_WRMSR("0x83e", "0", "0xb")
	L_WRMSR("0x832", "0", "0x20041") L_WRMSR("0x838", "0", "0x100000") /* the timer: 1 ms */
	L_WRMSR("0xc0000081", "0x00100008", "0x1234")           /* STAR */
	L_WRMSR("0xc0000102", "0x1234", "0x56789abc")           /* KERNEL_GS_BASE */
	"mov 0x4080, %ecx\n jrcxz 5f\n"
	"mov $0x1122334455667788, %rax\n movq %rax, %xmm3\n fninit\n fldpi\n5:\n"
	"mov $0x4444, %eax\n mov %rax, %db0\n mov $0x5555, %eax\n mov %rax, %cr2\n"
	L_RDMSR("0x10", "0x4088")
	"xor %r8d, %r8d\n stc\n std\n"
	"1: inc %r8\n mov %r8, 0x4000\n mov %r8d, %eax\n out %eax, $0x20\n"
	"mov 0x4008, %ecx\n jrcxz 1b\n"
	"pushfq\n popq 0x4010\n"
	"mov 0x4080, %ecx\n jrcxz 6f\n movq %xmm3, 0x4018\n fstpl 0x4020\n6:\n"
	"mov %db0, %rax\n mov %rax, 0x4028\n mov %cr2, %rax\n mov %rax, 0x4030\n"
	L_RDMSR("0xc0000081", "0x4038") L_RDMSR("0xc0000102", "0x4040")
	L_RDMSR("0xc0000080", "0x4048") L_RDMSR("0x832", "0x4050") L_RDMSR("0x10", "0x4058")
	"cld\n sti\n"
	"2: cmpq $3, 0x4068\n jb 2b\n"
	"3: cmpq $0, 0x4070\n je 3b\n"
	"4: cmpq $0, 0x4060\n je 4b\n cli\n" DONE
	L_ISR(0) L_ISR(1) L_ISR(2));
/* clang-format on */
extern const uint8_t l_isr0[], l_isr1[], l_isr2[];

static void put64(struct fixture *f, unsigned at, uint64_t v)
{
	memcpy(f->ram + at, &v, sizeof(v));
}

static uint64_t get64(const struct fixture *f, unsigned at)
{
	uint64_t v;

	memcpy(&v, f->ram + at, sizeof(v));
	return v;
}

/* GDT, an identity map of the first 2 MiB, and gates for the vectors 0x40 to 0x42. */
static void write_tables(struct fixture *f)
{
	const uint8_t *isr[] = {l_isr0, l_isr1, l_isr2};

	put64(f, L_GDT + 0x10, 0x00af9b000000ffff);
	put64(f, L_GDT + 0x18, 0x00cf93000000ffff);
	put64(f, L_TABLES, (L_TABLES + 0x1000) | 3);
	put64(f, L_TABLES + 0x1000, (L_TABLES + 0x2000) | 3);
	put64(f, L_TABLES + 0x2000, 0x83);
	for (unsigned i = 0; i < ARRAY_LEN(isr); i++) {
		uint64_t at = CODE + (uint64_t)(isr[i] - guest_counts);

		put64(f, L_IDT + (VECTOR_A + i) * 16, at | 0x10 << 16 | 0x8e00ull << 32);
	}
}

/* A KVM without VT-x and AMD-V emulates what a guest's kernel does, and knows general registers
 * only. */
static bool has_vectors(void)
{
	return access(CASES_ROOT "/sys/module/kvm_pvm", F_OK) != 0;
}

static void start_counter(struct fixture *f, unsigned ncpus)
{
	static const struct hv_seg code = {.limit = ~0u, .selector = 0x10, .attr = 0xa9b};
	static const struct hv_seg data = {.limit = ~0u, .selector = 0x18, .attr = 0xc93};
	struct hv_regs r;

	open_vm(f, ncpus);
	LOAD(f, guest_counts);
	write_tables(f);
	put64(f, 0x4080, has_vectors());
	ck_assert_int_eq(hv_vcpu_get_regs(f->v[0], &r, &f->e), 0);
	r.cs = code;
	r.ds = r.es = r.fs = r.gs = r.ss = data;
	r.gdt_base = L_GDT;
	r.gdt_limit = 0x1f;
	r.idt_base = L_IDT;
	r.idt_limit = 0xfff;
	r.cr0 = 0x80000033;
	r.cr3 = L_TABLES;
	r.cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
	r.efer = 0x500;
	ck_assert_msg(hv_vcpu_set_regs(f->v[0], &r, &f->e) == 0, "%s", f->e.text);
}

static void expect_what_it_had(const struct fixture *f)
{
	ck_assert_uint_eq(get64(f, 0x4010) & 0xed5, 0x401); /* flags: CF and DF alone */
	ck_assert_uint_eq(get64(f, 0x4018), has_vectors() ? 0x1122334455667788 : 0);
	ck_assert_uint_eq(get64(f, 0x4020), has_vectors() ? 0x400921fb54442d18 : 0); /* pi */
	ck_assert_uint_eq(get64(f, 0x4028), 0x4444);
	ck_assert_uint_eq(get64(f, 0x4030), 0x5555);
	ck_assert_uint_eq(get64(f, 0x4038), 0x0010000800001234);
	ck_assert_uint_eq(get64(f, 0x4040), 0x123456789abc);
	ck_assert_uint_eq(get64(f, 0x4048), 0x500);
	ck_assert_uint_eq(get64(f, 0x4050), 0x20041);
	ck_assert_uint_ge(get64(f, 0x4058), get64(f, 0x4088)); /* its TSC never goes back */
}

/* An interrupt that waits because the guest has masked it, a timer that runs, a line that is
 * routed, and a second vCPU that nobody has started. Between two instructions, whatever comes. */
START_TEST(moves_to_another_vm)
{
	hv_event ev = host_event();
	struct hv_regs before = {0}, after = {0};
	struct snapshot s;
	struct fixture f;
	uint32_t n = 0;

	start_counter(&f, 2);
	while (n < 5)
		expect_out(f.v[0], 0x20, 4, ++n);
	ck_assert_int_eq(hv_irq_route(f.vm, 3, MSI_CPU0, VECTOR_A + 2, &f.e), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, MSI_CPU0, VECTOR_A), 0);
	ck_assert_int_eq(take(&f, &s), 0);
	ck_assert_int_eq(hv_vcpu_get_regs(f.v[0], &before, &f.e), 0);
	ck_assert_uint_eq(before.r8, n);
	for (unsigned round = 0; round < 3; round++) {
		move(&f, &s);
		ck_assert_int_eq(hv_vcpu_get_regs(f.v[0], &after, &f.e), 0);
		ck_assert_mem_eq(&before, &after, sizeof(before));
		expect_out(f.v[0], 0x20, 4, ++n);
		ck_assert_int_eq(take(&f, &s), 0);
		ck_assert_int_eq(hv_vcpu_get_regs(f.v[0], &before, &f.e), 0);
	}
	move(&f, &s);
	put64(&f, 0x4008, 1);
	ck_assert_int_eq(hv_irq_bind(f.vm, 3, ev, &f.e), 0);
	host_ring(ev);
	expect_done(f.v[0]);
	ck_assert_uint_eq(get64(&f, L_SEEN), n);
	expect_what_it_had(&f);
	ck_assert_uint_eq(get64(&f, 0x4060), 1); /* the one that waited, once */
	ck_assert_uint_eq(get64(&f, 0x4070), 1);
	close_vm(&f);
	host_close(ev);
}
END_TEST

/* To take the state changes nothing for a VM that goes on, and a kick is not lost in it. */
START_TEST(goes_on_after_its_state_was_taken)
{
	struct snapshot s;
	struct fixture f;
	struct hv_exit x;

	start_counter(&f, 1);
	for (uint32_t n = 1; n <= 50; n++) {
		do
			next_exit(f.v[0], &x);
		while (x.kind == HV_EXIT_CANCELED);
		ck_assert_int_eq(x.kind, HV_EXIT_PIO);
		ck_assert_mem_eq(x.u.pio.data, &n, sizeof(n));
		hv_vcpu_complete(f.v[0], &x);
		if (n % 2)
			hv_vcpu_kick(f.v[0]);
		ck_assert_int_eq(take(&f, &s), 0);
		if (!(n % 2) && !CASES_STATE_CANCELS)
			continue;
		next_exit(f.v[0], &x);
		ck_assert_int_eq(x.kind, HV_EXIT_CANCELED);
	}
	close_vm(&f);
}
END_TEST

/* XMM3 as the record has it: no guest is needed that can use it. */
START_TEST(vector_registers)
{
	const size_t xmm3 = 160 + 3 * 16, bits = 512; /* Intel SDM vol. 1, 13.4 */
	struct snapshot s;
	struct fixture f;
	struct state_head h;
	uint8_t room[HV_STATE_MAX];
	struct state_out o = {room, sizeof(room), 0};
	size_t at = 0;

	start_counter(&f, 1);
	ck_assert_int_eq(take(&f, &s), 0);
	for (;; at += sizeof(h) + ((h.size + 7) & ~(size_t)7)) {
		memcpy(&h, s.cpu[0] + at, sizeof(h));
		if (h.size >= 4096)
			break;
	}
	s.cpu[0][at + sizeof(h) + bits] |= 3;
	memcpy(s.cpu[0] + at + sizeof(h) + xmm3, "sixteen letters", 16);
	rewrite(&o, s.cpu[0], s.cpu_len[0], 99, (struct state_head){0});
	ck_assert_msg(hv_vcpu_state_set(f.v[0], o.at, o.len, &f.e) == 0, "%s", f.e.text);
	memset(&s, 0, sizeof(s));
	ck_assert_int_eq(take(&f, &s), 0);
	ck_assert_mem_eq(s.cpu[0] + at + sizeof(h) + xmm3, "sixteen letters", 16);
	close_vm(&f);
}
END_TEST

GUEST(guest_outs, "cld\n mov $0x2000, %si\n mov $0x3f8, %dx\n mov $3000, %cx\n rep outsb\n" DONE);

/* In the middle of a string instruction there may be no state to take: then a little later. */
START_TEST(amid_a_string)
{
	unsigned moved = 0, n = 0, next = 97;
	struct snapshot s;
	struct fixture f;
	struct hv_exit x;

	open_vm(&f, 1);
	LOAD(&f, guest_outs);
	for (unsigned i = 0; i < 3000; i++)
		f.ram[0x2000 + i] = (uint8_t)(i * 7);
	while (n < 3000) {
		do
			next_exit(f.v[0], &x);
		while (x.kind == HV_EXIT_CANCELED);
		ck_assert_int_eq(x.kind, HV_EXIT_PIO);
		ck_assert_uint_le(x.u.pio.count, 3000 - n);
		ck_assert_mem_eq(x.u.pio.data, f.ram + 0x2000 + n, x.u.pio.count);
		n += x.u.pio.count;
		hv_vcpu_complete(f.v[0], &x);
		if (n < next || n >= 3000 || take(&f, &s) == -EAGAIN)
			continue;
		move(&f, &s);
		moved++;
		next = n + 97;
	}
	ck_assert_uint_gt(moved, 0);
	expect_done(f.v[0]);
	close_vm(&f);
}
END_TEST

START_TEST(amid_a_device_access)
{
	uint32_t value = 0x12345678;
	struct snapshot s;
	struct fixture f;
	struct hv_exit x;

	open_vm(&f, 1);
	LOAD(&f, guest_mmio);
	expect_mmio(f.v[0], &x, MMIO + 0x10, 4, false);
	memcpy(x.u.mmio.data, &value, sizeof(value));
	hv_vcpu_complete(f.v[0], &x);
	ck_assert_int_eq(take(&f, &s), 0);
	move(&f, &s);
	expect_mmio(f.v[0], &x, MMIO + 0x14, 4, true);
	ck_assert_uint_eq(mmio_value(&x), value + 1);
	close_vm(&f);
}
END_TEST

/* ---- what is refused ---- */

static void expect_canceled(struct hv_vcpu *v)
{
	struct hv_exit x;

	next_exit(v, &x);
	ck_assert_int_eq(x.kind, HV_EXIT_CANCELED);
}

static int set_cpu(struct fixture *f, unsigned cpu, const uint8_t *state, size_t len)
{
	return hv_vcpu_state_set(f->v[cpu], state, len, &f->e);
}

static void expect_refusal(struct fixture *f, const struct state_out *o, const char *text)
{
	ck_assert_int_eq(set_cpu(f, 0, o->at, o->len), -EPROTO);
	ck_assert_msg(strstr(f->e.text, text), "'%s' without '%s'", f->e.text, text);
}

START_TEST(refused_state)
{
	static uint8_t room[2 * HV_STATE_MAX];
	struct state_out o = {room, sizeof(room), 0};
	struct snapshot s;
	struct fixture f;
	size_t len;

	start_counter(&f, 2);
	expect_out(f.v[0], 0x20, 4, 1);
	ck_assert_int_eq(take(&f, &s), 0);
	len = s.cpu_len[0];
	for (size_t n = 0; n < len; n++)
		ck_assert_int_eq(set_cpu(&f, 0, s.cpu[0], n), -EPROTO);
	for (size_t n = 0; n < len; n++) {
		s.cpu[0][n] ^= (uint8_t)(1u << n % 8);
		ck_assert_int_eq(set_cpu(&f, 0, s.cpu[0], len), -EPROTO);
		s.cpu[0][n] ^= (uint8_t)(1u << n % 8);
	}
	for (unsigned nth = 0; nth < CASES_RECORDS; nth++) {
		rewrite(&o, s.cpu[0], len, nth, (struct state_head){.type = 0x40});
		expect_refusal(&f, &o, "unknown type 0x");
		rewrite(&o, s.cpu[0], len, nth, (struct state_head){.version = 1});
		expect_refusal(&f, &o, "version 2, expected 1");
		rewrite(&o, s.cpu[0], len, nth, (struct state_head){.index = 1});
		expect_refusal(&f, &o, "number 1, expected 0");
		rewrite(&o, s.cpu[0], len, nth, (struct state_head){.size = 1});
		expect_refusal(&f, &o, "bytes, expected");
	}
	memcpy(room, s.cpu[0], len);
	memcpy(room + len, s.cpu[0], 40); /* the first record again */
	o.len = len + 40;
	expect_refusal(&f, &o, "there are two records of the processor");
	rewrite(&o, s.cpu[0], len, 99, (struct state_head){0});
	ck_assert_int_eq(state_put(&o, 0xdead, 1, 0, "x", 1), 0);
	expect_refusal(&f, &o, "unknown type 0xdead");
	ck_assert_int_eq(set_cpu(&f, 0, s.vm, s.vm_len), -EPROTO);
	ck_assert_int_eq(set_cpu(&f, 1, s.cpu[0], len), -EPROTO);
	ck_assert_int_eq(hv_vm_state_set(f.vm, s.cpu[0], len, &f.e), -EPROTO);
	ck_assert_int_eq(hv_vm_state_set(f.vm, s.vm, s.vm_len - 8, &f.e), -EPROTO);
	/* Nothing of all that has changed anything. */
	if (CASES_STATE_CANCELS)
		expect_canceled(f.v[0]);
	expect_out(f.v[0], 0x20, 4, 2);
	close_vm(&f);
}
END_TEST

/* Values that fit their sums: the hypervisor takes or refuses them, and no more happens. */
START_TEST(hostile_values)
{
	static uint8_t room[HV_STATE_MAX];
	struct state_out o = {room, sizeof(room), 0};
	unsigned seed = 1, refused = 0;
	struct snapshot s, bad;
	struct fixture f;

	start_counter(&f, 1);
	expect_out(f.v[0], 0x20, 4, 1);
	ck_assert_int_eq(take(&f, &s), 0);
	for (unsigned round = 0; round < 2000; round++) {
		size_t n = s.cpu_len[0];

		memcpy(bad.cpu[0], s.cpu[0], n);
		for (unsigned k = 0; k < 4; k++) {
			seed = seed * 1103515245 + 12345;
			bad.cpu[0][seed / 65536 * 7919 % n] ^= (uint8_t)(seed >> 8);
		}
		for (size_t at = 0; at < n;) { /* heads as they were */
			struct state_head h;

			memcpy(&h, s.cpu[0] + at, sizeof(h));
			memcpy(bad.cpu[0] + at, &h, sizeof(h));
			at += sizeof(h) + ((h.size + 7) & ~(size_t)7);
		}
		rewrite(&o, bad.cpu[0], n, 99, (struct state_head){0});
		refused += set_cpu(&f, 0, o.at, o.len) < 0;
	}
	ck_assert_uint_gt(refused, 0);
	close_vm(&f);
}
END_TEST

/* A snapshot is of one hypervisor: the other one's says whose it is. */
START_TEST(another_hypervisor)
{
	struct snapshot s;
	struct fixture f;
	struct state_head h;

	start_counter(&f, 1);
	ck_assert_int_eq(take(&f, &s), 0);
	memcpy(&h, s.vm, sizeof(h));
	h.type ^= STATE_KVM_X86 ^ STATE_WHP_X86;
	memcpy(s.vm, &h, sizeof(h));
	ck_assert_int_eq(hv_vm_state_set(f.vm, s.vm, s.vm_len, &f.e), -EOPNOTSUPP);
	ck_assert_msg(strstr(f.e.text, "another hypervisor"), "%s", f.e.text);
	ck_assert_msg(strstr(f.e.text, "KVM"), "%s", f.e.text);
	ck_assert_msg(strstr(f.e.text, "Windows Hypervisor Platform"), "%s", f.e.text);
	close_vm(&f);
}
END_TEST

START_TEST(little_room)
{
	uint8_t room[HV_STATE_MAX];
	struct snapshot s;
	struct fixture f;

	start_counter(&f, 1);
	ck_assert_int_eq(take(&f, &s), 0);
	for (size_t n = 0; n < s.cpu_len[0]; n += 61) {
		struct state_out o = {room, n, 0};

		ck_assert_int_eq(hv_vcpu_state_get(f.v[0], &o, &f.e), -ENOSPC);
		ck_assert_uint_eq(o.len, 0);
	}
	close_vm(&f);
}
END_TEST

static void add_state(TCase *t)
{
	tcase_add_test(t, moves_to_another_vm);
	tcase_add_test(t, goes_on_after_its_state_was_taken);
	tcase_add_test(t, vector_registers);
	tcase_add_test(t, amid_a_string);
	tcase_add_test(t, amid_a_device_access);
	tcase_add_test(t, refused_state);
	tcase_add_test(t, hostile_values);
	tcase_add_test(t, another_hypervisor);
	tcase_add_test(t, little_room);
}

#endif
