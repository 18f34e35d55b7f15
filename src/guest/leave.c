/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: leaves the initramfs for a tmpfs.
 *
 * The initramfs is the first root of every mount namespace, lies below whatever is mounted on "/",
 * and cannot be the old root of pivot_root(2). A container with the right to unmount its own root
 * would see it. So a machine that serves containers moves everything into a tmpfs on "/", and what
 * is below is empty.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

static void move_dir(int from, int to, dev_t dev);

static int copy_file(int from, int to, const char *name)
{
	int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t n = in < 0 || out < 0 ? -1 : 1;

	while (n > 0)
		n = sendfile(out, in, NULL, 1u << 20);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return (int)n;
}

static int copy_link(int from, int to, const char *name)
{
	char target[4096];
	ssize_t n = readlinkat(from, name, target, sizeof target - 1);

	if (n < 0)
		return -1;
	target[n] = '\0';
	return symlinkat(target, to, name);
}

static int move_below(int from, int to, const char *name, dev_t dev)
{
	int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), out;

	if (in < 0 || mkdirat(to, name, 0700) < 0)
		return -1;
	out = openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (out < 0)
		return -1;
	move_dir(in, out, dev);
	close(out);
	return 0;
}

static void move_entry(int from, int to, const char *name, dev_t dev)
{
	struct stat st;
	int rc;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		die_errno("leave the initramfs: %s", name);
	if (st.st_dev != dev) /* something is mounted there; it is carried over as a whole */
		return;
	if (S_ISDIR(st.st_mode))
		rc = move_below(from, to, name, dev);
	else if (S_ISREG(st.st_mode))
		rc = copy_file(from, to, name);
	else
		rc = S_ISLNK(st.st_mode) ? copy_link(from, to, name)
					 : mknodat(to, name, st.st_mode, st.st_rdev);
	if (rc < 0 || (!S_ISLNK(st.st_mode) && fchmodat(to, name, st.st_mode & 07777, 0) < 0))
		die_errno("leave the initramfs: %s", name);
	/* Each at once, so that nothing is in memory twice. */
	if (unlinkat(from, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 &&
	    errno != ENOTEMPTY && errno != EBUSY)
		die_errno("leave the initramfs: remove %s", name);
}

/* `from` is closed. */
static void move_dir(int from, int to, dev_t dev)
{
	DIR *d = fdopendir(from);
	struct dirent *e;

	if (!d)
		die_errno("leave the initramfs");
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			move_entry(dirfd(d), to, e->d_name, dev);
	closedir(d);
}

void leave_initramfs(const char *tmpfs)
{
	int from = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), to;
	struct stat st;

	mkdir(tmpfs, 0755);
	if (mount("tmpfs", tmpfs, "tmpfs", 0, "mode=755") < 0)
		die_errno("mount a tmpfs on %s", tmpfs);
	to = open(tmpfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (from < 0 || to < 0 || fstat(from, &st) < 0)
		die_errno("leave the initramfs");
	move_dir(from, to, st.st_dev);
	close(to);
}
