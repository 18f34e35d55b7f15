/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Doorbells are ioeventfds. KVM treats a write that a read-only slot refuses as an access to a
 * device, and looks for ioeventfds then: a doorbell may lie inside a read-only slot.
 */
#include <errno.h>
#include <inttypes.h>

#include "hv/kvm/backend.h"

static int ioeventfd(struct hv_vm *vm, const struct hv_doorbell *d, uint32_t flags)
{
	struct kvm_ioeventfd k = {
		.datamatch = d->match ? d->value : 0,
		.addr = d->addr,
		.len = d->size,
		.fd = (int32_t)d->event,
		.flags = flags,
	};

	if (d->pio)
		k.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (d->match)
		k.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	return kvm_call(vm->fd, KVM_IOEVENTFD, &k);
}

int hv_doorbell_bind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	int r = hv_check_doorbell(d, e);

	if (r < 0)
		return r;
	r = ioeventfd(vm, d, 0);
	return r < 0 ? err_sys(e, r, "doorbell at 0x%" PRIx64, d->addr) : 0;
}

int hv_doorbell_unbind(struct hv_vm *vm, const struct hv_doorbell *d, struct err *e)
{
	int r = hv_check_doorbell(d, e);

	if (r < 0)
		return r;
	r = ioeventfd(vm, d, KVM_IOEVENTFD_FLAG_DEASSIGN);
	return r < 0 ? err_sys(e, r, "no such doorbell at 0x%" PRIx64, d->addr) : 0;
}
