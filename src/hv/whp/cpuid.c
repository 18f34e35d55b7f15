/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The leaves of CPUID that differ between vCPUs, or that the guest must not have: they exit, and
 * the hypervisor's answer is corrected here. The same machine as with KVM (src/hv/kvm/cpuid.c): one
 * package, `ncpus` cores of one thread, APIC id = index, the last-level cache shared by all.
 *
 * The table of results that a partition can have (CpuidResultList) knows neither subleaves nor
 * vCPUs in Windows 10, so exits it is; a guest asks a few dozen times while it boots.
 *
 * Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. Pure.
 */
#include <insula/base.h>

#include "hv/whp/backend.h"

enum { EAX, EBX, ECX, EDX };

#define F1_ECX_OUT (1u << 2 | 1u << 5 | 1u << 15) /* DTES64, VMX, PDCM */
#define F1_ECX_HYPERVISOR (1u << 31)
#define F1_EDX_DS (1u << 21)
#define F1_EDX_HTT (1u << 28)
#define A1_ECX_CMP_LEGACY (1u << 1)
#define A1_ECX_OUT (1u << 2 | 1u << 23 | 1u << 24 | 1u << 28) /* SVM, performance counters */
#define LEVEL_SMT 1u
#define LEVEL_CORE 2u

typedef void fix_fn(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r);

static void fix_features(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)subleaf;
	r[EBX] = hv_put_field(r[EBX], 24, 8, p->index);
	r[EBX] = hv_put_field(r[EBX], 16, 8, 1u << hv_core_bits(p->ncpus));
	r[ECX] = (r[ECX] & ~F1_ECX_OUT) | F1_ECX_HYPERVISOR;
	r[EDX] &= ~(F1_EDX_DS | F1_EDX_HTT);
	if (p->ncpus > 1)
		r[EDX] |= F1_EDX_HTT;
}

static bool is_shared(const uint32_t *r)
{
	return (r[EAX] >> 5 & 7) >= 3; /* the cache's level */
}

static void fix_cache(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	uint32_t ids = (1u << hv_core_bits(p->ncpus)) - 1;

	(void)subleaf;
	if ((r[EAX] & 31) == 0)
		return;
	r[EAX] = hv_put_field(r[EAX], 14, 12, is_shared(r) ? ids : 0);
	r[EAX] = hv_put_field(r[EAX], 26, 6, ids);
}

static void clear(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)p;
	(void)subleaf;
	r[EAX] = r[EBX] = r[ECX] = r[EDX] = 0;
}

/* Leaves 0xb and 0x1f. A processor without the leaf says zero in all of level 0, and keeps it. */
static void fix_topology(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	if (subleaf == 0 && !(r[EAX] | r[EBX] | r[ECX]))
		return;
	r[EAX] = r[EBX] = 0;
	r[ECX] = subleaf & 0xff;
	r[EDX] = p->index;
	if (subleaf == 0) {
		r[EBX] = 1;
		r[ECX] |= LEVEL_SMT << 8;
	} else if (subleaf == 1) {
		r[EAX] = hv_core_bits(p->ncpus);
		r[EBX] = p->ncpus;
		r[ECX] |= LEVEL_CORE << 8;
	}
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/*
 * TSC = crystal * EBX / EAX. Linux takes the crystal for the APIC timer's frequency too, and
 * computes in 32 bits and kHz, so the ratio is given as finely as that allows.
 */
static void fix_tsc(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)subleaf;
	if (!p->tsc_hz || !p->apic_hz || p->apic_hz > UINT32_MAX)
		return;
	for (uint64_t unit = 1000; unit <= 1000000; unit *= 10) {
		uint64_t tsc = p->tsc_hz / unit, apic = p->apic_hz / unit, d = gcd(tsc, apic);

		if (!tsc || !apic || p->apic_hz / 1000 * (tsc / d) > UINT32_MAX)
			continue;
		r[EAX] = (uint32_t)(apic / d);
		r[EBX] = (uint32_t)(tsc / d);
		r[ECX] = (uint32_t)p->apic_hz;
		r[EDX] = 0;
		return;
	}
}

static void fix_amd_features(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)subleaf;
	r[ECX] &= ~(A1_ECX_OUT | A1_ECX_CMP_LEGACY);
	if (p->amd && p->ncpus > 1)
		r[ECX] |= A1_ECX_CMP_LEGACY;
}

static void fix_amd_sizes(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)subleaf;
	if (!p->amd)
		return;
	r[ECX] = hv_put_field(r[ECX], 0, 8, p->ncpus - 1);
	r[ECX] = hv_put_field(r[ECX], 12, 4, hv_core_bits(p->ncpus));
}

static void fix_amd_cache(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)subleaf;
	if (p->amd && (r[EAX] & 31) != 0)
		r[EAX] = hv_put_field(r[EAX], 14, 12, is_shared(r) ? p->ncpus - 1 : 0);
}

static void fix_amd_ids(const struct whp_cpuid_params *p, uint32_t subleaf, uint32_t *r)
{
	(void)subleaf;
	if (!p->amd)
		return;
	r[EAX] = r[EBX] = p->index;
	r[ECX] = r[EDX] = 0;
}

const uint32_t whp_cpuid_exits[] = {
	1,          4,          0xa,        0xb,        0x15,       0x1f,       0x80000001,
	0x80000008, 0x8000000a, 0x8000001d, 0x8000001e, 0x80000022, 0x80000026,
};
const unsigned whp_cpuid_nexits = ARRAY_LEN(whp_cpuid_exits);

/* In the order of the leaves. */
static fix_fn *const fixes[ARRAY_LEN(whp_cpuid_exits)] = {
	fix_features,
	fix_cache,
	clear,
	fix_topology,
	fix_tsc,
	fix_topology,
	fix_amd_features,
	fix_amd_sizes,
	clear,
	fix_amd_cache,
	fix_amd_ids,
	clear,
	clear,
};

void whp_cpuid_fix(const struct whp_cpuid_params *p, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	for (unsigned i = 0; i < whp_cpuid_nexits; i++)
		if (whp_cpuid_exits[i] == leaf)
			fixes[i](p, subleaf, r);
}
