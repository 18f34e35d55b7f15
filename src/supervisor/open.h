/* SPDX-License-Identifier: BSD-2-Clause */
/* Between vm.c and what a VM is made of on this system: open_linux.c, open_win.c. */
#ifndef SUPERVISOR_OPEN_H
#define SUPERVISOR_OPEN_H

#include <stdbool.h>

#include <insula/err.h>

struct vm;

/* Before anything else: nothing is open. */
void open_init(struct vm *vm);
/* Disks and cards that the user named. */
int open_ends(struct vm *vm, bool check_only, struct err *e);
/* insula-vmm and the devices, none of them started. */
int open_children(struct vm *vm, struct err *e);
/* Undo open_ends() and open_children(), how far they ever came. */
void open_close(struct vm *vm);

#endif
