/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: copies a directory of a container's root into a tmpfs above it (tmpcopyup). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container.h"

#define DEPTH_MAX 64

static int copy_data(int from, int to)
{
	ssize_t n;

	do
		n = sendfile(to, from, NULL, 1u << 20);
	while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? -errno : 0;
}

static int copy_file(int from, int to, const char *name)
{
	int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	int out = -1, r = in < 0 ? -errno : 0;

	if (!r)
		out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (!r && out < 0)
		r = -errno;
	if (!r)
		r = copy_data(in, out);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return r;
}

static int copy_link(int from, int to, const char *name)
{
	char target[CT_PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof target - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return symlinkat(target, to, name) < 0 ? -errno : 0;
}

static int copy_dir(int from, int to, const char *name, unsigned depth, struct err *e)
{
	int in = openat(from, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), out = -1, r;

	r = in < 0 || mkdirat(to, name, 0700) < 0 ? -errno : 0;
	if (!r) {
		out = openat(to, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		r = out < 0 ? -errno : 0;
	}
	if (r)
		err_sys(e, r, "copy %s", name);
	else
		r = copy_tree(in, out, depth + 1, e);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return r;
}

static int copy_entry(int from, int to, const char *name, unsigned depth, struct err *e)
{
	struct stat st;
	int r;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, -errno, "copy %s", name);
	if (S_ISDIR(st.st_mode)) {
		r = copy_dir(from, to, name, depth, e);
		if (r)
			return r;
	} else {
		r = S_ISREG(st.st_mode)                             ? copy_file(from, to, name)
		    : S_ISLNK(st.st_mode)                           ? copy_link(from, to, name)
		    : mknodat(to, name, st.st_mode, st.st_rdev) < 0 ? -errno
								    : 0;
	}
	if (!r && fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		r = -errno;
	/* After the owner, whose change takes the set-user-id bit away. `to` has no links but those
	 * that were made here. */
	if (!r && !S_ISLNK(st.st_mode) && fchmodat(to, name, st.st_mode & 07777, 0) < 0)
		r = -errno;
	return r ? err_sys(e, r, "copy %s", name) : 0;
}

int copy_tree(int from, int to, unsigned depth, struct err *e)
{
	int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	struct dirent *d;
	DIR *all = fd < 0 ? NULL : fdopendir(fd);

	if (!all || depth > DEPTH_MAX) {
		r = err_sys(e, depth > DEPTH_MAX ? -ELOOP : -errno, "copy a directory");
		if (all)
			closedir(all);
		else if (fd >= 0)
			close(fd);
		return r;
	}
	while (!r && (d = readdir(all)))
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			r = copy_entry(from, to, d->d_name, depth, e);
	closedir(all);
	return r;
}
