/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Creating, kicking and destroying vCPUs.
 *
 * How a kick is never lost: it first sets a flag, then cancels the run. An owner that has not yet
 * looked at the flag finds it before it enters the guest; one that has looked but not entered is
 * covered by the hypervisor, which keeps a cancel for the next run (QEMU and OpenVMM rely on it
 * too; Microsoft's documentation does not say it). A cancel that finds the flag already taken back
 * is HV_EXIT_NONE.
 */
#include <errno.h>
#include <stdlib.h>

#include "hv/whp/backend.h"

#define MTRR_ENABLED_WRITE_BACK 0x806u

/* An index is used once, as with KVM. */
static int claim_index(struct hv_vm *vm, unsigned index, struct err *e)
{
	int r = 0;

	if (index >= vm->ncpus)
		return err_set(e, -EINVAL, "vCPU %u: this VM has %u", index, vm->ncpus);
	whp_lock_take(&vm->lock);
	if (vm->created & UINT64_C(1) << index)
		r = err_set(e, -EEXIST, "vCPU %u was created before", index);
	vm->created |= UINT64_C(1) << index;
	whp_lock_drop(&vm->lock);
	return r;
}

int hv_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out, struct err *e)
{
	struct whp_batch b = {.n = 0};
	struct hv_vcpu *v;
	whp_hr hr;
	int r = claim_index(vm, index, e);

	*out = NULL;
	if (r < 0)
		return r;
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(e, -ENOMEM, "no memory for vCPU %u", index);
	v->vm = vm;
	v->index = index;
	hr = vm->api.create_vp(vm->partition, index, 0);
	if (hr < 0) {
		free(v);
		return whp_fail(e, hr, "vCPU %u: WHvCreateVirtualProcessor", index);
	}
	/* What firmware would have done: memory is cached. */
	whp_put(&b, WHP_REG_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK);
	r = whp_write(v, &b);
	if (r < 0) {
		hv_vcpu_destroy(v);
		return err_set(e, r, "vCPU %u: MTRR", index);
	}
	*out = v;
	return 0;
}

void hv_vcpu_destroy(struct hv_vcpu *v)
{
	if (!v)
		return;
	v->vm->api.delete_vp(v->vm->partition, v->index);
	free(v);
}

/* Any thread may run a virtual processor. */
int hv_vcpu_bind(struct hv_vcpu *v, struct err *e)
{
	(void)v;
	(void)e;
	return 0;
}

/* Resumed by the platform at the next run. Windows before 1903 cannot: time goes on. */
int hv_vm_suspend_time(struct hv_vm *vm, struct err *e)
{
	whp_hr hr = vm->api.suspend_time ? vm->api.suspend_time(vm->partition) : 0;

	return hr < 0 ? whp_fail(e, hr, "WHvSuspendPartitionTime") : 0;
}

/* Time stood still, so there is nothing to tell. */
void hv_vcpu_was_paused(struct hv_vcpu *v)
{
	(void)v;
}

int hv_vcpu_park(struct hv_vcpu *v, struct err *e)
{
	return err_set(e, -EOPNOTSUPP, "vCPU %u: nothing parks it on Windows yet", v->index);
}

void hv_vcpu_kick(struct hv_vcpu *v)
{
	atomic_store(&v->kicked, true);
	v->vm->api.cancel(v->vm->partition, v->index, 0);
}
