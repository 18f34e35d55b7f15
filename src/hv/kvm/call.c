/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one place that calls ioctl(), and the list of the requests that a running VM needs: not those
 * that map memory, bind doorbells, send messages or read dirty pages, which insula-vmm does before
 * it is sealed or not at all.
 */
#include <errno.h>
#include <sys/ioctl.h>

#include "hv/kvm/backend.h"

int kvm_call_value(int fd, unsigned long request, unsigned long arg)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

int kvm_call(int fd, unsigned long request, void *arg)
{
	return kvm_call_value(fd, request, (unsigned long)(uintptr_t)arg);
}

const unsigned long *hv_ioctls_used(bool restore)
{
	/* What is set to restore comes first: the list of others begins behind it. */
	static const unsigned long used[] = {
		KVM_SET_MP_STATE,
		KVM_SET_XSAVE,
		KVM_SET_XCRS,
		KVM_SET_DEBUGREGS,
		KVM_SET_LAPIC,
		KVM_SET_MSRS,
		KVM_SET_VCPU_EVENTS,
		KVM_SET_CLOCK,
		KVM_SET_TSC_KHZ,
#define RESTORE_ONLY 9
		KVM_RUN,
		KVM_GET_REGS,
		KVM_SET_REGS,
		KVM_GET_SREGS,
		KVM_SET_SREGS,
		KVM_TRANSLATE, /* instruction bytes of an error */
		KVM_IRQFD,
		KVM_SET_GSI_ROUTING,
		KVM_KVMCLOCK_CTRL, /* after a pause */
		KVM_GET_MP_STATE,  /* a snapshot: this and what follows */
		KVM_GET_XSAVE,
		KVM_GET_XSAVE2,
		KVM_GET_XCRS,
		KVM_GET_DEBUGREGS,
		KVM_GET_LAPIC,
		KVM_GET_MSRS,
		KVM_GET_VCPU_EVENTS,
		KVM_GET_CLOCK,
		KVM_GET_TSC_KHZ,
		0,
	};

	return restore ? used : used + RESTORE_ONLY;
}
