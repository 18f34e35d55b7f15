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
		r = kvm_arch_init_vcpu(v, e);
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
