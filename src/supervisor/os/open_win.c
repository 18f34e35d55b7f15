/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM is made of, on Windows. See open.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/open.h"
#include "supervisor/vm.h"

/* ---- what the user named ---- */

static int add_disk(struct vm *vm, const struct disk_config *c, struct err *e)
{
	vm->opened.ndisks++; /* in any case, or its handle would stay */
	return disk_open(&vm->opened.disk[vm->opened.ndisks - 1], c, false, e);
}

static int open_disks(struct vm *vm, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->conf->ndisks && !rc; i++)
		rc = add_disk(vm, &vm->conf->disk[i], e);
	if (rc || !vm->boot.root_image[0])
		return rc;
	vm->opened.root_disk =
		(struct disk_config){.path = vm->boot.root_image, .ro = vm->boot.root_ro};
	strcpy(vm->opened.root_disk.serial, IMAGE_ROOT_SERIAL);
	return add_disk(vm, &vm->opened.root_disk, e);
}

/* ---- for vm.c ---- */

void open_init(struct vm *vm)
{
	vm->terminal = (struct terminal){.in = -1, .out = -1};
}

int open_epc(struct vm *vm, bool check_only, struct err *e)
{
	(void)vm;
	(void)check_only;
	(void)e;
	return 0; /* there is no such setting */
}

int open_ends(struct vm *vm, bool check_only, struct err *e)
{
	(void)check_only;
	return open_disks(vm, e);
}

int open_disk_device(struct vm *vm, struct disk *disk, const char *name, unsigned nqueues,
		     struct err *e)
{
	struct device *d;
	int rc = vm_add_device(vm, &device_blk, disk->conf->bus, name, nqueues, &d, e);

	d->back.disk = disk;
	return rc;
}

int open_cards(struct vm *vm, struct err *e)
{
	(void)vm;
	(void)e;
	return 0; /* host_config() refuses them */
}

int open_programs(struct vm *vm, struct err *e)
{
	(void)e;
	child_init_contained(&vm->vmm, "insula-vmm", "", CONTAIN_VMM);
	return 0;
}

int open_pager(struct vm *vm, struct child *c, bool many, uint64_t fsize, struct err *e)
{
	(void)vm, (void)many, (void)fsize, (void)e;
	child_init_contained(c, "insula-pager", "", CONTAIN_HELPER);
	return 0;
}

void open_close(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++)
		device_free(&vm->device[i]);
	for (unsigned i = 0; i < vm->opened.ndisks; i++)
		fd_close(&vm->opened.disk[i].fd);
}
