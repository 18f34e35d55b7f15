/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processors that come and go, in a VM with VMM_CPUS. All of its vCPUs exist from the start, each
 * with its thread. One that the guest does not have is parked: its thread is not in the hypervisor,
 * so nothing that the guest does, INIT and SIPI included, can make it run.
 *
 *   comes  main lets it in; its thread parks it once more, so that it begins as new whatever was
 *          sent to it meanwhile, says so in the board's registers and raises the event
 *   goes   the guest is asked by the board's registers and the event; it stops using the processor
 *          and gives it back by a register (_EJ0). From that write on its thread may not go back
 *          into the guest
 *
 * Three masks say where vCPU i is, bit i of each; bit 0 is always that of one that is there:
 *
 *   in  parked
 *   1   0       the guest has it
 *   0   0       the guest has given it back, and its thread is on its way out
 *   0   1       it is not there
 *   1   1       its thread is on its way in
 *
 * `in` is set by main and cleared by whoever gives it back, `parked` belongs to the vCPU's thread.
 */
#ifndef VMM_CPUS_H
#define VMM_CPUS_H

#include "vmm.h"

/* So many are there. Main thread, before the gate. */
void cpus_init(struct vmm *vm, unsigned n);
/* Main: MSG_CPUS. */
void cpus_want(struct vmm *vm, uint32_t n);
/* Main, in each turn of its loop: let in what could not come before, and say MSG_CPUS_ARE. */
void cpus_turn(struct vmm *vm);

/* May it go into the guest? Its thread. */
bool cpus_runs(const struct vcpu *c);
/* It is not there, and will not be as long as nobody lets it in. Its thread. */
bool cpus_is_out(const struct vcpu *c);
/* Its thread, of one that may not run: bring it out of the guest or into it. 0, or the errno with
 * which the VM ends. */
int cpus_move(struct vcpu *c);

/* The board's registers. Any vCPU thread. */
uint32_t cpus_present(const struct vmm *vm);
void cpus_eject(struct vmm *vm, uint64_t index);

#endif
