/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: paths inside a container's root.
 *
 * The root belongs to an image that may be hostile: any component may be a symbolic link to "/" or
 * to "../../..". openat2(2) with RESOLVE_IN_ROOT resolves as if the root had been entered already,
 * in one step of the kernel. Nothing else runs in the root meanwhile, but that would not matter.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"
#include "kernel.h"

#define LINKS_MAX 40 /* as the kernel's own limit */

static int open_how(int root, const char *path, int flags, uint64_t resolve)
{
	struct k_open_how how = {.flags = (uint64_t)(unsigned)(flags | O_PATH | O_CLOEXEC),
				 .resolve = resolve | K_RESOLVE_NO_MAGICLINKS};
	long fd;

	/* EAGAIN: something was renamed somewhere in the system, and ".." could not be judged. */
	for (unsigned i = 0; i < 64; i++) {
		fd = syscall(SYS_openat2, root, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

int root_open(int root, const char *path, int flags)
{
	return open_how(root, path, flags, K_RESOLVE_IN_ROOT);
}

int root_open_plain(int root, const char *path, int flags)
{
	return open_how(root, path, flags, K_RESOLVE_IN_ROOT | K_RESOLVE_NO_SYMLINKS);
}

int machine_open(const char *path, struct err *e)
{
	int fd = open_how(AT_FDCWD, path, 0, K_RESOLVE_NO_SYMLINKS);

	return fd < 0 ? err_sys(e, fd, "open %s", path) : fd;
}

const char *fd_path(int fd, char out[FD_PATH_MAX])
{
	snprintf(out, FD_PATH_MAX, "/proc/self/fd/%d", fd);
	return out;
}

/* The place of a path where something is missing. */
struct gap {
	char parent[CT_PATH_MAX]; /* exists */
	char name[256];
	const char *rest; /* behind it, with its slashes; "": it is the last one */
};

/* Find the first component that is not there. 1: nothing is missing. */
static int find_gap(int root, const char *path, struct gap *g)
{
	size_t from = 0;

	while (path[from]) {
		size_t start = from + strspn(path + from, "/"), len = strcspn(path + start, "/");
		char upto[CT_PATH_MAX];
		int fd;

		if (len == 0)
			return 1;
		if (len >= sizeof g->name)
			return -ENAMETOOLONG;
		memcpy(upto, path, start + len);
		upto[start + len] = '\0';
		fd = root_open(root, upto, 0);
		if (fd == -ENOENT) {
			memcpy(g->parent, path, start);
			strcpy(g->parent + start, ".");
			memcpy(g->name, path + start, len);
			g->name[len] = '\0';
			g->rest = path + start + len;
			return 0;
		}
		if (fd < 0)
			return fd;
		close(fd);
		from = start + len;
	}
	return 1;
}

static int make_file(int dir, const char *name)
{
	int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* Behind a link that leads to nothing: the path with the link replaced by what is in it. */
static int follow(int dir, const struct gap *g, char path[CT_PATH_MAX])
{
	char target[CT_PATH_MAX], rest[CT_PATH_MAX];
	ssize_t n = readlinkat(dir, g->name, target, sizeof target - 1);
	int len;

	if (n < 0)
		return errno == EINVAL ? -EEXIST : -errno;
	target[n] = '\0';
	strcpy(rest, g->rest); /* a part of `path` */
	len = target[0] == '/' ? snprintf(path, CT_PATH_MAX, "%s%s", target, rest)
			       : snprintf(path, CT_PATH_MAX, "%s/%s%s", g->parent, target, rest);
	return len < (int)CT_PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Fill one gap. 1: nothing is missing; 0: look again. */
static int fill_gap(int root, char path[CT_PATH_MAX], bool directory)
{
	struct gap g;
	int dir, r = find_gap(root, path, &g);

	if (r)
		return r;
	/* "a/../b" of which "a" is missing is nothing to be made. */
	if (strcmp(g.name, "..") == 0 || strcmp(g.name, ".") == 0)
		return -ENOENT;
	dir = root_open(root, g.parent, O_DIRECTORY);
	if (dir < 0)
		return dir;
	if (g.rest[strspn(g.rest, "/")] || directory)
		r = mkdirat(dir, g.name, 0755) < 0 ? -errno : 0;
	else
		r = make_file(dir, g.name);
	if (r == -EEXIST)
		r = follow(dir, &g, path);
	close(dir);
	return r;
}

int root_make(int root, const char *path, bool directory, struct err *e)
{
	char now[CT_PATH_MAX];
	int fd, r = 0;

	if (strlen(path) >= sizeof now)
		return err_sys(e, -ENAMETOOLONG, "make %.60s...", path);
	strcpy(now, path);
	/* Each round makes one component or follows one link. */
	for (unsigned i = 0; i < LINKS_MAX + CT_PATH_MAX / 2 && !r; i++)
		r = fill_gap(root, now, directory);
	if (r < 0)
		return err_sys(e, r, "make %s", path);
	fd = r ? root_open(root, now, directory ? O_DIRECTORY : 0) : -ELOOP;
	return fd < 0 ? err_sys(e, fd, "open %s in the root", path) : fd;
}

int root_make_parent(int root, const char *path, char name[256], struct err *e)
{
	char parent[CT_PATH_MAX], *slash;
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n >= sizeof parent)
		return err_sys(e, -ENAMETOOLONG, "make %.60s...", path);
	memcpy(parent, path, n);
	parent[n] = '\0';
	slash = strrchr(parent, '/');
	if (!slash || !slash[1] || strlen(slash + 1) > 255 || strcmp(slash + 1, ".") == 0 ||
	    strcmp(slash + 1, "..") == 0)
		return err_set(e, -EINVAL, "make %s: expected a path with a name at its end", path);
	strcpy(name, slash + 1);
	slash[1] = '\0';
	return root_make(root, parent, true, e);
}
