/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The KVM backend's own types. Not installed; the unit tests look at them too.
 *
 * Lock: hv_vm.lock covers slots, routes and created. It is never held across KVM_RUN.
 */
#ifndef INSULA_HV_KVM_BACKEND_H
#define INSULA_HV_KVM_BACKEND_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/kvm.h>

#include <insula/hv.h>

#include "hv/common.h"
#include "hv/kvm/x86/arch.h"

struct kvm_slot {
	bool used;
	unsigned flags; /* enum hv_mem_flags */
	uint64_t gpa;
	uint64_t size;
	uint8_t *host;
};

struct kvm_route {
	bool used;
	uint64_t addr;
	uint32_t data;
};

struct hv_vm {
	int fd;
	int assigned; /* of KVM's list of the host's devices; -1: there is none */
	unsigned ncpus;
	unsigned nlines;
	size_t run_size;
	struct kvm_arch_vm arch;
	pthread_mutex_t lock;
	uint64_t created; /* bit i: vCPU i was created */
	struct kvm_slot slot[HV_MAX_SLOTS];
	struct kvm_route route[HV_MAX_LINES];
	/* What KVM_SET_GSI_ROUTING takes. Here, because a sealed process cannot allocate; under
	 * `lock`. */
	_Alignas(8) uint8_t routing[sizeof(struct kvm_irq_routing) +
				    HV_MAX_LINES * sizeof(struct kvm_irq_routing_entry)];
};

struct hv_vcpu {
	struct hv_vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	_Atomic pid_t tid; /* of the owning thread, 0: none yet */
	bool has_exit;     /* `run` holds one that hv_vcpu_run() has not returned yet */
	struct kvm_arch_vcpu arch;
};

/* ioctl() that returns a negative errno. */
int kvm_call(int fd, unsigned long request, void *arg);
int kvm_call_value(int fd, unsigned long request, unsigned long arg);
/* KVM_CHECK_EXTENSION */
int kvm_has(int dev, unsigned long cap);

/* Copy up to `len` bytes of guest memory that lie in one slot, for error reports. Returns the
 * number copied. */
unsigned kvm_mem_peek(struct hv_vm *vm, uint64_t gpa, void *buf, unsigned len);

#endif
