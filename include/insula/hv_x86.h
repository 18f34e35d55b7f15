/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor contract (hv.h), what is x86-64's alone: registers, ports, MSRs, CPUID.
 *
 * The machine is the same on every backend: one package of cores with one thread each, APIC id =
 * index, LAPIC in the hypervisor, no PIC, no PIT, no IOAPIC (that is the caller's), HLT handled
 * inside, interrupts as MSI messages (address, data) as in Intel SDM vol. 3, 11.11. CPUID
 * (topology, hypervisor leaves) is set by hv_vcpu_create(); vCPU 0 starts at the reset vector
 * unless hv_vcpu_set_regs() says otherwise, the others wait for INIT and SIPI.
 */
#ifndef INSULA_HV_X86_H
#define INSULA_HV_X86_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hv_vcpu;

/* Guest physical space that belongs to the hypervisor on some host or other: nothing is mapped
 * there. The LAPIC's page, and on Intel hosts KVM's identity map page and three TSS pages. */
#define HV_X86_LAPIC 0xfee00000ull
#define HV_X86_INTEL_PAGES 0xfffbc000ull
#define HV_X86_INTEL_SIZE 0x4000ull

/* ---- exits ---- */

struct hv_x86_pio {
	uint16_t port;
	uint8_t size;   /* 1, 2 or 4 bytes an element */
	bool out;       /* guest -> device */
	uint32_t count; /* elements (string instructions), >= 1 */
	/* count * size bytes, little endian; an input is filled in by the caller */
	void *data;
};

struct hv_x86_eoi {
	uint8_t vector;
};

struct hv_x86_msr {
	uint32_t index;
	bool write;
	uint64_t value;
	bool fault; /* set by the caller: inject #GP */
};

struct hv_x86_cpuid {
	uint32_t leaf, subleaf;
	uint32_t r[4]; /* eax, ebx, ecx, edx: defaults in, answer out */
};

/* ---- registers ---- */

struct hv_seg {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attr; /* as in VMX/SVM: type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11 */
};

struct hv_regs {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip,
		rflags;
	uint64_t cr0, cr2, cr3, cr4, efer;
	struct hv_seg cs, ds, es, fs, gs, ss, tr, ldt;
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
};
int hv_vcpu_get_regs(struct hv_vcpu *v, struct hv_regs *r, struct err *e);
int hv_vcpu_set_regs(struct hv_vcpu *v, const struct hv_regs *r, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
