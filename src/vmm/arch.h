/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the core leaves to the processor's architecture: src/vmm/x86 for x86-64. Another one is a
 * folder beside it with the same functions.
 */
#ifndef VMM_ARCH_H
#define VMM_ARCH_H

#include "vmm.h"

/* What a kind of exit (hv.h) needs; called by the vCPU's thread. */
struct exit_handler {
	void (*handle)(struct vcpu *, struct hv_exit *); /* NULL: nothing to do */
	bool complete;                                   /* an answer goes back */
};
/* The kinds that only this architecture has. */
extern const struct exit_handler arch_exit_handlers[HV_EXIT_KINDS];

/* Where a vCPU was that has shut down; 0: not known any more. */
uint64_t arch_pc_of_shutdown(struct vcpu *c);

#endif
