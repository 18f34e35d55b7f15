/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CPUID of a vCPU: what KVM supports, then
 *   - the topology: one package, `ncpus` cores of one thread, APIC id = index, one last-level cache
 *     for all, the others private. Every place that says so, for both vendors, must agree, or an
 *     SMP kernel builds nonsense;
 *   - the hypervisor's leaves, with the frequencies of TSC and APIC timer, so that a guest need not
 *     measure them;
 *   - away with what an untrusted guest has no use for and that reaches much code of the host:
 *     nested virtualization, performance counters; SGX, unless there is memory for enclaves.
 *
 * Intel SDM vol. 2A, CPUID, and vol. 3D, "Intel SGX Resource Enumeration Leaves"; AMD APM vol. 3,
 * appendix E; Documentation/virt/kvm/x86/cpuid.rst. Pure: no system call.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "hv/kvm/backend.h"

enum {
	LEAF_FEATURES = 1,
	LEAF_CACHE = 4,
	LEAF_EXTENDED = 7,
	LEAF_PMU = 0xa,
	LEAF_TOPOLOGY = 0xb,
	LEAF_XSAVE = 0xd,
	LEAF_SGX = 0x12,
	LEAF_TOPOLOGY_V2 = 0x1f,
};
#define LEAF_HV 0x40000000u
#define LEAF_HV_FREQUENCY 0x40000010u
#define LEAF_AMD 0x80000000u
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_BRAND 0x80000002u /* and the two after it */
#define LEAF_AMD_L1 0x80000005u
#define LEAF_AMD_SIZES 0x80000008u
#define LEAF_AMD_SVM 0x8000000au
#define LEAF_AMD_CACHE 0x8000001du
#define LEAF_AMD_IDS 0x8000001eu
#define LEAF_AMD_PMU 0x80000022u
#define LEAF_AMD_TOPOLOGY 0x80000026u

#define F1_ECX_DTES64 (1u << 2)
#define F1_ECX_VMX (1u << 5)
#define F1_ECX_PDCM (1u << 15)
#define F1_ECX_TSC_DEADLINE (1u << 24)
#define F1_ECX_HYPERVISOR (1u << 31)
#define F1_EDX_DS (1u << 21)
#define F1_EDX_HTT (1u << 28)
#define F7_EBX_SGX (1u << 2)
#define F7_ECX_SGX_LC (1u << 30)
#define SGX_EAX_PROVISIONKEY (1u << 4) /* of sub-leaf 1 */
#define SGX_ECX_X87_SSE 3u
#define SGX_SECTION 1u
#define A1_ECX_CMP_LEGACY (1u << 1)
#define A1_ECX_SVM (1u << 2)
#define A1_ECX_PERFCTR (1u << 23 | 1u << 24 | 1u << 28) /* core, northbridge, last-level cache */

#define TOPOLOGY_SMT 1u
#define TOPOLOGY_CORE 2u
#define APIC_BUS_KHZ 1000000u /* KVM's APIC timer counts nanoseconds */

struct kvm_cpuid2 *kvm_cpuid_alloc(void)
{
	struct kvm_cpuid2 *c =
		calloc(1, sizeof(*c) + KVM_CPUID_MAX * sizeof(struct kvm_cpuid_entry2));

	if (c)
		c->nent = KVM_CPUID_MAX;
	return c;
}

static struct kvm_cpuid_entry2 *find_leaf(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == sub)
			return &c->entries[i];
	return NULL;
}

static void drop_leaf(struct kvm_cpuid2 *c, uint32_t leaf)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function != leaf)
			c->entries[kept++] = c->entries[i];
	c->nent = kept;
}

static int put_leaf(struct kvm_cpuid2 *c, const struct kvm_cpuid_entry2 *e)
{
	struct kvm_cpuid_entry2 *old = find_leaf(c, e->function, e->index);

	if (!old && c->nent == KVM_CPUID_MAX)
		return -E2BIG;
	if (!old)
		old = &c->entries[c->nent++];
	*old = *e;
	return 0;
}

/* The highest leaf of the range that begins with `first`; 0 if there is none. */
static uint32_t highest(struct kvm_cpuid2 *c, uint32_t first)
{
	const struct kvm_cpuid_entry2 *e = find_leaf(c, first, 0);

	return e ? e->eax : 0;
}

static uint32_t put_flag(uint32_t reg, uint32_t flag, bool on)
{
	return on ? reg | flag : reg & ~flag;
}

static void set_features(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e = find_leaf(c, LEAF_FEATURES, 0);

	if (!e)
		return;
	e->ebx = hv_put_field(e->ebx, 24, 8, p->index);
	e->ebx = hv_put_field(e->ebx, 16, 8, 1u << hv_core_bits(p->ncpus));
	e->ecx &= ~(F1_ECX_DTES64 | F1_ECX_VMX | F1_ECX_PDCM);
	e->ecx = put_flag(e->ecx, F1_ECX_TSC_DEADLINE, p->tsc_deadline);
	e->ecx |= F1_ECX_HYPERVISOR;
	e->edx &= ~F1_EDX_DS;
	e->edx = put_flag(e->edx, F1_EDX_HTT, p->ncpus > 1);
}

static void set_amd_features(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p, bool amd)
{
	struct kvm_cpuid_entry2 *e = find_leaf(c, LEAF_AMD_FEATURES, 0);

	if (!e)
		return;
	e->ecx &= ~(A1_ECX_SVM | A1_ECX_PERFCTR);
	e->ecx = put_flag(e->ecx, A1_ECX_CMP_LEGACY, amd && p->ncpus > 1);
}

/*
 * Sub-leaves 0 and 1 are KVM's, but for two things that it leaves to us: no enclave of a guest gets
 * the provisioning key, by which it could tell the machine; and none saves registers that XCR0 does
 * not have. Sub-leaf 2 is the one section; the next one is not there, and so reads 0.
 */
static int put_sgx(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	const struct kvm_cpuid_entry2 *old[] = {
		find_leaf(c, LEAF_SGX, 0), find_leaf(c, LEAF_SGX, 1), find_leaf(c, LEAF_XSAVE, 0)};
	struct kvm_cpuid_entry2 e[3] = {[2] = {.function = LEAF_SGX,
					       .index = 2,
					       .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
					       .eax = (uint32_t)p->epc_gpa | SGX_SECTION,
					       .ebx = (uint32_t)(p->epc_gpa >> 32),
					       .ecx = (uint32_t)p->epc_size | p->epc_kind,
					       .edx = (uint32_t)(p->epc_size >> 32)}};
	int r = 0;

	if (!old[0] || !old[1])
		return -EOPNOTSUPP;
	e[0] = *old[0];
	e[1] = *old[1];
	e[1].eax &= ~SGX_EAX_PROVISIONKEY;
	e[1].ecx = (e[1].ecx & (old[2] ? old[2]->eax : 0)) | SGX_ECX_X87_SSE;
	e[1].edx &= old[2] ? old[2]->edx : 0;
	drop_leaf(c, LEAF_SGX);
	for (unsigned i = 0; i < ARRAY_LEN(e) && r == 0; i++)
		r = put_leaf(c, &e[i]);
	return r;
}

static int set_sgx(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	struct kvm_cpuid_entry2 *f = find_leaf(c, LEAF_EXTENDED, 0);

	if (p->epc_size)
		return f && (f->ebx & F7_EBX_SGX) ? put_sgx(c, p) : -EOPNOTSUPP;
	if (f) {
		f->ebx &= ~F7_EBX_SGX;
		f->ecx &= ~F7_ECX_SGX_LC;
	}
	drop_leaf(c, LEAF_SGX);
	return 0;
}

bool kvm_cpuid_launches(struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *f = find_leaf(c, LEAF_EXTENDED, 0);

	return f && (f->ecx & F7_ECX_SGX_LC);
}

/* Leaf 4 counts APIC ids, AMD's twin of it counts processors. Level 3 is shared by all, the others
 * by nobody. */
static void set_caches(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	uint32_t ids = (1u << hv_core_bits(p->ncpus)) - 1;

	for (unsigned i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];
		bool shared = (e->eax >> 5 & 7) >= 3;

		if ((e->eax & 31) == 0) /* no cache: end of the list */
			continue;
		if (e->function == LEAF_CACHE) {
			e->eax = hv_put_field(e->eax, 14, 12, shared ? ids : 0);
			e->eax = hv_put_field(e->eax, 26, 6, ids);
		} else if (e->function == LEAF_AMD_CACHE) {
			e->eax = hv_put_field(e->eax, 14, 12, shared ? p->ncpus - 1 : 0);
		}
	}
}

/* Leaves 0xb and 0x1f: level 0 threads, level 1 cores, then the end. The APIC id is in all of them.
 */
static int set_topology(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p, uint32_t leaf)
{
	const struct kvm_cpuid_entry2 level[] = {
		{.ebx = 1, .ecx = TOPOLOGY_SMT << 8},
		{.eax = hv_core_bits(p->ncpus), .ebx = p->ncpus, .ecx = TOPOLOGY_CORE << 8},
		{0},
	};
	int r = 0;

	drop_leaf(c, leaf);
	for (uint32_t i = 0; i < ARRAY_LEN(level) && r == 0; i++) {
		struct kvm_cpuid_entry2 e = level[i];

		e.function = leaf;
		e.index = i;
		e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e.ecx |= i;
		e.edx = p->index;
		r = put_leaf(c, &e);
	}
	return r;
}

static int set_topologies(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	uint32_t max = highest(c, 0);
	int r = 0;

	drop_leaf(c, LEAF_AMD_TOPOLOGY);
	drop_leaf(c, LEAF_TOPOLOGY_V2);
	if (max >= LEAF_TOPOLOGY)
		r = set_topology(c, p, LEAF_TOPOLOGY);
	if (r == 0 && max >= LEAF_TOPOLOGY_V2)
		r = set_topology(c, p, LEAF_TOPOLOGY_V2);
	return r;
}

static int set_amd_ids(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	struct kvm_cpuid_entry2 ids = {.function = LEAF_AMD_IDS, .eax = p->index, .ebx = p->index};
	struct kvm_cpuid_entry2 *e = find_leaf(c, LEAF_AMD_SIZES, 0);

	if (e) {
		e->ecx = hv_put_field(e->ecx, 0, 8, p->ncpus - 1);
		e->ecx = hv_put_field(e->ecx, 12, 4, hv_core_bits(p->ncpus));
	}
	/* Core = index, one thread each; node 0 of one. */
	return highest(c, LEAF_AMD) >= LEAF_AMD_IDS ? put_leaf(c, &ids) : 0;
}

static int set_hypervisor(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	struct kvm_cpuid_entry2 f = {
		.function = LEAF_HV_FREQUENCY,
		.eax = p->tsc_khz,
		.ebx = APIC_BUS_KHZ,
	};
	struct kvm_cpuid_entry2 *e = find_leaf(c, LEAF_HV, 0);

	if (!e || !p->tsc_khz)
		return 0;
	if (e->eax < LEAF_HV_FREQUENCY)
		e->eax = LEAF_HV_FREQUENCY;
	return put_leaf(c, &f);
}

/* KVM leaves the processor's name empty; a guest may know it, it can measure what it is. */
static int set_brand(struct kvm_cpuid2 *c)
{
	int r = 0;

	for (uint32_t i = 0; i < 3 && r == 0; i++) {
		struct kvm_cpuid_entry2 e = {.function = LEAF_BRAND + i};

		if (__get_cpuid(e.function, &e.eax, &e.ebx, &e.ecx, &e.edx))
			r = put_leaf(c, &e);
	}
	return r;
}

/* Older KVMs leave AMD's first caches out. Without them a guest's kernel makes no list of caches at
 * all, not even of those that KVM does tell. */
static int set_amd_l1(struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *old = find_leaf(c, LEAF_AMD_L1, 0);
	struct kvm_cpuid_entry2 e = {.function = LEAF_AMD_L1};

	if ((old && (old->eax || old->ebx || old->ecx || old->edx)) ||
	    !__get_cpuid(e.function, &e.eax, &e.ebx, &e.ecx, &e.edx))
		return 0;
	return put_leaf(c, &e);
}

static bool vendor_is_amd(struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *e = find_leaf(c, 0, 0);

	/* "AuthenticAMD" or "HygonGenuine" */
	return e && ((e->ebx == 0x68747541 && e->edx == 0x69746e65 && e->ecx == 0x444d4163) ||
		     (e->ebx == 0x6f677948 && e->edx == 0x6e65476e && e->ecx == 0x656e6975));
}

int kvm_cpuid_build(struct kvm_cpuid2 *c, const struct kvm_cpuid_params *p)
{
	bool amd = vendor_is_amd(c);
	int r;

	drop_leaf(c, LEAF_PMU);
	drop_leaf(c, LEAF_AMD_SVM);
	drop_leaf(c, LEAF_AMD_PMU);
	set_features(c, p);
	set_amd_features(c, p, amd);
	set_caches(c, p);
	r = set_sgx(c, p);
	if (r == 0)
		r = set_topologies(c, p);
	if (r == 0 && amd)
		r = set_amd_ids(c, p);
	if (r == 0)
		r = set_hypervisor(c, p);
	if (r == 0)
		r = set_brand(c);
	if (r == 0 && amd)
		r = set_amd_l1(c);
	return r;
}

uint64_t kvm_cpuid_sum(const struct kvm_cpuid2 *c)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325); /* FNV-1a, of words */

	for (unsigned i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *n = &c->entries[i];
		const uint32_t word[] = {n->function, n->index, n->eax, n->ebx, n->ecx, n->edx};

		for (unsigned k = 0; k < ARRAY_LEN(word) && n->function != LEAF_HV_FREQUENCY; k++)
			sum = (sum ^ word[k]) * UINT64_C(0x100000001b3);
	}
	return sum;
}
