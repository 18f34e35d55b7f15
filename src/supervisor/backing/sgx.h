/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory for enclaves (--sgx): whether this host has any to give, where the guest finds it, and the
 * descriptor that insula-vmm maps. One open of /dev/sgx_vepc is one guest's; its pages are taken
 * from the host's when the guest touches them, and go back when the descriptor and its mapping are
 * closed. Intel SDM vol. 3D, "Intel SGX Resource Enumeration Leaves"; Linux:
 * Documentation/arch/x86/sgx.rst, "Virtual EPC".
 *
 * No such processor has run any of this. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_SGX_H
#define SUPERVISOR_SGX_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/kvm.h>

#include <insula/err.h>
#include <insula/memmap.h>

#define SGX_DEVICE "/dev/sgx_vepc"

struct sgx_host {
	bool sgx;      /* KVM can give a guest SGX */
	unsigned bits; /* of a guest physical address */
	uint64_t epc;  /* bytes of memory for enclaves, of the whole host */
};
/* `kvm`: /dev/kvm. */
int sgx_look(struct sgx_host *h, int kvm, struct err *e);
/* What of it KVM's supported CPUID says. Pure. */
void sgx_of_cpuid(struct sgx_host *h, const struct kvm_cpuid2 *c);
/* Of a sub-leaf of the host's own leaf 0x12: the bytes of a section; 0: it is none. Pure. */
uint64_t sgx_section(const uint32_t r[4]);

/* Behind `end`, which all memory ends before, also such as comes later; at a multiple of
 * BOARD_ADDED_ALIGN, and above 4 GiB. -EINVAL, with a line that names the setting. Pure. */
int sgx_place(const struct sgx_host *h, uint64_t size, uint64_t end, struct mem_region *epc,
	      struct err *e);
/* *fd: owned by the caller, -1 on error. */
int sgx_open(const char *path, uint64_t size, int *fd, struct err *e);

#endif
