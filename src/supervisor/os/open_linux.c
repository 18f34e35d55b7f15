/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM is made of, on Linux. See open.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/backing/seed.h"
#include "supervisor/backing/files.h"
#include "supervisor/backing/module.h"
#include "supervisor/backing/served.h"
#include "supervisor/backing/sgx.h"
#include "supervisor/open.h"
#include "supervisor/vm.h"

#define VMM_NOFILE 2048
#define VMM_OTHER_THREADS \
	2 /* main, and the one that KVM starts in its user's process at the first run */

/* ---- what the user named ---- */

/* One that is open already holds the lock. */
static bool given_twice(const struct vm *vm, const char *path)
{
	struct stat st;

	if (!path || stat(path, &st))
		return false;
	for (unsigned i = 0; i < vm->opened.ndisks; i++) {
		if (file_is(vm->opened.disk[i].fd, &st) || file_is(vm->opened.disk[i].over, &st))
			return true;
	}
	return false;
}

static int open_module(struct vm *vm, const struct disk_config *c, bool check_only, struct err *e)
{
	struct disk *d = &vm->opened.disk[vm->opened.ndisks];

	*d = (struct disk){
		.conf = c, .fd = -1, .over = -1, .memory = -1, .limit = {c->rate, c->iops}};
	return module_open(&d->module, c, vm->paths.libexec, check_only ? MODULE_CHECK : MODULE_NOW,
			   e);
}

static int open_disk(struct vm *vm, const struct disk_config *c, bool check_only, struct err *e)
{
	int rc;

	if (vm->opened.ndisks == CONFIG_MAX_DISKS + 1)
		return err_set(e, -EINVAL,
			       "--share: more than %d disks, the root and the shares among them",
			       CONFIG_MAX_DISKS + 1);
	if (config_module(c->path))
		rc = open_module(vm, c, check_only, e);
	else
		rc = disk_open(&vm->opened.disk[vm->opened.ndisks], c, check_only, e);
	if (rc == -EBUSY && given_twice(vm, c->overlay))
		rc = err_set(e, -EINVAL, "overlay %s: given twice; expected once", c->overlay);
	else if (rc == -EBUSY && given_twice(vm, c->path))
		rc = err_set(e, -EINVAL, "disk %s: given twice; expected once, or ro each time",
			     c->path);
	vm->opened.ndisks += !rc;
	return rc;
}

/* The layers, and what lies above them. */
static int open_image_disks(struct vm *vm, bool check_only, struct err *e)
{
	struct opened *o = &vm->opened;
	int rc = 0;

	for (unsigned i = 0; i < vm->conf->nlayers && !rc; i++) {
		struct disk_config *d = &o->layer_disk[i];

		*d = (struct disk_config){.path = vm->conf->layer[i], .ro = true};
		snprintf(d->serial, sizeof(d->serial), IMAGE_LAYER_SERIAL "%u", i);
		rc = open_disk(vm, d, check_only, e);
	}
	if (rc || vm->boot.upper < 0)
		return rc;
	snprintf(o->upper_path, sizeof(o->upper_path), "/proc/self/fd/%d", vm->boot.upper);
	o->upper_disk = (struct disk_config){.path = o->upper_path};
	strcpy(o->upper_disk.serial, IMAGE_UPPER_SERIAL);
	return open_disk(vm, &o->upper_disk, check_only, e);
}

static int open_disks(struct vm *vm, bool check_only, struct err *e)
{
	const struct vm_config *c = vm->conf;
	int rc = 0;

	for (unsigned i = 0; i < c->ndisks && !rc; i++)
		rc = open_disk(vm, &c->disk[i], check_only, e);
	if (!rc && vm->boot.root_image[0]) {
		vm->opened.root_disk =
			(struct disk_config){.path = vm->boot.root_image, .ro = vm->boot.root_ro};
		strcpy(vm->opened.root_disk.serial, IMAGE_ROOT_SERIAL);
		rc = open_disk(vm, &vm->opened.root_disk, check_only, e);
	}
	if (!rc)
		rc = open_image_disks(vm, check_only, e);
	for (unsigned i = 0; i < vm->boot.nshares && !rc; i++) {
		struct disk_config *s = &vm->opened.share_disk[i];

		*s = (struct disk_config){
			.path = vm->boot.share_image[i], .ro = true, .bus = vm->boot.share_bus[i]};
		snprintf(s->serial, sizeof(s->serial), IMAGE_SHARE_SERIAL "%u", i);
		rc = open_disk(vm, s, check_only, e);
	}
	return rc;
}

/* Behind the others, whose names it leaves as they are. */
static int open_seed(struct vm *vm, bool check_only, struct err *e)
{
	struct opened *o = &vm->opened;

	if (!vm->conf->seed.on)
		return 0;
	o->seed = seed_make(&vm->conf->seed, e);
	if (o->seed < 0)
		return o->seed;
	snprintf(o->seed_path, sizeof(o->seed_path), "/proc/self/fd/%d", o->seed);
	o->seed_disk =
		(struct disk_config){.path = o->seed_path, .ro = true, .bus = vm->conf->seed.bus};
	strcpy(o->seed_disk.serial, SEED_SERIAL);
	return open_disk(vm, &o->seed_disk, check_only, e);
}

static int open_nics(struct vm *vm, bool check_only, struct err *e)
{
	int rc = 0;

	for (; vm->opened.nnics < vm->conf->nnets && !rc; vm->opened.nnics += !rc)
		rc = nic_open(&vm->opened.nic[vm->opened.nnics], &vm->conf->net[vm->opened.nnics],
			      vm->opened.nnics, vm->conf, check_only ? ATTACH_CHECK : ATTACH_NOW,
			      e);
	return rc;
}

static int open_vhosts(struct vm *vm, bool check_only, struct err *e)
{
	int rc = 0;

	for (; vm->opened.nvhosts < vm->conf->nvhosts && !rc; vm->opened.nvhosts += !rc)
		rc = vhost_open(&vm->opened.vhost[vm->opened.nvhosts],
				&vm->conf->vhost[vm->opened.nvhosts], check_only, e);
	return rc;
}

static int open_vfios(struct vm *vm, bool check_only, struct err *e)
{
	const struct vm_config *c = vm->conf;
	struct opened *o = &vm->opened;
	enum vfio_by by;
	int rc = vfio_way("/sys", c->vfio, c->nvfios, &by, e);

	for (unsigned i = 0; i < c->nvfios && !rc && check_only; i++)
		rc = vfio_check(&c->vfio[i], c->mem, e);
	for (; o->nvfios < c->nvfios && !rc && !check_only; o->nvfios += !rc)
		rc = vfio_open(o->vfio, o->nvfios, &c->vfio[o->nvfios], by, &o->vfio_container,
			       c->mem, e);
	return rc;
}

static int open_live_shares(struct vm *vm, struct err *e)
{
	struct opened *o = &vm->opened;
	int rc = 0;

	for (unsigned i = 0; i < vm->conf->nshares && !rc; i++) {
		if (!vm->conf->share[i].packed) {
			rc = share_open(&o->share[o->nshares], &vm->conf->share[i], o->nshares, e);
			o->nshares++; /* share_close() closes what is there */
		}
	}
	return rc;
}

/* ---- for vm.c ---- */

void open_init(struct vm *vm)
{
	vm->opened.exec_program = vm->opened.pager_program = vm->opened.vfio_container = -1;
	vm->opened.seed = -1;
	vm->vsock = (struct vsock){.dir = -1, .listener = -1, .reserved = -1};
	vm->terminal = (struct terminal){.in = -1, .out = -1, .slave = -1};
}

int open_ends(struct vm *vm, bool check_only, struct err *e)
{
	int rc = open_disks(vm, check_only, e);

	if (!rc)
		rc = open_seed(vm, check_only, e);
	if (!rc)
		rc = open_nics(vm, check_only, e);
	if (!rc)
		rc = open_live_shares(vm, e);
	if (!rc)
		rc = open_vhosts(vm, check_only, e);
	return rc ? rc : open_vfios(vm, check_only, e);
}

int open_epc(struct vm *vm, bool check_only, struct err *e)
{
	const struct mem_region *last = &vm->memmap.region[vm->memmap.nregions - 1];
	struct sgx_host h;
	int rc;

	if (!vm->conf->sgx)
		return 0;
	rc = sgx_look(&h, vm->kvm, e);
	if (!rc)
		rc = sgx_place(&h, vm->conf->sgx, last->gpa + last->size, &vm->epc, e);
	if (!rc)
		rc = sgx_open(SGX_DEVICE, vm->conf->sgx, &vm->epc_fd, e);
	if (check_only)
		fd_close(&vm->epc_fd);
	return rc;
}

/* In the order of their tags, which the guest counts on: src/guest/fs.c. */
static int add_live_shares(struct vm *vm, struct err *e)
{
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc = 0;

	for (unsigned i = 0; i < vm->opened.nshares && !rc; i++) {
		struct share *s = &vm->opened.share[i];

		snprintf(name, sizeof(name), "fs%u", i);
		rc = vm_add_device(vm, &device_vhost, s->conf->bus, name, s->back.nqueues, &d, e);
		d->back.vhost = &s->back;
	}
	return rc;
}

static int vhost_devices(struct vm *vm, struct err *e)
{
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc = 0;

	for (unsigned i = 0; i < vm->opened.nvhosts && !rc; i++) {
		snprintf(name, sizeof(name), "vhost%u", i);
		rc = vm_add_device(vm, &device_vhost, vm->conf->vhost[i].bus, name,
				   vm->opened.vhost[i].nqueues, &d, e);
		d->back.vhost = &vm->opened.vhost[i];
	}
	return rc;
}

/* Without having been opened, it is only counted. */
static int vfio_devices(struct vm *vm, struct err *e)
{
	const struct mem_region *last =
		vm->epc.size ? &vm->epc : &vm->memmap.region[vm->memmap.nregions - 1];
	struct vfio_room room;
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc = 0;

	vfio_room_set(&room, last->gpa + last->size);
	for (unsigned i = 0; i < vm->opened.nvfios && !rc; i++) {
		struct vfio_back *b = &vm->opened.vfio[i];

		snprintf(name, sizeof(name), "vfio%u", i);
		rc = vm_add_device(vm, &device_vfio, CONFIG_BUS_PCI, name, b->seen.nvectors, &d, e);
		d->back.vfio = b;
		d->nqueues = 0; /* they were its vectors: nobody kicks it */
		if (!rc && b->device >= 0)
			rc = vfio_fill(b, d, &room, e);
	}
	return rc;
}

int open_disk_device(struct vm *vm, struct disk *disk, const char *name, unsigned nqueues,
		     struct err *e)
{
	struct served *served = disk->module ? disk->module->served : NULL;
	const struct device_class *class = served         ? &device_vhost
					   : disk->module ? &device_module
							  : &device_blk;
	struct device *d;
	int rc = vm_add_device(vm, class, disk->conf->bus, name, nqueues, &d, e);

	if (served) {
		d->back.vhost = &served->back;
		return rc ? rc : served_size(served, nqueues, config_most_mem(vm->conf), e);
	}
	d->back.disk = disk;
	if (!rc && disk->module)
		rc = device_module_init(d, disk, config_most_mem(vm->conf), e);
	return rc;
}

int open_cards(struct vm *vm, struct err *e)
{
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc = 0;

	for (unsigned i = 0; i < vm->opened.nnics && !rc; i++) {
		snprintf(name, sizeof(name), "eth%u", i);
		rc = vm_add_device(vm, &device_net, vm->conf->net[i].bus, name,
				   2 * vm->opened.nic[i].start.npairs + 1, &d, e);
		d->back.nic = &vm->opened.nic[i];
	}
	if (!rc)
		rc = add_live_shares(vm, e);
	if (!rc)
		rc = vhost_devices(vm, e);
	return rc ? rc : vfio_devices(vm, e);
}

int open_programs(struct vm *vm, struct err *e)
{
	struct device *vsock = vm_vsock(vm);
	int rc = child_init(&vm->vmm, vm->paths.libexec, "insula-vmm", "",
			    config_vcpus(vm->conf) + VMM_OTHER_THREADS, VMM_NOFILE, e);

	vm->vmm.os.fsize = VMM_SAVE_ROOM(config_vcpus(vm->conf));
	if (vsock)
		vsock->child.os.nofile = vsock_nofile();
	if (!rc)
		rc = vm->opened.exec_program = child_program(vm->paths.libexec, "insula-exec", e);
	if (rc >= 0)
		rc = vm->opened.pager_program = child_program(vm->paths.libexec, "insula-pager", e);
	return rc < 0 ? rc : 0;
}

#define PAGER_NOFILE 32
#define PAGER_NOFILE_MANY 256

int open_pager(struct vm *vm, struct child *c, bool many, uint64_t fsize, struct err *e)
{
	int rc = child_init_open(c, vm->opened.pager_program, "insula-pager", "", 1,
				 many ? PAGER_NOFILE_MANY : PAGER_NOFILE, e);

	if (!rc)
		c->os.fsize = fsize;
	return rc;
}

void open_close(struct vm *vm)
{
	fd_close(&vm->opened.exec_program);
	fd_close(&vm->opened.pager_program);
	fd_close(&vm->opened.seed);
	for (unsigned i = 0; i < vm->ndevices; i++)
		device_free(&vm->device[i]);
	for (unsigned i = 0; i < vm->opened.ndisks; i++) {
		module_close(vm->opened.disk[i].module);
		disk_close(&vm->opened.disk[i]);
	}
	for (unsigned i = 0; i < vm->opened.nnics; i++)
		nic_close(&vm->opened.nic[i]);
	for (unsigned i = 0; i < vm->opened.nshares; i++)
		share_close(&vm->opened.share[i]);
	for (unsigned i = 0; i < vm->opened.nvhosts; i++)
		vhost_close(&vm->opened.vhost[i]);
	for (unsigned i = vm->opened.nvfios; i-- > 0;)
		vfio_close(&vm->opened.vfio[i]);
}
