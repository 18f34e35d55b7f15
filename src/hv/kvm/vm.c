/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Creating and destroying a KVM virtual machine.
 *
 * Stages of hv_vm_create(): check the device and its capabilities, take the kick signal, create the
 * VM, set what must be set before the first vCPU exists (x86/setup.c).
 *
 * KVM_CAP_EXIT_ON_EMULATION_FAILURE stays off: with it, unprivileged guest code that KVM cannot
 * emulate would end the VM instead of getting its #UD. Failures in the guest's kernel exit anyway,
 * with the instruction bytes. KVM_CAP_X2APIC_API stays off: APIC ids are below 255, so nothing
 * needs the extended message format.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <insula/base.h>

#include "hv/kvm/backend.h"

#define KVM_API 12

struct need {
	unsigned long cap;
	int least;
	const char *name;
};

/* clang-format off */
static const struct need needs[] = {
	{KVM_CAP_USER_MEMORY, 1, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"},
	{KVM_CAP_NR_MEMSLOTS, HV_MAX_SLOTS, "KVM_CAP_NR_MEMSLOTS"},
	{KVM_CAP_READONLY_MEM, 1, "KVM_CAP_READONLY_MEM"},
	{KVM_CAP_EXT_CPUID, 1, "KVM_CAP_EXT_CPUID"},
	{KVM_CAP_SPLIT_IRQCHIP, 1, "KVM_CAP_SPLIT_IRQCHIP"},
	{KVM_CAP_IRQ_ROUTING, HV_MAX_LINES, "KVM_CAP_IRQ_ROUTING"},
	{KVM_CAP_IRQFD, 1, "KVM_CAP_IRQFD"},
	{KVM_CAP_SIGNAL_MSI, 1, "KVM_CAP_SIGNAL_MSI"},
	{KVM_CAP_IOEVENTFD, 1, "KVM_CAP_IOEVENTFD"},
	{KVM_CAP_IOEVENTFD_ANY_LENGTH, 1, "KVM_CAP_IOEVENTFD_ANY_LENGTH"},
	{KVM_CAP_IMMEDIATE_EXIT, 1, "KVM_CAP_IMMEDIATE_EXIT"},
};
/* clang-format on */

int kvm_has(int dev, unsigned long cap)
{
	return kvm_call_value(dev, KVM_CHECK_EXTENSION, cap);
}

static int check_device(int dev, unsigned ncpus, struct err *e)
{
	int r = kvm_call_value(dev, KVM_GET_API_VERSION, 0);

	if (r < 0)
		return err_sys(e, r, "not a KVM device");
	if (r != KVM_API)
		return err_set(e, -ENOSYS, "KVM API version %d, need %d", r, KVM_API);
	for (size_t i = 0; i < ARRAY_LEN(needs); i++) {
		r = kvm_has(dev, needs[i].cap);
		if (r < needs[i].least)
			return err_set(e, -EOPNOTSUPP, "KVM lacks %s (has %d, need %d)",
				       needs[i].name, r, needs[i].least);
	}
	r = kvm_has(dev, KVM_CAP_MAX_VCPUS);
	if (r > 0 && ncpus > (unsigned)r)
		return err_set(e, -EOPNOTSUPP, "%u vCPUs: this KVM allows %d", ncpus, r);
	return 0;
}

/* Only there so that the signal interrupts KVM_RUN instead of ending the process. */
static void kick_arrived(int sig)
{
	(void)sig;
}

static int take_kick_signal(struct err *e)
{
	struct sigaction sa = {.sa_handler = kick_arrived, .sa_flags = SA_RESTART};
	struct sigaction old;

	sigemptyset(&sa.sa_mask);
	if (sigaction(HV_KICK_SIGNAL, NULL, &old) < 0)
		return err_sys(e, -errno, "signal %d", HV_KICK_SIGNAL);
	if (!(old.sa_flags & SA_SIGINFO) && old.sa_handler == kick_arrived)
		return 0;
	if ((old.sa_flags & SA_SIGINFO) || (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN))
		return err_set(e, -EBUSY, "signal %d has another handler", HV_KICK_SIGNAL);
	if (sigaction(HV_KICK_SIGNAL, &sa, NULL) < 0)
		return err_sys(e, -errno, "signal %d", HV_KICK_SIGNAL);
	return 0;
}

static int read_device(struct hv_vm *vm, int dev, struct err *e)
{
	int r = kvm_call_value(dev, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (r < (int)sizeof(struct kvm_run))
		return err_set(e, r < 0 ? r : -EPROTO, "KVM_GET_VCPU_MMAP_SIZE says %d", r);
	vm->run_size = (size_t)r;
	return kvm_arch_probe(vm, dev, e);
}

/* A signal may interrupt KVM_CREATE_VM: it waits for other CPUs and threads of the kernel. */
static int create_vm(int dev, struct err *e)
{
	int r;

	do
		r = kvm_call_value(dev, KVM_CREATE_VM, 0);
	while (r == -EINTR);
	return r < 0 ? err_sys(e, r, "KVM_CREATE_VM") : r;
}

static struct hv_vm *alloc_vm(const struct hv_vm_params *p)
{
	struct hv_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->fd = vm->assigned = -1;
	vm->ncpus = p->ncpus;
	vm->nlines = p->nlines;
	vm->arch.epc_gpa = p->epc_gpa;
	vm->arch.epc_size = p->epc_size;
	pthread_mutex_init(&vm->lock, NULL);
	return vm;
}

int hv_vm_create(struct hv_vm **out, const struct hv_vm_params *p, struct err *e)
{
	int dev = (int)p->dev;
	struct hv_vm *vm;
	int r = hv_check_params(p, e);

	*out = NULL;
	if (r < 0)
		return r;
	r = check_device(dev, p->ncpus, e);
	if (r < 0)
		return r;
	r = take_kick_signal(e);
	if (r < 0)
		return r;
	vm = alloc_vm(p);
	if (!vm)
		return err_set(e, -ENOMEM, "no memory for the VM");
	r = read_device(vm, dev, e);
	if (r < 0)
		goto out_destroy;
	r = create_vm(dev, e);
	if (r < 0)
		goto out_destroy;
	vm->fd = r;
	r = kvm_arch_init_vm(vm, dev, e);
	if (r < 0)
		goto out_destroy;
	*out = vm;
	return 0;

out_destroy:
	hv_vm_destroy(vm);
	return r;
}

/* KVM forgets the devices when the descriptor of its list of them is closed. */
int hv_vm_assigns(struct hv_vm *vm, struct err *e)
{
	struct kvm_create_device list = {.type = KVM_DEV_TYPE_VFIO};
	int r = vm->assigned < 0 ? kvm_call(vm->fd, KVM_CREATE_DEVICE, &list) : 0;

	if (r < 0)
		return err_sys(e, -EOPNOTSUPP, "KVM_DEV_TYPE_VFIO");
	if (vm->assigned < 0)
		vm->assigned = (int)list.fd;
	return 0;
}

static int change_assigned(struct hv_vm *vm, hv_event device, uint64_t how, int harmless,
			   const char *what, struct err *e)
{
	int32_t fd = (int32_t)device;
	struct kvm_device_attr attr = {
		.group = KVM_DEV_VFIO_GROUP, .attr = how, .addr = (uint64_t)(uintptr_t)&fd};
	int r = kvm_call(vm->assigned, KVM_SET_DEVICE_ATTR, &attr);

	return r < 0 && r != harmless ? err_sys(e, r, "%s", what) : 0;
}

int hv_vm_assign(struct hv_vm *vm, hv_event device, struct err *e)
{
	if (vm->assigned < 0)
		return err_set(e, -EOPNOTSUPP, "there is no KVM_DEV_TYPE_VFIO");
	return change_assigned(vm, device, KVM_DEV_VFIO_GROUP_ADD, -EEXIST,
			       "KVM_DEV_VFIO_GROUP_ADD", e);
}

int hv_vm_unassign(struct hv_vm *vm, hv_event device, struct err *e)
{
	return vm->assigned < 0 ? 0
				: change_assigned(vm, device, KVM_DEV_VFIO_GROUP_DEL, -ENOENT,
						  "KVM_DEV_VFIO_GROUP_DEL", e);
}

void hv_vm_destroy(struct hv_vm *vm)
{
	if (!vm)
		return;
	if (vm->assigned >= 0)
		close(vm->assigned);
	if (vm->fd >= 0)
		close(vm->fd);
	pthread_mutex_destroy(&vm->lock);
	kvm_arch_free_vm(vm);
	free(vm);
}
