/* SPDX-License-Identifier: BSD-2-Clause */
/* What is behind a device that comes while the VM runs: the same as behind one that is there from
 * the start. See plug.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <insula/base.h>

#include "files.h"
#include "module.h"
#include "served.h"
#include "devices/console/console_start.h"
#include "devices/vsock/vsock_start.h"
#include "supervisor/plug_state.h"
#include "supervisor/vm.h"

/* ---- disks ---- */

static bool holds(const struct device *d, const struct stat *st)
{
	const struct disk *disk = d->class == &device_blk ? d->back.disk : NULL;

	return disk && (file_is(disk->fd, st) || file_is(disk->over, st));
}

/* The device of this VM that has the file; NULL: none. */
static const char *holder(const struct vm *vm, const char *path)
{
	struct stat st;

	if (!path || stat(path, &st))
		return NULL;
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (holds(&vm->device[i], &st))
			return vm->device[i].desc.name;
	}
	return NULL;
}

static int open_a_file(struct plug *p, const struct disk_config *c, struct err *e)
{
	const char *path = c->path, *who;
	int rc = disk_open(&p->back.disk, c, false, e);

	if (rc != -EBUSY)
		return rc;
	who = holder(p->vm, path);
	if (!who && c->overlay) {
		path = c->overlay;
		who = holder(p->vm, path);
	}
	return who ? err_set(e, rc, "disk %s: this VM has it as %s; expected one that is free",
			     path, who)
		   : rc;
}

static int open_a_disk(struct plug *p, const char *name, struct err *e)
{
	struct disk_config *c = &p->conf->disk[0];
	struct disk *d = &p->back.disk;
	int rc = 0;

	*d = (struct disk){
		.conf = c, .fd = -1, .over = -1, .memory = -1, .limit = {c->rate, c->iops}};
	if (config_module(c->path))
		rc = module_open(&d->module, c, p->vm->paths.libexec, MODULE_LATER, e);
	/* By it the guest knows which disk has come. One that a program of the host serves has
	 * none. */
	if (!c->serial[0])
		snprintf(c->serial, sizeof(c->serial), "%s", name);
	return rc || d->module ? rc : open_a_file(p, c, e);
}

/* ---- all kinds ---- */

static int open_a_share(struct plug *p, const char *name, struct err *e)
{
	struct share *s = &p->back.share;
	int rc = share_open(s, &p->conf->share[0], p->number, e);

	if (rc) {
		share_close(s);
		return rc;
	}
	snprintf(s->back.tag, sizeof(s->back.tag), "%s", name);
	return 0;
}

/* At most one: drivers know the guest by one address. */
static int open_a_vsock(struct plug *p, struct err *e)
{
	const struct device *there = vm_vsock(p->vm);

	return there ? err_set(e, -EEXIST,
			       "vsock: this VM has %s; expected one without a vsock device",
			       there->desc.name)
		     : vsock_open(&p->back.vsock, &p->conf->vsock, false, e);
}

/* NULL: none. */
static struct served *served_of(const struct plug *p)
{
	return p->conf->ndisks && p->back.disk.module ? p->back.disk.module->served : NULL;
}

int plug_back_open(struct plug *p, const char *name, const struct device_class **class,
		   unsigned *nqueues, struct err *e)
{
	const struct vm_config *c = p->conf;
	const unsigned cpus = p->vm->conf->cpus;
	int rc;

	if (c->ndisks) {
		rc = open_a_disk(p, name, e);
		*class = served_of(p)          ? &device_vhost
			 : p->back.disk.module ? &device_module
					       : &device_blk;
		*nqueues = cpus < BLK_MAX_QUEUES ? cpus : BLK_MAX_QUEUES;
	} else if (c->nnets) {
		/* Its address is another one than those of the cards from the start. */
		rc = nic_open(&p->back.nic, &c->net[0], CONFIG_MAX_NETS + p->number, p->vm->conf,
			      ATTACH_LATER, e);
		*class = &device_net;
		*nqueues = 2 * p->back.nic.start.npairs + 1;
	} else if (c->nshares) {
		rc = open_a_share(p, name, e);
		*class = &device_vhost;
		*nqueues = p->back.share.back.nqueues;
	} else if (c->nvfios) {
		rc = vfio_plug_open(&p->back.vfio, p->vm, &c->vfio[0], e);
		*class = &device_vfio;
		*nqueues = p->back.vfio.back.seen.nvectors;
	} else if (c->vsock.on) {
		rc = open_a_vsock(p, e);
		*class = &device_vsock;
		*nqueues = VSOCK_QUEUES;
	} else if (c->console_given) {
		rc = terminal_open(&p->back.terminal, c, e);
		*class = &device_vcon;
		*nqueues = VCON_QUEUES;
	} else {
		rc = vhost_open(&p->back.vhost, &c->vhost[0], false, e);
		*class = &device_vhost;
		*nqueues = p->back.vhost.nqueues;
	}
	return rc;
}

int plug_back_set(struct plug *p, struct err *e)
{
	const struct vm_config *c = p->conf;
	struct device *d = p->device;
	int rc = 0;

	d->child.os.gives = p->vm->faults && d->class->memory && !d->class->unsaved;
	if (served_of(p))
		d->back.vhost = &served_of(p)->back;
	else if (c->ndisks)
		d->back.disk = &p->back.disk;
	else if (c->nnets)
		d->back.nic = &p->back.nic;
	else if (c->nvfios)
		d->back.vfio = &p->back.vfio.back;
	else if (c->vsock.on)
		d->back.vsock = &p->back.vsock;
	else if (c->console_given)
		d->back.terminal = &p->back.terminal;
	else
		d->back.vhost = c->nshares ? &p->back.share.back : &p->back.vhost;
	if (served_of(p))
		rc = served_size(served_of(p), d->nqueues, config_most_mem(p->vm->conf), e);
	else if (c->ndisks && p->back.disk.module)
		rc = device_module_init(d, &p->back.disk, config_most_mem(p->vm->conf), e);
	else if (c->vsock.on)
		d->child.os.nofile = vsock_nofile();
	else if (c->nvfios) {
		d->nqueues = 0; /* they were its vectors: nobody kicks it */
		rc = vfio_fill(d->back.vfio, d, NULL, e);
	}
	return rc;
}

int plug_back_ready(struct plug *p, struct err *e)
{
	struct module_back *b = p->conf->ndisks ? p->back.disk.module : NULL;

	if (p->conf->nnets)
		return nic_ready(&p->back.nic, e);
	return b ? module_connected(b, e) : 1;
}

void plug_back_stop(struct plug *p)
{
	if (p->conf->nvfios)
		vfio_plug_stop(&p->back.vfio);
}

/* All of the guest's memory is made and pinned: a second for a gigabyte. */
uint64_t plug_back_takes(const struct plug *p)
{
	return p->conf->nvfios ? p->vm->conf->mem : 0;
}

const char *plug_back_tty(const struct plug *p)
{
	const bool is_one = p->kind && p->conf->console_given && p->conf->console == CONSOLE_PTY;

	return is_one ? p->back.terminal.slave_name : NULL;
}

bool plug_back_quiet(struct plug *p)
{
	if (p->conf->nvfios)
		return vfio_plug_quiet(&p->back.vfio, p->device);
	if (p->conf->nnets)
		return nic_quiet(&p->back.nic);
	return !served_of(p) || served_quiet(served_of(p));
}

void plug_back_close(struct plug *p)
{
	const struct vm_config *c = p->conf;

	if (!p->kind)
		return;
	if (c->ndisks) {
		module_close(p->back.disk.module);
		p->back.disk.module = NULL;
		disk_unlock(&p->back.disk); /* plug_quiet() */
		disk_close(&p->back.disk);
	} else if (c->nnets) {
		nic_close(&p->back.nic);
	} else if (c->nshares) {
		share_close(&p->back.share);
	} else if (c->nvfios) {
		vfio_plug_close(&p->back.vfio);
	} else if (c->vsock.on) {
		vsock_close(&p->back.vsock);
	} else if (c->console_given) {
		terminal_close(&p->back.terminal);
	} else {
		vhost_close(&p->back.vhost);
	}
	p->kind = NULL;
}
