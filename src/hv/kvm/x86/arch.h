/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the KVM backend leaves to the processor's architecture: another one has a folder beside this
 * with the same functions. backend.h includes it.
 */
#ifndef INSULA_HV_KVM_X86_ARCH_H
#define INSULA_HV_KVM_X86_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/kvm.h>

#include <insula/hv.h>

#define KVM_CPUID_MAX 256 /* entries */
#define KVM_MSRS_MAX 512

/* Read-only after hv_vm_create(). */
struct kvm_arch_vm {
	bool tsc_deadline;
	bool has_tsc_khz;
	uint32_t xsave_size; /* of what KVM_GET_XSAVE gives */
	unsigned nmsrs;
	uint32_t msr[KVM_MSRS_MAX]; /* those that KVM says it keeps */
	struct kvm_cpuid2 *supported;
	uint64_t epc_gpa, epc_size; /* of hv_vm_params */
};

struct kvm_arch_vcpu {
	uint64_t cpuid_sum; /* of its table, without what a host measures at each of its starts */
};

/* ---- what the general part calls ---- */

/* Before the VM exists: what this KVM can do. `vm->arch` is filled in. */
int kvm_arch_probe(struct hv_vm *vm, int dev, struct err *e);
/* Before the first vCPU exists. */
int kvm_arch_init_vm(struct hv_vm *vm, int dev, struct err *e);
void kvm_arch_free_vm(struct hv_vm *vm);
int kvm_arch_init_vcpu(struct hv_vcpu *v, struct err *e);

/* Where an error happened: pc and the bytes there, unless insn has them already. Best effort. */
void kvm_arch_locate(struct hv_vcpu *v, struct hv_exit *x);
/* An exit that only this architecture has. False: not one of them. */
bool kvm_arch_exit(struct hv_vcpu *v, struct hv_exit *x);

/* ---- between its files, and for tests ---- */

/* What the CPUID of a vCPU depends on besides the supported set. */
struct kvm_cpuid_params {
	unsigned index; /* the vCPU, and its APIC id */
	unsigned ncpus;
	uint32_t tsc_khz; /* 0: unknown */
	bool tsc_deadline;
	uint64_t epc_gpa, epc_size; /* size 0: no SGX */
	uint32_t epc_kind;          /* how the host protects its own: leaf 0x12, 2, ECX, bits 0-3 */
};
/* An empty table with room for KVM_CPUID_MAX entries, or NULL. The caller frees. */
struct kvm_cpuid2 *kvm_cpuid_alloc(void);
/* Turn the supported set into the CPUID of one vCPU, in place. Pure. -E2BIG: no room for a leaf;
 * -EOPNOTSUPP: memory for enclaves, and no SGX in the set. */
int kvm_cpuid_build(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p);
/* The same number for the same table, but for the frequencies. Pure. */
uint64_t kvm_cpuid_sum(const struct kvm_cpuid2 *c);

/* Of the table of a vCPU, or the supported set: has it SGX's launch control? Pure. */
bool kvm_cpuid_launches(struct kvm_cpuid2 *c);
/* The MSRs that are set before a vCPU runs; how many. Pure. */
#define KVM_FIRST_MSRS 3
unsigned kvm_x86_first_msrs(const struct kvm_arch_vm *a, struct kvm_msr_entry m[KVM_FIRST_MSRS]);

uint32_t kvm_x86_tsc_khz(const struct hv_vcpu *v); /* 0: unknown */

#endif
