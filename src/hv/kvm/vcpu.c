/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Creating, owning, kicking and destroying vCPUs.
 *
 * How a kick is never lost: it first sets kvm_run.immediate_exit, then signals the owner. An owner
 * that has not yet entered KVM_RUN sees the flag there; one that is inside is interrupted by the
 * signal. The flag stays set until hv_vcpu_run() takes it back and returns HV_EXIT_CANCELED
 * (run.c).
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/kvm/backend.h"

/* Intel SDM vol. 4, table 2-2. AMD parts ignore or lack some of these; KVM takes them for every
 * guest. */
#define MSR_MISC_ENABLE 0x1a0u
#define MISC_FAST_STRING 0x1u
#define MISC_BTS_UNAVAILABLE 0x800u
#define MISC_PEBS_UNAVAILABLE 0x1000u
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLED 0x800u
#define MTRR_WRITE_BACK 0x6u

/* What firmware would have done on each CPU: string instructions at full speed, and memory cached.
 * (With the MTRRs off, Linux turns the PAT off too.) */
static int set_msrs(const struct hv_vcpu *v, struct err *e)
{
	static const struct kvm_msr_entry defaults[] = {
		{.index = MSR_MISC_ENABLE,
		 .data = MISC_FAST_STRING | MISC_BTS_UNAVAILABLE | MISC_PEBS_UNAVAILABLE},
		{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED | MTRR_WRITE_BACK},
	};
	const unsigned n = sizeof(defaults) / sizeof(defaults[0]);
	struct kvm_msrs *m = calloc(1, sizeof(*m) + sizeof(defaults));
	int r;

	if (!m)
		return err_set(e, -ENOMEM, "no memory for the MSRs");
	m->nmsrs = n;
	memcpy(m->entries, defaults, sizeof(defaults));
	r = kvm_call(v->fd, KVM_SET_MSRS, m);
	free(m);
	if (r < 0)
		return err_sys(e, r, "vCPU %u: KVM_SET_MSRS", v->index);
	if ((unsigned)r != n)
		return err_set(e, -EOPNOTSUPP, "vCPU %u: KVM refuses MSR 0x%x", v->index,
			       defaults[r].index);
	return 0;
}

static int set_cpuid(const struct hv_vcpu *v, struct err *e)
{
	const struct hv_vm *vm = v->vm;
	struct kvm_cpuid_params p = {
		.index = v->index,
		.ncpus = vm->ncpus,
		.tsc_deadline = vm->tsc_deadline,
	};
	struct kvm_cpuid2 *c = kvm_cpuid_alloc();
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "no memory for the CPUID table");
	memcpy(c->entries, vm->supported->entries, vm->supported->nent * sizeof(c->entries[0]));
	c->nent = vm->supported->nent;
	if (vm->has_tsc_khz) {
		r = kvm_call_value(v->fd, KVM_GET_TSC_KHZ, 0);
		p.tsc_khz = r > 0 ? (uint32_t)r : 0;
	}
	r = kvm_cpuid_build(c, &p);
	if (r == 0)
		r = kvm_call(v->fd, KVM_SET_CPUID2, c);
	free(c);
	return r < 0 ? err_sys(e, r, "vCPU %u: CPUID", v->index) : 0;
}

/* KVM does not give an index back before the VM ends, so neither do we. */
static int claim_index(struct hv_vm *vm, unsigned index, struct err *e)
{
	int r = 0;

	if (index >= vm->ncpus)
		return err_set(e, -EINVAL, "vCPU %u: this VM has %u", index, vm->ncpus);
	pthread_mutex_lock(&vm->lock);
	if (vm->created & (UINT64_C(1) << index))
		r = err_set(e, -EEXIST, "vCPU %u was created before", index);
	vm->created |= UINT64_C(1) << index;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static int open_vcpu(struct hv_vcpu *v, struct err *e)
{
	void *run;
	int r = kvm_call_value(v->vm->fd, KVM_CREATE_VCPU, v->index);

	if (r < 0)
		return err_sys(e, r, "vCPU %u: KVM_CREATE_VCPU", v->index);
	v->fd = r;
	run = mmap(NULL, v->vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return err_sys(e, -errno, "vCPU %u: run page", v->index);
	v->run = run;
	return 0;
}

int hv_vcpu_create(struct hv_vm *vm, unsigned index, struct hv_vcpu **out, struct err *e)
{
	struct hv_vcpu *v;
	int r = claim_index(vm, index, e);

	*out = NULL;
	if (r < 0)
		return r;
	v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(e, -ENOMEM, "no memory for vCPU %u", index);
	v->vm = vm;
	v->index = index;
	v->fd = -1;
	r = open_vcpu(v, e);
	if (r == 0)
		r = set_cpuid(v, e);
	if (r == 0)
		r = set_msrs(v, e);
	if (r < 0) {
		hv_vcpu_destroy(v);
		return r;
	}
	*out = v;
	return 0;
}

void hv_vcpu_destroy(struct hv_vcpu *v)
{
	if (!v)
		return;
	if (v->run)
		munmap(v->run, v->vm->run_size);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

int hv_vcpu_bind(struct hv_vcpu *v, struct err *e)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, HV_KICK_SIGNAL);
	r = pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (r != 0)
		return err_sys(e, -r, "vCPU %u: unblock signal %d", v->index, HV_KICK_SIGNAL);
	atomic_store(&v->tid, (pid_t)syscall(SYS_gettid));
	return 0;
}

/* KVM_KVMCLOCK_CTRL (api.rst, 4.70) sets PVCLOCK_GUEST_STOPPED; EINVAL: the guest has no kvmclock.
 */
void hv_vcpu_was_paused(struct hv_vcpu *v)
{
	(void)kvm_call_value(v->fd, KVM_KVMCLOCK_CTRL, 0);
}

/* KVM has no such call: the kvmclock and each TSC would have to be set back one after the other,
 * which takes their synchrony away. */
int hv_vm_suspend_time(struct hv_vm *vm, struct err *e)
{
	(void)vm;
	(void)e;
	return 0;
}

void hv_vcpu_kick(struct hv_vcpu *v)
{
	pid_t tid;

	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	tid = atomic_load(&v->tid);
	/* No owner yet: the flag waits for it. An owner that has ended: ESRCH, nobody to wake. */
	if (tid > 0)
		syscall(SYS_tgkill, getpid(), tid, HV_KICK_SIGNAL);
}
