/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM is made of, on Linux. See open.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/open.h"
#include "supervisor/vm.h"

#define VMM_NOFILE 1024
#define VMM_OTHER_THREADS \
	2 /* main, and the one that KVM starts in its user's process at the first run */

/* ---- what the user named ---- */

/* One that is open already holds the lock. */
static bool given_twice(const struct vm *vm, const char *path)
{
	struct stat a, b;

	for (unsigned i = 0; i < vm->opened.ndisks; i++) {
		if (!stat(path, &a) && !fstat(vm->opened.disk[i].fd, &b) && a.st_dev == b.st_dev &&
		    a.st_ino == b.st_ino)
			return true;
	}
	return false;
}

static int open_disk(struct vm *vm, const struct disk_config *c, struct err *e)
{
	int rc;

	if (vm->opened.ndisks == CONFIG_MAX_DISKS + 1)
		return err_set(e, -EINVAL,
			       "--share: more than %d disks, the root and the shares among them",
			       CONFIG_MAX_DISKS + 1);
	rc = disk_open(&vm->opened.disk[vm->opened.ndisks], c, e);
	if (rc == -EBUSY && given_twice(vm, c->path))
		rc = err_set(e, -EINVAL, "disk %s: given twice; expected once, or ro each time",
			     c->path);
	vm->opened.ndisks += !rc;
	return rc;
}

static int open_disks(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->conf;
	int rc = 0;

	for (unsigned i = 0; i < c->ndisks && !rc; i++)
		rc = open_disk(vm, &c->disk[i], e);
	if (!rc && vm->boot.root_image[0]) {
		vm->opened.root_disk =
			(struct disk_config){.path = vm->boot.root_image, .ro = vm->boot.root_ro};
		strcpy(vm->opened.root_disk.serial, IMAGE_ROOT_SERIAL);
		rc = open_disk(vm, &vm->opened.root_disk, e);
	}
	for (unsigned i = 0; i < vm->boot.nshares && !rc; i++) {
		struct disk_config *s = &vm->opened.share_disk[i];

		*s = (struct disk_config){.path = vm->boot.share_image[i], .ro = true};
		snprintf(s->serial, sizeof(s->serial), IMAGE_SHARE_SERIAL "%u", i);
		rc = open_disk(vm, s, e);
	}
	return rc;
}

static int open_nics(struct vm *vm, bool check_only, struct err *e)
{
	int rc = 0;

	for (; vm->opened.nnics < vm->conf->nnets && !rc; vm->opened.nnics += !rc)
		rc = nic_open(&vm->opened.nic[vm->opened.nnics], &vm->conf->net[vm->opened.nnics],
			      vm->opened.nnics, vm->conf->cpus, check_only, e);
	return rc;
}

/* ---- what the VM is made of ---- */

/* The console is the first device; virtio devices take the windows in their order. */
static int open_add_device(struct vm *vm, const struct device_class *class, const char *name,
			   unsigned nqueues, struct device **out, struct err *e)
{
	unsigned i = vm->ndevices++, nth = class->virtio ? vm->nvirtio++ : 0;

	*out = &vm->device[i];
	return device_init(*out, class, i, nth, name, nqueues, vm->paths.libexec, e);
}

static int make_devices(struct vm *vm, struct err *e)
{
	unsigned nqueues = vm->conf->cpus < BLK_MAX_QUEUES ? vm->conf->cpus : BLK_MAX_QUEUES;
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc = vm->conf->console_virtio ? open_add_device(vm, &device_vcon, "hvc0", 2, &d, e)
					  : open_add_device(vm, &device_uart, "com1", 0, &d, e);

	d->back.terminal = &vm->terminal;
	for (unsigned i = 0; i < vm->opened.ndisks && !rc; i++) {
		device_disk_name(i, name);
		rc = open_add_device(vm, &device_blk, name, nqueues, &d, e);
		d->back.disk = &vm->opened.disk[i];
	}
	for (unsigned i = 0; i < vm->opened.nnics && !rc; i++) {
		snprintf(name, sizeof(name), "eth%u", i);
		rc = open_add_device(vm, &device_net, name, 2 * vm->opened.nic[i].start.npairs + 1,
				     &d, e);
		d->back.nic = &vm->opened.nic[i];
	}
	if (!rc && !vm->conf->rng_off) {
		rc = open_add_device(vm, &device_rng, "rng", 1, &d, e);
		d->back.conf = vm->conf;
	}
	if (!rc && vm_has_vsock(vm)) {
		rc = open_add_device(vm, &device_vsock, "vsock", 3, &d, e);
		d->back.vsock = &vm->vsock;
		d->child.os.nofile = vsock_nofile();
	}
	if (!rc)
		rc = child_init(&vm->vmm, vm->paths.libexec, "insula-vmm", "",
				vm->conf->cpus + VMM_OTHER_THREADS, VMM_NOFILE, e);
	if (!rc)
		rc = vm->opened.exec_program = child_program(vm->paths.libexec, "insula-exec", e);
	return rc < 0 ? rc : 0;
}

/* ---- for vm.c ---- */

void open_init(struct vm *vm)
{
	vm->opened.exec_program = -1;
	vm->vsock = (struct vsock){.dir = -1, .listener = -1};
	vm->terminal = (struct terminal){.in = -1, .out = -1, .slave = -1};
}

int open_ends(struct vm *vm, bool check_only, struct err *e)
{
	int rc = open_disks(vm, e);

	return rc ? rc : open_nics(vm, check_only, e);
}

int open_children(struct vm *vm, struct err *e)
{
	return make_devices(vm, e);
}

void open_close(struct vm *vm)
{
	fd_close(&vm->opened.exec_program);
	for (unsigned i = 0; i < vm->ndevices; i++)
		device_free(&vm->device[i]);
	for (unsigned i = 0; i < vm->opened.ndisks; i++)
		disk_close(&vm->opened.disk[i]);
	for (unsigned i = 0; i < vm->opened.nnics; i++)
		nic_close(&vm->opened.nic[i]);
}
