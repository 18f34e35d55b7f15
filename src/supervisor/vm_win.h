/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM on Windows: open everything, make insula-vmm and the helpers, watch over them, end. The
 * stages are those of vm.h; commands, networks, shares and insulad's door are not there yet,
 * and are refused.
 */
#ifndef SUPERVISOR_VM_WIN_H
#define SUPERVISOR_VM_WIN_H

#include "config.h"
#include "ending.h"

/* Run to the end. `check_only`: open and check, start nothing. end->status is insula-run's, why has
 * the line for people. Once in a process. */
void vm_win_run(const struct vm_config *c, bool check_only, bool verbose, struct ending *end);

#endif
