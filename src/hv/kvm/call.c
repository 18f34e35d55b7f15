/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one place that calls ioctl(), and the list of the requests that a running VM needs: not those
 * that send messages or read dirty pages, and those that map memory and bind doorbells only where a
 * guest may move them. insula-vmm does the rest before it is sealed.
 */
#include <errno.h>
#include <sys/ioctl.h>

#include <insula/base.h>

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

static const struct {
	unsigned long request;
	unsigned use; /* enum hv_use, any of them; 0: always */
} requests[] = {
	{KVM_SET_MP_STATE, HV_RESTORES | HV_PARKS},
	{KVM_SET_XSAVE, HV_RESTORES},
	{KVM_SET_XCRS, HV_RESTORES},
	{KVM_SET_DEBUGREGS, HV_RESTORES},
	{KVM_SET_LAPIC, HV_RESTORES},
	{KVM_SET_MSRS, HV_RESTORES},
	{KVM_SET_VCPU_EVENTS, HV_RESTORES},
	{KVM_SET_CLOCK, HV_RESTORES},
	{KVM_SET_TSC_KHZ, HV_RESTORES},
	{KVM_RUN, 0},
	{KVM_GET_REGS, 0},
	{KVM_SET_REGS, 0},
	{KVM_GET_SREGS, 0},
	{KVM_SET_SREGS, 0},
	{KVM_TRANSLATE, 0}, /* instruction bytes of an error */
	{KVM_IRQFD, 0},
	{KVM_SET_GSI_ROUTING, 0},
	{KVM_KVMCLOCK_CTRL, 0}, /* after a pause */
	{KVM_GET_MP_STATE, 0},  /* a snapshot: this and what follows */
	{KVM_GET_XSAVE, 0},
	{KVM_GET_XSAVE2, 0},
	{KVM_GET_XCRS, 0},
	{KVM_GET_DEBUGREGS, 0},
	{KVM_GET_LAPIC, 0},
	{KVM_GET_MSRS, 0},
	{KVM_GET_VCPU_EVENTS, 0},
	{KVM_GET_CLOCK, 0},
	{KVM_GET_TSC_KHZ, 0},
	{KVM_SET_USER_MEMORY_REGION, HV_MOVES},
	{KVM_IOEVENTFD, HV_MOVES},
	{KVM_SET_DEVICE_ATTR, HV_ASSIGNS},
};

const unsigned long *hv_ioctls_used(unsigned use)
{
	static unsigned long used[ARRAY_LEN(requests) + 1];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		if (!requests[i].use || requests[i].use & use)
			used[n++] = requests[i].request;
	}
	used[n] = 0;
	return used;
}
