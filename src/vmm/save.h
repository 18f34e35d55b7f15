/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All that insula-vmm holds of a VM, as records (insula/state.h), one behind the other in this
 * order: the machine, the hypervisor's part of the VM, the IOAPIC, the board, each vCPU, each
 * device, each PCI function, each port with a place behind it. Guest memory and device pages are
 * the supervisor's to save.
 *
 * To save: the vCPUs rest (MSG_PAUSE), each makes its own record, and the main thread writes all of
 * them. To restore: the VM is built as for a boot, and instead of a kernel the records are read.
 * They are another's input: a machine that differs from the one that was built is refused, each
 * record is checked before it is used, and the hypervisor checks what it is told.
 */
#ifndef VMM_SAVE_H
#define VMM_SAVE_H

#include <insula/err.h>

struct vmm;
struct vcpu;

/* The vCPU's thread, outside hv_vcpu_run(): into c->state. */
void save_vcpu(struct vcpu *c);
/* The main thread, when every vCPU has done that: write everything into `fd`, shared memory; *len
 * bytes. */
int save_write(struct vmm *vm, int fd, uint64_t *len, struct err *e);
/* The main thread, before any vCPU runs: the other way. -EPROTO, -EINVAL, -EOPNOTSUPP: `fd` does
 * not hold what this VM could go on from; the text says why. */
int save_read(struct vmm *vm, int fd, struct err *e);

#endif
