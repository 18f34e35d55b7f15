/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: devices: those of the configuration and those that every container has
 * (runtime-spec, config-linux.md, "Default Devices"), their links, and the console.
 *
 * Where mknod(2) is refused (in a user namespace, and by a share whose server may not), the node of
 * the machine is bound in its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "container.h"

static const struct device_record usual[] = {
	{"/dev/null", 'c', 1, 3, 0666, 0, 0},    {"/dev/zero", 'c', 1, 5, 0666, 0, 0},
	{"/dev/full", 'c', 1, 7, 0666, 0, 0},    {"/dev/random", 'c', 1, 8, 0666, 0, 0},
	{"/dev/urandom", 'c', 1, 9, 0666, 0, 0}, {"/dev/tty", 'c', 5, 0, 0666, 0, 0},
};

static const char *const links[][2] = {
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
};

static mode_t type_bits(const struct device_record *d)
{
	return d->type == 'c' ? S_IFCHR : d->type == 'b' ? S_IFBLK : S_IFIFO;
}

static bool is_node(const struct stat *st, const struct device_record *d)
{
	return (st->st_mode & S_IFMT) == type_bits(d) &&
	       (d->type == 'p' || st->st_rdev == makedev(d->major, d->minor));
}

/* The machine's device on the file dir/name, which is made if it is missing. */
static int bind_node(int dir, const char *name, const struct device_record *d, struct err *e)
{
	char from[FD_PATH_MAX], to[FD_PATH_MAX];
	int source = machine_open(d->path, e), dest, r = 0;
	struct stat st;

	if (source < 0)
		return source;
	if (fstat(source, &st) < 0 || !is_node(&st, d)) {
		close(source);
		return err_set(e, -ENXIO, "device %s: the machine has another one there", d->path);
	}
	dest = openat(dir, name,
		      O_CREAT | O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_EXCL,
		      0644);
	if (dest < 0 && errno == EEXIST)
		dest = openat(dir, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	if (dest < 0 || mount(fd_path(source, from), fd_path(dest, to), NULL, MS_BIND, NULL) < 0)
		r = err_sys(e, -errno, "bind the device %s", d->path);
	if (dest >= 0)
		close(dest);
	close(source);
	return r;
}

static int make_node(struct root *r, const struct device_record *d, struct err *e)
{
	char name[256];
	struct stat st;
	int dir = root_make_parent(r->fd, d->path, name, e), rc = 0;

	if (dir < 0)
		return dir;
	if (mknodat(dir, name, type_bits(d) | d->mode, makedev(d->major, d->minor)) == 0) {
		if (fchownat(dir, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW) < 0)
			rc = err_sys(e, -errno, "owner of the device %s", d->path);
	} else if (errno == EEXIST) {
		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !is_node(&st, d))
			rc = bind_node(dir, name, d, e);
	} else if (errno == EPERM && d->type != 'p') {
		rc = bind_node(dir, name, d, e);
	} else {
		rc = err_sys(e, -errno, "make the device %s", d->path);
	}
	close(dir);
	return rc;
}

/* `replace`: what is there gives way, if it is no directory. */
static int make_link(struct root *r, const char *target, const char *path, bool replace,
		     struct err *e)
{
	char name[256];
	int dir = root_make_parent(r->fd, path, name, e), rc = 0;

	if (dir < 0)
		return dir;
	if (replace && unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		rc = err_sys(e, -errno, "replace %s", path);
	if (!rc && symlinkat(target, dir, name) < 0 && errno != EEXIST)
		rc = err_sys(e, -errno, "make the link %s", path);
	close(dir);
	return rc;
}

/* A /dev that is bound is somebody else's. */
static bool dev_is_bound(const struct container *c)
{
	for (size_t i = 0; i < c->mounts; i++) {
		const char *d = c->mount[i].dest;

		d += strspn(d, "/");
		if (strncmp(d, "dev", 3) == 0 && d[3 + strspn(d + 3, "/")] == '\0' &&
		    c->mount[i].flags & MS_BIND)
			return true;
	}
	return false;
}

int dev_all(struct root *r, struct err *e)
{
	const struct container *c = r->c;
	int rc = 0;

	if (dev_is_bound(c))
		return 0;
	for (size_t i = 0; i < c->devices && !rc; i++)
		rc = make_node(r, &c->device[i], e);
	for (size_t i = 0; i < COUNT(usual) && !rc; i++)
		rc = make_node(r, &usual[i], e);
	for (size_t i = 0; i < COUNT(links) && !rc; i++)
		rc = make_link(r, links[i][0], links[i][1], false, e);
	return rc ? rc : make_link(r, "pts/ptmx", "/dev/ptmx", true, e);
}

/* The terminal by its name in this mount namespace: nothing of another one can be bound. */
static int open_terminal(struct err *e)
{
	char name[64], self[FD_PATH_MAX];
	struct stat ours, named;
	ssize_t n = readlink(fd_path(STDIN_FILENO, self), name, sizeof name - 1);
	int fd;

	if (n < 0 || fstat(STDIN_FILENO, &ours) < 0)
		return err_sys(e, -errno, "the terminal");
	name[n] = '\0';
	fd = machine_open(name, e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &named) == 0 && S_ISCHR(named.st_mode) && named.st_rdev == ours.st_rdev)
		return fd;
	close(fd);
	return err_set(e, -ENOTTY, "the terminal: %s is another one", name);
}

int dev_console(struct root *r, struct err *e)
{
	char from[FD_PATH_MAX], to[FD_PATH_MAX];
	int source = open_terminal(e), dest, rc = 0;

	if (source < 0)
		return source;
	dest = root_make(r->fd, "/dev/console", false, e);
	if (dest < 0)
		rc = dest;
	else if (mount(fd_path(source, from), fd_path(dest, to), NULL, MS_BIND, NULL) < 0)
		rc = err_sys(e, -errno, "bind the terminal on /dev/console");
	if (dest >= 0)
		close(dest);
	close(source);
	return rc;
}
