/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A partition's time, suspended: on resumption each TSC, and KVM's clock (which Hyper-V's reference
 * time is made of), go on where they were. As on the platform the next run resumes it.
 */
#include "kvm.h"

/* A TSC that is written a second off or less is taken by KVM for an attempt to synchronize it, so
 * the offset is set instead. The guest's frequency is the host's. */
static int tsc_offset(struct vp *v, uint32_t request, uint64_t *offset)
{
	struct kvm_device_attr a = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};

	return sys_ioctl(v->fd, request, &a);
}

static int move_tsc(struct vp *v, uint64_t back)
{
	uint64_t offset = 0;
	int r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &offset);

	offset -= back;
	return r < 0 ? r : tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset);
}

/* A KVM without VT-x and AMD-V takes an offset and does nothing with it. */
static bool can_move(struct vp *v)
{
	uint64_t before = 0, after = 0;
	int r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &before);

	if (r < 0 || move_tsc(v, 1) < 0)
		return false;
	r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &after);
	tsc_offset(v, KVM_SET_DEVICE_ATTR, &before);
	return r >= 0 && after != before;
}

static HRESULT suspend(struct partition *p)
{
	int r = sys_ioctl(p->vm, KVM_GET_CLOCK, &p->clock);

	for (unsigned i = 0; i < DOUBLE_VPS; i++)
		if (p->vp[i].exists && !can_move(&p->vp[i]))
			return E_NOTIMPL;
	p->suspended_at = __builtin_ia32_rdtsc();
	p->suspended = r >= 0;
	return from_errno(r);
}

static HRESULT resume(struct partition *p)
{
	uint64_t back = __builtin_ia32_rdtsc() - p->suspended_at;
	int r;

	p->suspended = false;
	p->clock.flags = 0;
	r = sys_ioctl(p->vm, KVM_SET_CLOCK, &p->clock);
	for (unsigned i = 0; i < DOUBLE_VPS && r >= 0; i++)
		if (p->vp[i].exists)
			r = move_tsc(&p->vp[i], back);
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
