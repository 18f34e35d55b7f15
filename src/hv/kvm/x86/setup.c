/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is set up for x86-64 before a guest runs: TSS and identity map of Intel hosts, split
 * irqchip, no PMU; and of each vCPU its CPUID and what firmware would have done to its MSRs.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "hv/kvm/backend.h"

/* Intel SDM vol. 4, table 2-2. AMD parts ignore or lack some of these; KVM takes them for every
 * guest. */
#define MSR_FEATURE_CONTROL 0x3au
#define FEATURES_LOCKED 0x1u
#define FEATURES_SGX_LC 0x20000u
#define FEATURES_SGX 0x40000u
#define MSR_MISC_ENABLE 0x1a0u
#define MISC_FAST_STRING 0x1u
#define MISC_BTS_UNAVAILABLE 0x800u
#define MISC_PEBS_UNAVAILABLE 0x1000u
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLED 0x800u
#define MTRR_WRITE_BACK 0x6u

/* ---- the VM ---- */

static int read_supported_cpuid(struct hv_vm *vm, int dev, struct err *e)
{
	int r;

	vm->arch.supported = kvm_cpuid_alloc();
	if (!vm->arch.supported)
		return err_set(e, -ENOMEM, "no memory for the CPUID table");
	r = kvm_call(dev, KVM_GET_SUPPORTED_CPUID, vm->arch.supported);
	return r < 0 ? err_sys(e, r, "KVM_GET_SUPPORTED_CPUID") : 0;
}

static int read_msr_list(struct hv_vm *vm, int dev, struct err *e)
{
	_Alignas(8) uint8_t room[sizeof(struct kvm_msr_list) + sizeof(vm->arch.msr)] = {0};
	struct kvm_msr_list *list = (struct kvm_msr_list *)room;
	int r;

	list->nmsrs = KVM_MSRS_MAX;
	r = kvm_call(dev, KVM_GET_MSR_INDEX_LIST, list);
	if (r < 0)
		return err_sys(e, r, "KVM_GET_MSR_INDEX_LIST");
	vm->arch.nmsrs = list->nmsrs;
	memcpy(vm->arch.msr, list->indices, sizeof(vm->arch.msr));
	return 0;
}

int kvm_arch_probe(struct hv_vm *vm, int dev, struct err *e)
{
	int r = kvm_call_value(dev, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	vm->arch.xsave_size = r > 0 ? (uint32_t)r : (uint32_t)sizeof(struct kvm_xsave);
	vm->arch.tsc_deadline = kvm_has(dev, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	vm->arch.has_tsc_khz = kvm_has(dev, KVM_CAP_GET_TSC_KHZ) > 0;
	r = read_supported_cpuid(vm, dev, e);
	return r < 0 ? r : read_msr_list(vm, dev, e);
}

/* Only Intel hosts without unrestricted guest use these pages, but every Intel host wants them set.
 */
static int set_intel_pages(int dev, int vm, struct err *e)
{
	uint64_t identity = HV_X86_INTEL_PAGES;
	int r = 0;

	if (kvm_has(dev, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
		r = kvm_call(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (r < 0)
		return err_sys(e, r, "KVM_SET_IDENTITY_MAP_ADDR");
	if (kvm_has(dev, KVM_CAP_SET_TSS_ADDR) > 0)
		r = kvm_call_value(vm, KVM_SET_TSS_ADDR, HV_X86_INTEL_PAGES + HV_PAGE);
	return r < 0 ? err_sys(e, r, "KVM_SET_TSS_ADDR") : 0;
}

static int enable(int vm, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap ec = {.cap = cap, .args = {arg}};

	return kvm_call(vm, KVM_ENABLE_CAP, &ec);
}

int kvm_arch_init_vm(struct hv_vm *vm, int dev, struct err *e)
{
	int r = set_intel_pages(dev, vm->fd, e);

	if (r < 0)
		return r;
	r = enable(vm->fd, KVM_CAP_SPLIT_IRQCHIP, vm->nlines);
	if (r < 0)
		return err_sys(e, r, "KVM_CAP_SPLIT_IRQCHIP with %u lines", vm->nlines);
	/* The guest's CPUID has no PMU; where KVM can, it also takes the code behind it out of
	 * reach. */
	if (kvm_has(dev, KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE) {
		r = enable(vm->fd, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
		if (r < 0)
			return err_sys(e, r, "KVM_CAP_PMU_CAPABILITY");
	}
	return 0;
}

void kvm_arch_free_vm(struct hv_vm *vm)
{
	free(vm->arch.supported);
}

/* ---- a vCPU ---- */

/* What firmware would have done on each CPU: string instructions at full speed, and memory cached.
 * (With the MTRRs off, Linux turns the PAT off too.) For SGX: that it may be used. */
unsigned kvm_x86_first_msrs(const struct kvm_arch_vm *a, struct kvm_msr_entry m[KVM_FIRST_MSRS])
{
	static const struct kvm_msr_entry first[KVM_FIRST_MSRS] = {
		{.index = MSR_MISC_ENABLE,
		 .data = MISC_FAST_STRING | MISC_BTS_UNAVAILABLE | MISC_PEBS_UNAVAILABLE},
		{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED | MTRR_WRITE_BACK},
		{.index = MSR_FEATURE_CONTROL, .data = FEATURES_LOCKED | FEATURES_SGX},
	};

	memcpy(m, first, sizeof(first));
	if (kvm_cpuid_launches(a->supported))
		m[2].data |= FEATURES_SGX_LC;
	return a->epc_size ? 3 : 2;
}

static int set_msrs(const struct hv_vcpu *v, struct err *e)
{
	struct kvm_msrs *m = calloc(1, sizeof(*m) + KVM_FIRST_MSRS * sizeof(m->entries[0]));
	uint32_t refused = 0;
	int r;

	if (!m)
		return err_set(e, -ENOMEM, "no memory for the MSRs");
	m->nmsrs = kvm_x86_first_msrs(&v->vm->arch, m->entries);
	r = kvm_call(v->fd, KVM_SET_MSRS, m);
	if (r >= 0 && (unsigned)r < m->nmsrs)
		refused = m->entries[r].index;
	free(m);
	if (r < 0)
		return err_sys(e, r, "vCPU %u: KVM_SET_MSRS", v->index);
	return refused ? err_set(e, -EOPNOTSUPP, "vCPU %u: KVM refuses MSR 0x%x", v->index, refused)
		       : 0;
}

uint32_t kvm_x86_tsc_khz(const struct hv_vcpu *v)
{
	int r = v->vm->arch.has_tsc_khz ? kvm_call_value(v->fd, KVM_GET_TSC_KHZ, 0) : 0;

	return r > 0 ? (uint32_t)r : 0;
}

static int set_cpuid(struct hv_vcpu *v, struct err *e)
{
	const struct kvm_arch_vm *a = &v->vm->arch;
	struct kvm_cpuid_params p = {
		.index = v->index,
		.ncpus = v->vm->ncpus,
		.tsc_khz = kvm_x86_tsc_khz(v),
		.tsc_deadline = a->tsc_deadline,
		.epc_gpa = a->epc_gpa,
		.epc_size = a->epc_size,
	};
	struct kvm_cpuid2 *c = kvm_cpuid_alloc();
	unsigned host[4];
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "no memory for the CPUID table");
	if (p.epc_size && __get_cpuid_count(0x12, 2, &host[0], &host[1], &host[2], &host[3]))
		p.epc_kind = host[2] & 0xf;
	memcpy(c->entries, a->supported->entries, a->supported->nent * sizeof(c->entries[0]));
	c->nent = a->supported->nent;
	r = kvm_cpuid_build(c, &p);
	v->arch.cpuid_sum = kvm_cpuid_sum(c);
	if (r == 0)
		r = kvm_call(v->fd, KVM_SET_CPUID2, c);
	free(c);
	return r < 0 ? err_sys(e, r, "vCPU %u: CPUID", v->index) : 0;
}

int kvm_arch_init_vcpu(struct hv_vcpu *v, struct err *e)
{
	int r = set_cpuid(v, e);

	return r < 0 ? r : set_msrs(v, e);
}

/* KVM_KVMCLOCK_CTRL (api.rst, 4.70) sets PVCLOCK_GUEST_STOPPED; EINVAL: the guest has no kvmclock.
 */
void hv_vcpu_was_paused(struct hv_vcpu *v)
{
	(void)kvm_call_value(v->fd, KVM_KVMCLOCK_CTRL, 0);
}
