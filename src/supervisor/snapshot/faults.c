/* SPDX-License-Identifier: BSD-2-Clause */
/* See faults.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "faults.h"
#include "supervisor/vm.h"

#define FAULTS_MAX (MEMMAP_MAX * (VM_MAX_DEVICES + 1))

struct kept {
	const struct child *whose; /* NULL: a free place */
	int fd;                    /* owned */
	struct msg_faults m;
};

struct faults {
	int device;  /* /dev/userfaultfd; owned */
	bool guards; /* memory can be write-protected */
	bool fill;
	struct kept kept[FAULTS_MAX];
};

/* ---- from the start on ---- */

/* One that works, and what it can do. */
static int open_device(const struct vm *vm, bool *guards, struct err *e)
{
	int device, fd, rc;

	if (vm->conf->mem_huge)
		return err_set(e, -EOPNOTSUPP, "it is in huge pages");
	/* Whoever guards a hole has page tables for it, which count as the VM's: for all that it
	 * could ever have they may be more than it has now. */
	if (vm->conf->mem_max)
		return err_set(e, -EOPNOTSUPP, "it can be resized");
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return err_sys(e, -errno, "/dev/userfaultfd");
	fd = faults_open(device, guards, e);
	if (fd >= 0) {
		close(fd);
		return device;
	}
	rc = e->code;
	close(device);
	return rc;
}

void faults_begin(struct vm *vm)
{
	struct err e;
	bool guards = false;
	int device = open_device(vm, &guards, &e);
	struct faults *f = device >= 0 ? calloc(1, sizeof(*f)) : NULL;

	if (!f) {
		log_info("snapshots: memory is read and written as a whole: %s",
			 device < 0 ? e.text : "out of memory");
		fd_close(&device);
		return;
	}
	f->device = device;
	f->guards = guards;
	for (unsigned i = 0; i < FAULTS_MAX; i++)
		f->kept[i].fd = -1;
	vm->faults = f;
	vm->vmm.os.gives = true;
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->device[i].class->memory && !vm->device[i].class->unsaved)
			vm->device[i].child.os.gives = true;
	}
}

void faults_close(struct vm *vm)
{
	struct faults *f = vm->faults;

	if (!f)
		return;
	for (unsigned i = 0; i < FAULTS_MAX; i++)
		fd_close(&f->kept[i].fd);
	fd_close(&f->device);
	free(f);
	vm->faults = NULL;
}

int faults_device(const struct vm *vm)
{
	const struct faults *f = vm->faults;

	return f && (f->fill || f->guards) ? f->device : -1;
}

void faults_fill(struct vm *vm, bool fill)
{
	if (vm->faults)
		vm->faults->fill = fill;
}

enum start_role faults_role(const struct vm *vm)
{
	return vm->faults && vm->faults->fill ? START_FAULTS : START_WATCH;
}

/* ---- the descriptors ---- */

/* A piece of the memory as every process has it, once, and a descriptor that is what it should be:
 * whoever says so may have looked at a hostile page already. */
static bool faults_fit(const struct vm *vm, const struct child *whose, const struct msg_faults *m,
		       int fd)
{
	static const char what[] = "anon_inode:[userfaultfd]";
	char path[32], link[sizeof(what) + 1] = "";
	bool known = false;

	for (unsigned i = 0; i < vm->memmap.nregions; i++)
		known |= vm->memmap.region[i].offset == m->offset &&
			 vm->memmap.region[i].size == m->len;
	for (unsigned i = 0; i < FAULTS_MAX; i++)
		known &= vm->faults->kept[i].whose != whose ||
			 vm->faults->kept[i].m.offset != m->offset;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return known && readlink(path, link, sizeof(link) - 1) == (ssize_t)sizeof(what) - 1 &&
	       !strcmp(link, what) && (fcntl(fd, F_GETFL) & O_NONBLOCK);
}

bool faults_keep(struct vm *vm, const struct child *whose, const struct msg_faults *m, int fd)
{
	unsigned i = 0;

	while (vm->faults && i < FAULTS_MAX && vm->faults->kept[i].whose)
		i++;
	if (!vm->faults || i == FAULTS_MAX || !faults_fit(vm, whose, m, fd)) {
		fd_close(&fd);
		return false;
	}
	vm->faults->kept[i] = (struct kept){whose, fd, *m};
	/* It was started when there was still something to fill. */
	if (vm->conf->restoring && !vm->faults->fill)
		faults_end(fd, m->addr, m->len);
	return true;
}

void faults_forget(struct vm *vm, const struct child *whose)
{
	for (unsigned i = 0; vm->faults && i < FAULTS_MAX; i++) {
		if (vm->faults->kept[i].whose != whose)
			continue;
		fd_close(&vm->faults->kept[i].fd);
		vm->faults->kept[i].whose = NULL;
	}
}

static unsigned kept_of(const struct faults *f, const struct child *whose)
{
	unsigned n = 0;

	for (unsigned i = 0; i < FAULTS_MAX; i++)
		n += f->kept[i].whose == whose;
	return n;
}

bool faults_complete(const struct vm *vm)
{
	const struct faults *f = vm->faults;
	bool all = f && f->guards && kept_of(f, &vm->vmm) == vm->memmap.nregions;

	for (unsigned i = 0; i < vm->ndevices && all; i++)
		all = !vm->device[i].class->memory ||
		      kept_of(f, &vm->device[i].child) == vm->memmap.nregions;
	return all;
}

int faults_give(const struct vm *vm, struct child *pager, const struct child *whose,
		uint64_t offset)
{
	int rc = 0;

	for (unsigned i = 0; vm->faults && i < FAULTS_MAX && !rc; i++) {
		const struct kept *k = &vm->faults->kept[i];

		if (k->whose && (!whose || (k->whose == whose && k->m.offset == offset)))
			rc = child_send(pager, MSG_PAGER_FAULTS, &k->m, sizeof(k->m), &k->fd, 1);
	}
	return rc;
}

void faults_let_go(struct vm *vm)
{
	for (unsigned i = 0; vm->faults && i < FAULTS_MAX; i++) {
		const struct kept *k = &vm->faults->kept[i];

		if (k->whose)
			faults_end(k->fd, k->m.addr, k->m.len);
	}
}
