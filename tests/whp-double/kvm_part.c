/* SPDX-License-Identifier: BSD-2-Clause */
/* The host's abilities, partitions and their properties, guest memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/hv_x86.h>

#include "kvm.h"

static int has(int kvm, uintptr_t cap)
{
	return sys_ioctl(kvm, KVM_CHECK_EXTENSION, (const void *)cap);
}

/* ---- capabilities ---- */

static WHV_PROCESSOR_VENDOR vendor(void)
{
	uint32_t a = 0, b, c, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	if (b == 0x756e6547) /* "Genu" */
		return WHvProcessorVendorIntel;
	return b == 0x6f677948 ? WHvProcessorVendorHygon : WHvProcessorVendorAmd;
}

uint64_t tsc_hz_of(int vcpu)
{
	int khz = sys_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);

	return khz > 0 ? (uint64_t)khz * 1000 : 0;
}

/* Only a virtual processor knows the frequency. */
static uint64_t tsc_hz(int kvm)
{
	int vm = sys_ioctl(kvm, KVM_CREATE_VM, NULL);
	int vcpu = vm < 0 ? vm : sys_ioctl(vm, KVM_CREATE_VCPU, NULL);
	uint64_t hz = vcpu < 0 ? 0 : tsc_hz_of(vcpu);

	sys_close(vcpu);
	sys_close(vm);
	return hz;
}

/* KVM's own likeness of Hyper-V, where it has one. */
static bool synthetic(int kvm, WHV_SYNTHETIC_PROCESSOR_FEATURES_BANKS *s)
{
	memset(s, 0, sizeof(*s));
	if (has(kvm, KVM_CAP_HYPERV_CPUID) <= 0 || has(kvm, KVM_CAP_HYPERV_TIME) <= 0)
		return false;
	s->BanksCount = 1;
	s->Bank0.HypervisorPresent = 1;
	s->Bank0.Hv1 = 1;
	s->Bank0.AccessPartitionReferenceCounter = 1;
	s->Bank0.AccessHypercallRegs = 1;
	s->Bank0.AccessVpIndex = 1;
	s->Bank0.AccessPartitionReferenceTsc = 1;
	s->Bank0.AccessFrequencyRegs = 1;
	return true;
}

HRESULT give(void *buf, UINT32 size, UINT32 *written, const void *v, UINT32 n)
{
	if (written)
		*written = n;
	if (size < n)
		return DOUBLE_E_BUFFER;
	memcpy(buf, v, n);
	return S_OK;
}

static HRESULT capability(int kvm, WHV_CAPABILITY_CODE code, void *buf, UINT32 size,
			  UINT32 *written)
{
	WHV_SYNTHETIC_PROCESSOR_FEATURES_BANKS s;
	WHV_CAPABILITY_FEATURES f = {.LocalApicEmulation = 1, .DirtyPageTracking = 1};
	WHV_EXTENDED_VM_EXITS x = {.X64CpuidExit = 1};
	WHV_PROCESSOR_VENDOR who = vendor();
	UINT64 hz;

	switch (code) {
	case WHvCapabilityCodeFeatures:
		return give(buf, size, written, &f, sizeof(f));
	case WHvCapabilityCodeExtendedVmExits:
		x.X64MsrExit = has(kvm, KVM_CAP_X86_USER_SPACE_MSR) > 0;
		return give(buf, size, written, &x, sizeof(x));
	case WHvCapabilityCodeProcessorVendor:
		return give(buf, size, written, &who, sizeof(who));
	case WHvCapabilityCodeProcessorClockFrequency:
		hz = tsc_hz(kvm);
		return give(buf, size, written, &hz, sizeof(hz));
	case WHvCapabilityCodeInterruptClockFrequency:
		hz = DOUBLE_APIC_HZ;
		return give(buf, size, written, &hz, sizeof(hz));
	case WHvCapabilityCodeSyntheticProcessorFeaturesBanks:
		if (synthetic(kvm, &s))
			return give(buf, size, written, &s, sizeof(s));
		return DOUBLE_E_UNKNOWN_CAPABILITY;
	default:
		return DOUBLE_E_UNKNOWN_CAPABILITY;
	}
}

HRESULT WINAPI WHvGetCapability(WHV_CAPABILITY_CODE code, VOID *buf, UINT32 size, UINT32 *written)
{
	int kvm = sys_open("/dev/kvm");
	BOOL present = kvm >= 0;
	HRESULT hr = DOUBLE_E_UNKNOWN_CAPABILITY;

	if (code == WHvCapabilityCodeHypervisorPresent)
		hr = give(buf, size, written, &present, sizeof(present));
	else if (present)
		hr = capability(kvm, code, buf, size, written);
	sys_close(kvm);
	return hr;
}

/* ---- partitions ---- */

struct partition *partition_of(WHV_PARTITION_HANDLE h, const char *function)
{
	struct partition *p = h;

	if (p && p->set_up)
		return p;
	complain(E_INVALIDARG, "%s: not a partition that is set up", function);
	return NULL;
}

HRESULT WINAPI WHvCreatePartition(WHV_PARTITION_HANDLE *out)
{
	struct partition *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (!p)
		return E_OUTOFMEMORY;
	p->vm = p->wake = -1;
	for (unsigned i = 0; i < DOUBLE_VPS; i++)
		p->vp[i].fd = -1;
	InitializeSRWLock(&p->lock);
	p->kvm = sys_open("/dev/kvm");
	p->vm = p->kvm < 0 ? -1 : sys_ioctl(p->kvm, KVM_CREATE_VM, NULL);
	if (p->vm < 0) {
		sys_close(p->kvm);
		free(p);
		return complain(E_ACCESSDENIED, "WHvCreatePartition: /dev/kvm gives no VM");
	}
	*out = p;
	return S_OK;
}

static HRESULT set_synthetic(struct partition *p, const void *buf, UINT32 size)
{
	WHV_SYNTHETIC_PROCESSOR_FEATURES_BANKS offer, want = {0};

	if (size > sizeof(want) || !synthetic(p->kvm, &offer))
		return DOUBLE_E_UNKNOWN_PROPERTY;
	memcpy(&want, buf, size);
	if (want.BanksCount != 1 || (want.AsUINT64[0] & ~offer.AsUINT64[0]))
		return E_INVALIDARG;
	p->synthetic = want.AsUINT64[0];
	return S_OK;
}

static HRESULT set_cpuid_list(struct partition *p, const void *buf, UINT32 size)
{
	if (size % 4 || size > sizeof(p->cpuid_list))
		return complain(E_INVALIDARG, "CpuidExitList of %u bytes", size);
	memcpy(p->cpuid_list, buf, size);
	p->ncpuids = size / 4;
	return S_OK;
}

HRESULT WINAPI WHvSetPartitionProperty(WHV_PARTITION_HANDLE h, WHV_PARTITION_PROPERTY_CODE code,
				       const VOID *buf, UINT32 size)
{
	struct partition *p = h;
	UINT64 v = 0;

	if (p && p->set_up && code == WHvPartitionPropertyCodeReferenceTime)
		return state_set_time(p, buf, size);
	if (!p || p->set_up)
		return complain(E_INVALIDARG, "property 0x%x: no partition, or set up", code);
	memcpy(&v, buf, size < sizeof(v) ? size : sizeof(v));
	switch (code) {
	case WHvPartitionPropertyCodeProcessorCount:
		p->ncpus = (uint32_t)v;
		return v >= 1 && v <= DOUBLE_VPS ? S_OK : E_INVALIDARG;
	case WHvPartitionPropertyCodeLocalApicEmulationMode:
		p->lapic = (uint32_t)v;
		return v <= WHvX64LocalApicEmulationModeX2Apic ? S_OK : E_INVALIDARG;
	case WHvPartitionPropertyCodeExtendedVmExits:
		p->exit_flags = v;
		return v <= 3 ? S_OK : E_INVALIDARG;
	case WHvPartitionPropertyCodeX64MsrExitBitmap:
		p->msr_bitmap = v;
		return v <= 1 ? S_OK : E_INVALIDARG;
	case WHvPartitionPropertyCodeCpuidExitList:
		return set_cpuid_list(p, buf, size);
	case WHvPartitionPropertyCodeSeparateSecurityDomain:
		return S_OK; /* what it is for is not in question here */
	case WHvPartitionPropertyCodeSyntheticProcessorFeaturesBanks:
		return set_synthetic(p, buf, size);
	default:
		return DOUBLE_E_UNKNOWN_PROPERTY;
	}
}

static int enable(int vm, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

	return sys_ioctl(vm, KVM_ENABLE_CAP, &c);
}

/* As src/hv/kvm does it; the pages of Intel hosts lie where src/hv/common.c lets nothing else. */
static int set_up(struct partition *p)
{
	uint64_t identity = HV_X86_INTEL_PAGES;
	int r = 0;

	if (has(p->kvm, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
		r = sys_ioctl(p->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (r >= 0 && has(p->kvm, KVM_CAP_SET_TSS_ADDR) > 0)
		r = sys_ioctl(p->vm, KVM_SET_TSS_ADDR,
			      (const void *)(uintptr_t)(HV_X86_INTEL_PAGES + 0x1000));
	if (r >= 0)
		r = enable(p->vm, KVM_CAP_SPLIT_IRQCHIP, DOUBLE_LEVELS);
	if (r >= 0 && (p->exit_flags & 2) && (p->msr_bitmap & 1))
		r = enable(p->vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
	if (r >= 0)
		r = sys_ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r >= 0)
		p->run_size = (size_t)r;
	return r < 0 ? r : start_watcher(p);
}

HRESULT WINAPI WHvSetupPartition(WHV_PARTITION_HANDLE h)
{
	struct partition *p = h;
	int r;

	if (!p || p->set_up || !p->ncpus)
		return complain(DOUBLE_E_INVALID_CONFIG, "WHvSetupPartition: no ProcessorCount");
	if (p->lapic == WHvX64LocalApicEmulationModeNone)
		return complain(E_NOTIMPL, "without a local APIC: not in this double");
	r = set_up(p);
	p->set_up = r >= 0;
	return r < 0 ? complain(from_errno(r), "WHvSetupPartition: errno %d", -r) : S_OK;
}

HRESULT WINAPI WHvDeletePartition(WHV_PARTITION_HANDLE h)
{
	struct partition *p = h;

	if (!p)
		return complain(E_INVALIDARG, "WHvDeletePartition: no partition");
	for (unsigned i = 0; i < DOUBLE_BELLS; i++)
		if (p->bell[i].used)
			complain(S_OK, "WHvDeletePartition with a doorbell");
	stop_watcher(p);
	close_vps(p);
	sys_close(p->vm);
	sys_close(p->kvm);
	free(p);
	return S_OK;
}

/* ---- memory ---- */

static struct slot *find_slot(struct partition *p, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < DOUBLE_SLOTS; i++)
		if (p->slot[i].used && p->slot[i].gpa == gpa && p->slot[i].size == size)
			return &p->slot[i];
	return NULL;
}

static struct slot *free_slot(struct partition *p)
{
	for (unsigned i = 0; i < DOUBLE_SLOTS; i++)
		if (!p->slot[i].used)
			return &p->slot[i];
	return NULL;
}

static bool overlaps(const struct partition *p, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < DOUBLE_SLOTS; i++)
		if (p->slot[i].used && gpa < p->slot[i].gpa + p->slot[i].size &&
		    p->slot[i].gpa < gpa + size)
			return true;
	return false;
}

static int set_region(struct partition *p, const struct slot *s, uint64_t size)
{
	struct kvm_userspace_memory_region m = {
		.slot = (uint32_t)(s - p->slot),
		.guest_phys_addr = s->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)s->host,
	};

	if (!(s->flags & WHvMapGpaRangeFlagWrite))
		m.flags |= KVM_MEM_READONLY;
	if (s->flags & WHvMapGpaRangeFlagTrackDirtyPages)
		m.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	return sys_ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &m);
}

static HRESULT map(struct partition *p, const struct slot *s)
{
	struct slot *to = free_slot(p);
	int r;

	if (overlaps(p, s->gpa, s->size)) /* the platform would replace what was there */
		return complain(E_NOTIMPL, "WHvMapGpaRange over another range");
	if (!to)
		return complain(E_OUTOFMEMORY, "more than %d ranges", DOUBLE_SLOTS);
	*to = *s;
	r = set_region(p, to, to->size);
	to->used = r >= 0;
	return from_errno(r);
}

HRESULT WINAPI WHvMapGpaRange(WHV_PARTITION_HANDLE h, VOID *host, WHV_GUEST_PHYSICAL_ADDRESS gpa,
			      UINT64 size, WHV_MAP_GPA_RANGE_FLAGS flags)
{
	struct partition *p = partition_of(h, "WHvMapGpaRange");
	struct slot s = {true, gpa, size, host, flags};
	HRESULT hr;

	if (!p || !host || !size || ((uintptr_t)host | gpa | size) % DOUBLE_PAGE ||
	    !(flags & WHvMapGpaRangeFlagRead))
		return complain(E_INVALIDARG, "WHvMapGpaRange: not pages, or not readable");
	AcquireSRWLockExclusive(&p->lock);
	hr = map(p, &s);
	ReleaseSRWLockExclusive(&p->lock);
	return hr;
}

HRESULT WINAPI WHvUnmapGpaRange(WHV_PARTITION_HANDLE h, WHV_GUEST_PHYSICAL_ADDRESS gpa, UINT64 size)
{
	struct partition *p = partition_of(h, "WHvUnmapGpaRange");
	HRESULT hr = DOUBLE_E_NO_RANGE;
	struct slot *s;

	if (!p)
		return E_INVALIDARG;
	AcquireSRWLockExclusive(&p->lock);
	s = find_slot(p, gpa, size);
	if (s) {
		hr = from_errno(set_region(p, s, 0));
		s->used = false;
	}
	ReleaseSRWLockExclusive(&p->lock);
	return s ? hr : complain(hr, "WHvUnmapGpaRange: not what was mapped");
}

HRESULT WINAPI WHvQueryGpaRangeDirtyBitmap(WHV_PARTITION_HANDLE h, WHV_GUEST_PHYSICAL_ADDRESS gpa,
					   UINT64 size, UINT64 *bitmap, UINT32 bytes)
{
	struct partition *p = partition_of(h, "WHvQueryGpaRangeDirtyBitmap");
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	struct slot *s;
	HRESULT hr;

	if (!p || !bitmap || bytes != (size / DOUBLE_PAGE + 63) / 64 * 8)
		return complain(E_INVALIDARG, "WHvQueryGpaRangeDirtyBitmap: %u bytes", bytes);
	AcquireSRWLockExclusive(&p->lock);
	s = find_slot(p, gpa, size);
	if (s && (s->flags & WHvMapGpaRangeFlagTrackDirtyPages)) {
		log.slot = (uint32_t)(s - p->slot);
		hr = from_errno(sys_ioctl(p->vm, KVM_GET_DIRTY_LOG, &log));
	} else {
		hr = complain(DOUBLE_E_NO_RANGE, "no dirty pages are tracked there");
	}
	ReleaseSRWLockExclusive(&p->lock);
	return hr;
}
