/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CPUID. KVM has a table and no exit, so the exits come before the guest's first instruction: one
 * for each leaf of the partition's list, with the table's values as the defaults. What the caller
 * writes into RAX to RDX becomes the table.
 */
#include <stdlib.h>
#include <string.h>

#include "kvm.h"

#define HV_LEAVES 0x40000000u
#define LEAF_TOPOLOGY 0xbu

static struct kvm_cpuid2 *alloc_table(void)
{
	struct kvm_cpuid2 *c =
		calloc(1, sizeof(*c) + DOUBLE_CPUIDS * sizeof(struct kvm_cpuid_entry2));

	if (c)
		c->nent = DOUBLE_CPUIDS;
	return c;
}

static struct kvm_cpuid_entry2 *find_leaf(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t sub)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == sub)
			return &c->entries[i];
	return NULL;
}

static struct kvm_cpuid_entry2 *add_leaf(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t sub,
					 bool indexed)
{
	struct kvm_cpuid_entry2 *e = find_leaf(c, leaf, sub);

	if (e || c->nent == DOUBLE_CPUIDS)
		return e;
	e = &c->entries[c->nent++];
	*e = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = sub,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
	return e;
}

/* KVM's own leaves: a guest of this platform sees none of them. */
static void remove_kvm_leaves(struct kvm_cpuid2 *c)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function >> 16 != HV_LEAVES >> 16)
			c->entries[n++] = c->entries[i];
	c->nent = n;
}

static bool within(struct kvm_cpuid2 *c, uint32_t leaf)
{
	const struct kvm_cpuid_entry2 *e = find_leaf(c, leaf & 0x80000000u, 0);

	return e && leaf <= e->eax;
}

/* A level of the topology as a hypervisor says it, so that there is something to correct. */
static void add_topology(struct kvm_cpuid2 *c)
{
	for (uint32_t sub = 0; sub < 3 && within(c, LEAF_TOPOLOGY); sub++) {
		struct kvm_cpuid_entry2 *e = add_leaf(c, LEAF_TOPOLOGY, sub, true);

		if (e && sub < 2) {
			e->ebx = 1;
			e->ecx = (sub + 1) << 8 | sub;
		}
	}
}

/* The leaves of Hyper-V that the partition's synthetic features stand for (TLFS 2.4). */
static void add_hyperv(const struct partition *p, struct kvm_cpuid2 *c)
{
	WHV_SYNTHETIC_PROCESSOR_FEATURES f;
	struct kvm_cpuid_entry2 *e;

	memcpy(&f, &p->synthetic, sizeof(f));
	e = add_leaf(c, HV_LEAVES, 0, false);
	*e = (struct kvm_cpuid_entry2){.function = HV_LEAVES, .eax = HV_LEAVES + 5};
	memcpy(&e->ebx, "Micr", 4);
	memcpy(&e->ecx, "osof", 4);
	memcpy(&e->edx, "t Hv", 4);
	e = add_leaf(c, HV_LEAVES + 1, 0, false);
	memcpy(&e->eax, "Hv#1", 4);
	e = add_leaf(c, HV_LEAVES + 3, 0, false);
	e->eax = (uint32_t)(f.AccessPartitionReferenceCounter << 1 | f.AccessHypercallRegs << 5 |
			    f.AccessVpIndex << 6 | f.AccessPartitionReferenceTsc << 9 |
			    f.AccessFrequencyRegs << 11);
	e->edx = (uint32_t)f.AccessFrequencyRegs << 8;
	e = add_leaf(c, HV_LEAVES + 4, 0, false);
	e->ebx = UINT32_MAX; /* never spin */
	e = add_leaf(c, HV_LEAVES + 5, 0, false);
	e->eax = p->ncpus;
	add_leaf(c, HV_LEAVES + 2, 0, false);
}

/* Leaves of the list that the table lacks, so that they are asked for as well. */
static void add_asked(const struct partition *p, struct kvm_cpuid2 *c)
{
	for (uint32_t i = 0; i < p->ncpuids; i++)
		if (within(c, p->cpuid_list[i]))
			add_leaf(c, p->cpuid_list[i], 0, false);
}

struct kvm_cpuid2 *cpuid_supported(const struct partition *p)
{
	struct kvm_cpuid2 *c = alloc_table();

	if (!c || sys_ioctl(p->kvm, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		free(c);
		return NULL;
	}
	remove_kvm_leaves(c);
	add_topology(c);
	add_asked(p, c);
	if (p->synthetic && c->nent + 6 <= DOUBLE_CPUIDS)
		add_hyperv(p, c);
	return c;
}

static bool is_asked(const struct partition *p, uint32_t leaf)
{
	for (uint32_t i = 0; i < p->ncpuids; i++)
		if (p->cpuid_list[i] == leaf)
			return (p->exit_flags & 1) != 0;
	return false;
}

/* What the platform says by itself. */
HRESULT WINAPI WHvGetVirtualProcessorCpuidOutput(WHV_PARTITION_HANDLE h, UINT32 index, UINT32 leaf,
						 UINT32 sub, WHV_CPUID_OUTPUT *out)
{
	struct vp *v = vp_of(h, index, "WHvGetVirtualProcessorCpuidOutput");
	const struct kvm_cpuid_entry2 *e = v ? find_leaf(v->defaults, leaf, sub) : NULL;

	memset(out, 0, sizeof(*out));
	if (e)
		*out = (WHV_CPUID_OUTPUT){e->eax, e->ebx, e->ecx, e->edx};
	return v ? S_OK : DOUBLE_E_NO_VP;
}

/* Take the answer to the last question out of the registers. */
static bool take_answer(struct vp *v)
{
	struct kvm_cpuid_entry2 *e = &v->cpuid->entries[v->asked++];
	struct kvm_regs r = {0};

	v->asking = false;
	if (sys_ioctl(v->fd, KVM_GET_REGS, &r) < 0)
		return false;
	if (((r.rip ^ (v->saved.rip + 2)) & UINT32_MAX) != 0) {
		complain(E_FAIL, "CPUID 0x%x was answered with RIP 0x%llx after 0x%llx",
			 e->function, (unsigned long long)r.rip, (unsigned long long)v->saved.rip);
		return false;
	}
	e->eax = (uint32_t)r.rax;
	e->ebx = (uint32_t)r.rbx;
	e->ecx = (uint32_t)r.rcx;
	e->edx = (uint32_t)r.rdx;
	return sys_ioctl(v->fd, KVM_SET_REGS, &v->saved) >= 0;
}

static void ask(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x)
{
	const struct kvm_cpuid_entry2 *e = &v->cpuid->entries[v->asked];
	struct kvm_sregs s = {0};

	sys_ioctl(v->fd, KVM_GET_SREGS, &s);
	fill_context(&v->saved, &s, x);
	x->ExitReason = WHvRunVpExitReasonX64Cpuid;
	x->VpContext.InstructionLength = 2;
	x->CpuidAccess.Rax = e->function;
	x->CpuidAccess.Rcx = e->index;
	x->CpuidAccess.Rdx = v->saved.rdx;
	x->CpuidAccess.Rbx = v->saved.rbx;
	x->CpuidAccess.DefaultResultRax = e->eax;
	x->CpuidAccess.DefaultResultRbx = e->ebx;
	x->CpuidAccess.DefaultResultRcx = e->ecx;
	x->CpuidAccess.DefaultResultRdx = e->edx;
	v->asking = true;
}

bool cpuid_ask(struct vp *v, WHV_RUN_VP_EXIT_CONTEXT *x, HRESULT *hr)
{
	*hr = S_OK;
	if (v->configured)
		return false;
	if (v->asking && !take_answer(v)) {
		*hr = E_FAIL;
		return true;
	}
	while (v->asked < v->cpuid->nent && !is_asked(v->p, v->cpuid->entries[v->asked].function))
		v->asked++;
	if (v->asked < v->cpuid->nent) {
		*hr = from_errno(sys_ioctl(v->fd, KVM_GET_REGS, &v->saved));
		ask(v, x);
		return true;
	}
	*hr = from_errno(sys_ioctl(v->fd, KVM_SET_CPUID2, v->cpuid));
	v->configured = true;
	if (*hr != S_OK)
		complain(*hr, "KVM refuses the CPUID of processor %u", v->index);
	return *hr != S_OK;
}
