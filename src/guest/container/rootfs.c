/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: the root of a container.
 *
 * In the new mount namespace: open what the machine gives (root, sources of binds), while this
 * process may still read all of it; become root of the user namespace, if there is one; mount the
 * root at CT_ROOT, fill it, and make it "/" with pivot_root(2). The old root is detached as a
 * whole, so nothing of the machine has a name in the container, not even for its root.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

static void close_sources(struct root *r)
{
	for (size_t i = 0; r->source && i < r->c->mounts; i++)
		if (r->source[i] >= 0)
			close(r->source[i]);
	free(r->source);
	r->source = NULL;
}

static int open_sources(struct root *r, struct err *e)
{
	const struct container *c = r->c;

	r->source = calloc(c->mounts + 1, sizeof *r->source);
	if (!r->source)
		return err_set(e, -ENOMEM, "out of memory");
	memset(r->source, 0xff, c->mounts * sizeof *r->source);
	for (size_t i = 0; i < c->mounts; i++) {
		struct err why;

		if (!(c->mount[i].flags & MS_BIND))
			continue;
		r->source[i] = machine_open(c->mount[i].source, &why);
		if (r->source[i] < 0)
			return err_set(e, r->source[i], "mount %s: %s", c->mount[i].dest, why.text);
	}
	return 0;
}

/* Its own mount, and a descriptor of that. */
static int mount_root(struct root *r, int rootfs, struct err *e)
{
	char from[FD_PATH_MAX];

	if (mount(fd_path(rootfs, from), CT_ROOT, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_sys(e, -errno, "mount the root %s", r->c->rootfs);
	r->fd = open(CT_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (r->fd < 0)
		return err_sys(e, -errno, "open " CT_ROOT);
	return 0;
}

static int fill_root(struct root *r, struct err *e)
{
	const char *cwd = r->c->process.cwd;
	int rc = mounts_all(r, e), fd;

	if (!rc)
		rc = dev_all(r, e);
	if (!rc && r->c->process.terminal)
		rc = dev_console(r, e);
	if (!rc && cwd) {
		fd = root_make(r->fd, cwd, true, e);
		rc = fd < 0 ? fd : 0;
		if (fd >= 0)
			close(fd);
	}
	if (!rc)
		rc = mounts_paths(r, e);
	if (!rc && r->c->readonly)
		rc = mount_readonly(r->fd, "the root", e);
	return rc;
}

static int pivot(struct root *r, struct err *e)
{
	int old = open("/", O_DIRECTORY | O_RDONLY | O_CLOEXEC), rc = 0;

	if (old < 0 || fchdir(r->fd) < 0)
		rc = err_sys(e, -errno, "enter the root");
	else if (syscall(SYS_pivot_root, ".", ".") < 0)
		rc = err_sys(e, -errno, "pivot_root%s",
			     errno == EINVAL ? " (the machine must have left its initramfs)" : "");
	/* The old root now lies on the new one. */
	else if (fchdir(old) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		rc = err_sys(e, -errno, "leave the machine's root");
	if (old >= 0)
		close(old);
	if (!rc && r->c->has_propagation && r->c->propagation &&
	    mount(NULL, "/", NULL, r->c->propagation, NULL) < 0)
		rc = err_sys(e, -errno, "propagation 0x%lx of the root", r->c->propagation);
	return rc;
}

static int build_root(struct root *r, struct err *e)
{
	int rootfs, rc;

	/* What is mounted here is nobody else's. */
	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return err_sys(e, -errno, "make the mounts slaves");
	rootfs = machine_open(r->c->rootfs, e);
	if (rootfs < 0)
		return rootfs;
	rc = open_sources(r, e);
	if (!rc && r->userns)
		rc = process_ns_root(e);
	if (!rc)
		rc = mount_root(r, rootfs, e);
	close(rootfs);
	if (!rc)
		rc = fill_root(r, e);
	return rc ? rc : pivot(r, e);
}

int rootfs_enter(const struct container *c, struct err *e)
{
	struct root r = {.c = c, .fd = -1};
	int rc;

	r.userns = c->ns[NS_USER].fresh || ns_user_is_other();
	umask(0);
	if (c->ns[NS_MOUNT].of) /* entered already, with its root */
		return r.userns ? process_ns_root(e) : 0;
	rc = build_root(&r, e);
	close_sources(&r);
	if (r.fd >= 0)
		close(r.fd);
	return rc;
}
