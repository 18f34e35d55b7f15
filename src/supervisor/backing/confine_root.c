/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The files of a confined program: a mount namespace and in it a root that is put together from
 * copies of mounts. See confine.c for what it has, and docs/jail.md for why.
 *
 * In the child, after its ids are mapped, with all capabilities of its user namespace. What is
 * taken of the host's tree is taken before the new root covers it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine_child.h"

#define STAGE "/proc" /* a directory that certainly exists: the new root is put together on it */

static int set_mount(int tree, const char *path, unsigned flags, uint64_t set, uint64_t propagation)
{
	struct mount_attr a = {.attr_set = set, .propagation = propagation};

	return (int)syscall(SYS_mount_setattr, tree, path, flags | AT_RECURSIVE, &a, sizeof(a));
}

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/* A copy of the mounts below `path` ("": the current directory), not attached yet. */
static int take_tree(const char *path, uint64_t set, uint64_t propagation)
{
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path,
				OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE |
					(*path ? 0 : AT_EMPTY_PATH));

	confine_must(tree, *path ? path : "the directory");
	confine_must(set_mount(tree, "", AT_EMPTY_PATH, set, propagation),
		     "mount_setattr (Linux 5.12 or newer)");
	return tree;
}

/* Attach it at `at` of the new root. */
static void put_tree(int tree, const char *at)
{
	confine_must((int)syscall(SYS_move_mount, tree, "", AT_FDCWD, at, MOVE_MOUNT_F_EMPTY_PATH),
		     at);
	close(tree);
}

static void attach(const char *path, const char *at, uint64_t set)
{
	put_tree(take_tree(path, set | MOUNT_ATTR_RDONLY, MS_PRIVATE), at);
}

/* Where its loader finds its libraries: a directory, or on most systems a link into /usr. */
static void add_libraries(const char *host, const char *name)
{
	char target[64];
	struct stat st;
	ssize_t n;

	if (lstat(host, &st))
		return;
	if (S_ISLNK(st.st_mode)) {
		n = readlink(host, target, sizeof(target) - 1);
		confine_must(n < 0 ? -1 : 0, host);
		target[n] = 0;
		confine_must(symlink(target, name), host);
	} else if (S_ISDIR(st.st_mode)) {
		confine_must(mkdir(name, 0755), host);
		attach(host, name, QUIET);
	}
}

static void add_file(const char *name, const char *text)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);

	confine_must(fd, name);
	confine_must((int)write(fd, text, strlen(text)), name);
	close(fd);
}

static void add_loader_cache(void)
{
	if (access("/etc/ld.so.cache", R_OK))
		return;
	confine_must(mkdir("etc", 0755), "etc");
	add_file("etc/ld.so.cache", "");
	attach("/etc/ld.so.cache", "etc/ld.so.cache", QUIET | MOUNT_ATTR_NOEXEC);
}

/* What is written there is gone: nothing else of /dev is needed. */
static void add_null(void)
{
	confine_must(mkdir("dev", 0755), "dev");
	add_file("dev/null", "");
	put_tree(take_tree("/dev/null", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, MS_PRIVATE),
		 "dev/null");
}

/* Of /proc its own directory alone, and no file system of that type anew: that is refused where
 * something of the host's is covered, by a container or by systemd. virtiofsd insists on reading
 * two limits of /proc/sys, which is not there: user id 0 may write it, without a capability. */
static void add_proc(int self)
{
	static const char most[] = "1048576\n"; /* it is told to leave its limit alone */

	confine_must(mkdir("proc", 0755), "proc");
	confine_must(mkdir("proc/self", 0555), "proc");
	put_tree(self, "proc/self");
	confine_must(mkdir("proc/sys", 0755), "proc");
	confine_must(mkdir("proc/sys/fs", 0755), "proc");
	add_file("proc/sys/fs/file-max", most);
	add_file("proc/sys/fs/nr_open", most);
}

/* What is at the path now must be what was opened and looked at. */
static int take_file(const struct confine_file *f)
{
	const uint64_t set =
		QUIET | (f->exec ? 0 : MOUNT_ATTR_NOEXEC) | (f->write ? 0 : MOUNT_ATTR_RDONLY);
	struct stat now, then;
	int tree = take_tree(f->path, set, MS_PRIVATE);

	confine_must(fstat(tree, &now), f->path);
	confine_must(fstat(f->fd, &then), f->path);
	if (now.st_dev != then.st_dev || now.st_ino != then.st_ino) {
		errno = ESTALE;
		confine_failed(f->path);
	}
	return tree;
}

/* The directories above it. */
static void add_above(const char *path)
{
	char dir[CONFINE_AT];

	for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
		snprintf(dir, sizeof(dir), "%.*s", (int)(p - path), path);
		if (mkdir(dir, 0755) && errno != EEXIST)
			confine_failed(dir);
	}
}

static void put_file_tree(const struct confine_file *f, int tree)
{
	char at[sizeof("files/") + CONFINE_AT];

	if (f->at[0])
		snprintf(at, sizeof(at), "%s", f->at + 1);
	else
		snprintf(at, sizeof(at), "files/%s", f->name);
	add_above(at);
	add_file(at, "");
	put_tree(tree, at);
}

/* Nobody resolves names there: what was resolved is in a file. QEMU looks for its drivers, which
 * are libraries, by way of the directory of its program. */
static void add_network(const struct confine_network *n)
{
	add_above("etc/hosts");
	add_file("etc/hosts", n->hosts);
	confine_must(mkdir("usr/bin", 0755), "usr/bin");
}

/* The whole of /usr, or its libraries alone. */
static void add_usr(bool whole)
{
	if (whole) {
		add_libraries("/usr", "usr");
		return;
	}
	confine_must(mkdir("usr", 0755), "usr");
	add_libraries("/usr/lib", "usr/lib");
	add_libraries("/usr/lib64", "usr/lib64");
}

/* What lies below the place where the new root is put together is taken before. */
static void make_root(const struct confine_plan *p)
{
	const bool share = p->dir >= 0;
	int dir = -1, self = -1, tree[CONFINE_FILES];

	if (share) {
		dir = take_tree("", QUIET | MOUNT_ATTR_NOEXEC | (p->ro ? MOUNT_ATTR_RDONLY : 0),
				p->ro ? MS_PRIVATE : MS_SLAVE);
		self = take_tree("/proc/self", QUIET | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY,
				 MS_PRIVATE);
	}
	for (unsigned i = 0; i < p->nfiles; i++)
		tree[i] = take_file(&p->file[i]);
	confine_must(
		mount("insula-root", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,nr_inodes=64"),
		"tmpfs");
	confine_must(chdir(STAGE), STAGE);
	add_usr(share);
	add_libraries("/lib", "lib");
	add_libraries("/lib64", "lib64");
	add_loader_cache();
	if (share) {
		add_proc(self);
		confine_must(mkdir("share", 0755), "share");
		put_tree(dir, "share");
	} else
		add_null();
	confine_must(mkdir("files", 0755), "files");
	for (unsigned i = 0; i < p->nfiles; i++)
		put_file_tree(&p->file[i], tree[i]);
	if (p->network)
		add_network(p->network);
	confine_must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	confine_must(umount2(".", MNT_DETACH), "the old root");
	confine_must(chdir("/"), "/");
	confine_must(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV,
			   NULL),
		     "its root");
}

/* The current directory moves along into the new mount namespace, a descriptor would not. */
void confine_enter(const struct confine_plan *p)
{
	confine_must(p->dir < 0 ? chdir("/") : fchdir(p->dir), "the directory");
	confine_must(
		unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP),
		"namespaces");
	confine_must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "slave mounts");
	make_root(p);
}
