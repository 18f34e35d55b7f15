/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A partition's time, suspended: on resumption each TSC, and KVM's clock (which Hyper-V's reference
 * time is made of), go on where they were. As on the platform the next run resumes it.
 */
#include "kvm.h"

#define MSR_TSC 0x10

static int tsc(struct vp *v, uint32_t request, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = {.head = {.nmsrs = 1}, .entry = {.index = MSR_TSC, .data = *value}};
	int r = sys_ioctl(v->fd, request, &m);

	*value = m.entry.data;
	return r == 1 ? 0 : -22;
}

static HRESULT suspend(struct partition *p)
{
	int r = sys_ioctl(p->vm, KVM_GET_CLOCK, &p->clock);

	for (unsigned i = 0; i < DOUBLE_VPS && r >= 0; i++)
		if (p->vp[i].exists)
			r = tsc(&p->vp[i], KVM_GET_MSRS, &p->vp[i].tsc);
	p->suspended = r >= 0;
	return from_errno(r);
}

static HRESULT resume(struct partition *p)
{
	int r;

	p->suspended = false;
	p->clock.flags = 0;
	r = sys_ioctl(p->vm, KVM_SET_CLOCK, &p->clock);
	for (unsigned i = 0; i < DOUBLE_VPS && r >= 0; i++)
		if (p->vp[i].exists)
			r = tsc(&p->vp[i], KVM_SET_MSRS, &p->vp[i].tsc);
	return from_errno(r);
}

HRESULT WINAPI WHvSuspendPartitionTime(WHV_PARTITION_HANDLE h)
{
	struct partition *p = partition_of(h, "WHvSuspendPartitionTime");
	HRESULT hr = E_INVALIDARG;

	if (!p)
		return hr;
	AcquireSRWLockExclusive(&p->lock);
	for (unsigned i = 0; i < DOUBLE_VPS; i++)
		if (p->vp[i].tid)
			complain(hr, "WHvSuspendPartitionTime: processor %u runs", i);
	hr = p->suspended ? S_OK : suspend(p);
	ReleaseSRWLockExclusive(&p->lock);
	return hr;
}

HRESULT WINAPI WHvResumePartitionTime(WHV_PARTITION_HANDLE h)
{
	struct partition *p = partition_of(h, "WHvResumePartitionTime");
	HRESULT hr = E_INVALIDARG;

	if (!p)
		return hr;
	AcquireSRWLockExclusive(&p->lock);
	hr = p->suspended ? resume(p) : S_OK;
	ReleaseSRWLockExclusive(&p->lock);
	return hr;
}

void time_goes_on(struct partition *p)
{
	if (!p->suspended)
		return;
	AcquireSRWLockExclusive(&p->lock);
	if (p->suspended && resume(p) != S_OK)
		complain(E_FAIL, "the partition's time cannot be resumed");
	ReleaseSRWLockExclusive(&p->lock);
}
