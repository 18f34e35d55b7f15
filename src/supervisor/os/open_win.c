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
	return disk_open(&vm->opened.disk[vm->opened.ndisks - 1], c, e);
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

/* ---- what the VM is made of ---- */

static int open_add_device(struct vm *vm, const struct device_class *class, const char *name,
			   unsigned nqueues, struct device **out, struct err *e)
{
	unsigned i = vm->ndevices++, nth = class->virtio ? vm->nvirtio++ : 0;

	*out = &vm->device[i];
	return device_init(*out, class, i, nth, name, nqueues, NULL, e);
}

/* The console is the first device; virtio devices take the windows in their order. */
int open_children(struct vm *vm, struct err *e)
{
	unsigned nqueues = vm->conf->cpus < BLK_MAX_QUEUES ? vm->conf->cpus : BLK_MAX_QUEUES;
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc;

	child_init(&vm->vmm, "insula-vmm", "", CONTAIN_VMM);
	rc = vm->conf->console_virtio ? open_add_device(vm, &device_vcon, "hvc0", 2, &d, e)
				      : open_add_device(vm, &device_uart, "com1", 0, &d, e);

	d->back.terminal = &vm->terminal;
	for (unsigned i = 0; i < vm->opened.ndisks && !rc; i++) {
		device_disk_name(i, name);
		rc = open_add_device(vm, &device_blk, name, nqueues, &d, e);
		d->back.disk = &vm->opened.disk[i];
	}
	if (!rc && !vm->conf->rng_off) {
		rc = open_add_device(vm, &device_rng, "rng", 1, &d, e);
		d->back.conf = vm->conf;
	}
	if (!rc && vm_has_vsock(vm)) {
		rc = open_add_device(vm, &device_vsock, "vsock", 3, &d, e);
		d->back.vsock = &vm->vsock;
	}
	return rc;
}

/* ---- for vm.c ---- */

void open_init(struct vm *vm)
{
	vm->terminal = (struct terminal){.in = -1, .out = -1};
}

int open_ends(struct vm *vm, bool check_only, struct err *e)
{
	(void)check_only;
	return open_disks(vm, e);
}

void open_close(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++)
		device_free(&vm->device[i]);
	for (unsigned i = 0; i < vm->opened.ndisks; i++)
		fd_close(&vm->opened.disk[i].fd);
}
