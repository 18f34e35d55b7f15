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

const unsigned long *hv_ioctls_used(void)
{
	static const unsigned long used[] = {
		KVM_RUN,
		KVM_GET_REGS,
		KVM_SET_REGS,
		KVM_GET_SREGS,
		KVM_SET_SREGS,
		KVM_TRANSLATE, /* instruction bytes of an error */
		KVM_IRQFD,
		KVM_SET_GSI_ROUTING,
		KVM_KVMCLOCK_CTRL, /* after a pause */
		0,
	};

	return used;
}
