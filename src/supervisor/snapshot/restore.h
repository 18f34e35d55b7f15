/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM that goes on from a snapshot (snapdir.h) instead of booting.
 *
 *   restore_take()   before anything is opened: the snapshot is read, and what it says of the VM
 *                    becomes the configuration's, where the user has not said otherwise
 *   restore_fill()   the VM is made: the device pages get their contents, and what the guest has
 *                    mounted is compared with what it had
 *   restore_start()  insula-pager begins to read the memory, in its jail, beside all the others
 *   restore_loaded() it has: the guest may go on
 *
 * A restored helper is a restarted helper: it starts from its page.
 *
 * Of what a snapshot names on the host nothing is used without its seal, and commands are not run
 * again. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_RESTORE_H
#define SUPERVISOR_RESTORE_H

#include <stdbool.h>

#include <insula/err.h>

struct restore;
struct vm;
struct vm_config;

/* Does nothing without c->restore. Sets c->restoring, which restore_free() frees. -EINVAL and
 * others: the user's input, with a line. */
int restore_take(struct vm_config *c, struct err *e);
void restore_free(struct restore *r);

int restore_fill(struct vm *vm, struct err *e);
/* The descriptor of what insula-vmm held; borrowed. */
int restore_records(const struct vm *vm);
/* Has the guest an agent? */
bool restore_agent(const struct vm_config *c);
/* Only with a snapshot. vm_start_helpers() follows. */
int restore_start(struct vm *vm, struct err *e);
/* Also without a snapshot. */
bool restore_loaded(const struct vm *vm);
/* It is not needed any more. */
void restore_end(struct vm *vm);

#endif
