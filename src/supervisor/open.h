/* SPDX-License-Identifier: BSD-2-Clause */
/* Between vm.c and what a VM is made of on this system: open_linux.c, open_win.c. */
#ifndef SUPERVISOR_OPEN_H
#define SUPERVISOR_OPEN_H

#include <stdbool.h>

#include <insula/err.h>

#include "spec/config.h"

struct device;
struct device_class;
struct vm;

/* Before anything else: nothing is open. */
void open_init(struct vm *vm);
/* With the hypervisor and the memory map there: memory for enclaves (--sgx). */
int open_epc(struct vm *vm, bool check_only, struct err *e);
/* Disks, cards and the devices of others that the user named. */
int open_ends(struct vm *vm, bool check_only, struct err *e);
struct child;
struct disk;
/* One of the disks as a device. */
int open_disk_device(struct vm *vm, struct disk *disk, const char *name, unsigned nqueues,
		     struct err *e);
/* The devices that are network cards, and those that other programs serve: live shares first. */
int open_cards(struct vm *vm, struct err *e);
/* With all devices there: the programs of those that are none, and what theirs need besides. */
int open_programs(struct vm *vm, struct err *e);
/* insula-pager, to be spawned. `many`: it gets a descriptor of each process that maps memory, and a
 * region; `fsize`: how long a file may get. */
int open_pager(struct vm *vm, struct child *c, bool many, uint64_t fsize, struct err *e);
/* Undo all of that, and the devices, how far they ever came. */
void open_close(struct vm *vm);

/* vm.c's: the next device, in their order; `bus`: what was said of it. *out is set in any case.
 * -EINVAL: there is no place for it. */
int vm_add_device(struct vm *vm, const struct device_class *class, enum config_bus bus,
		  const char *name, unsigned nqueues, struct device **out, struct err *e);

#endif
