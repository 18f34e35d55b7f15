/* SPDX-License-Identifier: BSD-2-Clause */
/* A snapshot's directory and files on Linux. See snapdir.h and snapdir_os.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>
#include <insula/log.h>

#include "snapdir_os.h"

/* ---- the key ---- */

/* Nobody else can read it, or it is no key. */
static int read_key(const char *path, uint8_t key[SNAPDIR_KEY])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc;
	struct stat st;

	if (fd < 0)
		return -errno;
	rc = fstat(fd, &st) ? -errno : 0;
	if (!rc && (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)))
		rc = -EPERM;
	if (!rc)
		rc = read_full(fd, key, SNAPDIR_KEY, 0);
	close(fd);
	return rc;
}

/* One of two that make it at once wins: link() does not replace. */
static int make_key(const char *cache, const char *path)
{
	char part[PATH_MAX];
	uint8_t key[SNAPDIR_KEY] = {0};
	int fd, rc;

	if (snprintf(part, sizeof(part), "%s/.key-XXXXXX", cache) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	fd = mkostemp(part, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	random_bytes(key, sizeof(key));
	rc = write_full(fd, key, sizeof(key));
	if (!rc && fsync(fd))
		rc = -errno;
	if (!rc && link(part, path) && errno != EEXIST)
		rc = -errno;
	unlink(part);
	close(fd);
	return rc;
}

int snapdir_key(const char *cache, bool make, uint8_t key[SNAPDIR_KEY])
{
	char path[PATH_MAX];
	int rc;

	if (!cache[0] ||
	    snprintf(path, sizeof(path), "%s/snapshot.key", cache) >= (int)sizeof(path))
		return -ENOENT;
	rc = read_key(path, key);
	if (rc != -ENOENT || !make)
		return rc;
	if (mkdir(cache, 0700) && errno != EEXIST)
		return -errno;
	rc = make_key(cache, path);
	return rc ? rc : read_key(path, key);
}

/* ---- make ---- */

/* "DIR/NAME", with what slashes there are. */
static int split(struct snapdir *d, const char *path, char parent[PATH_MAX], struct err *e)
{
	size_t len = strlen(path), from;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (from = len; from && path[from - 1] != '/';)
		from--;
	if (len == from || len - from > NAME_MAX - 16 || from >= PATH_MAX ||
	    !strncmp(path + from, "..", len - from) || !strncmp(path + from, ".", len - from))
		return err_set(e, -EINVAL, "path: '%.80s'; expected the name of a new directory",
			       path);
	snprintf(d->name, sizeof(d->name), "%.*s", (int)(len - from), path + from);
	snprintf(d->part, sizeof(d->part), ".%s.part", d->name);
	snprintf(parent, PATH_MAX, "%.*s", (int)from, from ? path : "");
	if (!from)
		strcpy(parent, ".");
	return 0;
}

static int make_files(struct snapdir *d, struct err *e)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++) {
		d->file[i] = openat(d->dir, snapdir_names[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
				    0600);
		if (d->file[i] < 0)
			return err_sys(e, -errno, "path: %s", snapdir_names[i]);
	}
	return 0;
}

/* Every name that this file writes; pager.c one more. */
static void remove_files(const struct snapdir *d)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		unlinkat(d->dir, snapdir_names[i], 0);
	unlinkat(d->dir, SNAPDIR_SEAL, 0);
	unlinkat(d->dir, SNAPDIR_ORDER, 0);
}

void snapdir_remove(const char *path)
{
	struct snapdir d = {.dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};

	if (d.dir < 0)
		return;
	remove_files(&d);
	close(d.dir);
	if (rmdir(path))
		log_warn("snapshot: %s: %s", path, strerror(errno));
}

/* One that was left by a process that was killed is in nobody's way. */
static int make_part(struct snapdir *d)
{
	if (!mkdirat(d->parent, d->part, 0700))
		return 0;
	if (errno != EEXIST)
		return -errno;
	d->dir = openat(d->parent, d->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->dir < 0)
		return -errno;
	if (flock(d->dir, LOCK_EX | LOCK_NB)) {
		fd_close(&d->dir);
		return -EBUSY; /* another VM is writing it */
	}
	remove_files(d);
	fd_close(&d->dir);
	if (unlinkat(d->parent, d->part, AT_REMOVEDIR) || mkdirat(d->parent, d->part, 0700))
		return -errno;
	return 0;
}

int snapdir_make(struct snapdir *d, const char *path, struct err *e)
{
	char parent[PATH_MAX];
	struct stat st;
	int rc;

	snapdir_none(d);
	rc = split(d, path, parent, e);
	if (rc)
		return rc;
	d->parent = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->parent < 0)
		return err_sys(e, -errno, "path: %s", parent);
	if (!fstatat(d->parent, d->name, &st, AT_SYMLINK_NOFOLLOW))
		rc = err_set(e, -EEXIST, "path: '%.80s' exists; expected a new directory", path);
	if (!rc && (rc = make_part(d)))
		err_sys(e, rc, "path: %s", path);
	if (!rc) {
		d->dir =
			openat(d->parent, d->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		rc = d->dir < 0 || flock(d->dir, LOCK_EX | LOCK_NB) ? -errno : 0;
		if (rc)
			err_sys(e, rc, "path: %s", path);
		else
			rc = make_files(d, e);
	}
	if (rc == -EBUSY || rc == -EWOULDBLOCK) {
		d->part[0] = 0; /* another VM's */
		rc = err_set(e, -EBUSY, "path: '%.80s' is being written by another VM", path);
	}
	if (rc)
		snapdir_close(d);
	return rc;
}

int snapdir_write_seal(const struct snapdir *d, const char sum[SNAPDIR_SUM])
{
	int fd = openat(d->dir, SNAPDIR_SEAL, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return -errno;
	rc = write_full(fd, sum, SNAPDIR_SUM - 1);
	if (!rc && fsync(fd))
		rc = -errno;
	close(fd);
	return rc;
}

int snapdir_keep(struct snapdir *d, struct err *e)
{
	if (renameat2(d->parent, d->part, d->parent, d->name, RENAME_NOREPLACE))
		return err_sys(e, -errno, "path: %s", d->name);
	d->part[0] = 0;
	return 0;
}

void snapdir_close(struct snapdir *d)
{
	if (d->dir >= 0 && d->part[0])
		remove_files(d);
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		fd_close(&d->file[i]);
	fd_close(&d->dir);
	if (d->parent >= 0 && d->part[0])
		unlinkat(d->parent, d->part, AT_REMOVEDIR);
	fd_close(&d->parent);
}

/* ---- read ---- */

int snapdir_open(const char *path)
{
	int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return dir < 0 ? -errno : dir;
}

int snapdir_open_file(int dir, const char *path, const char *name, struct err *e)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return err_sys(e, -errno, "snapshot: %s/%s", path, name);
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return err_set(e, -EPROTO, "snapshot: %s/%s: is no file", path, name);
}

bool snapdir_is_ours(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* Root's VMs under insulad have no home, so their key is in another place than that of a root who
 * is logged in. */
const char *snapdir_other_cache(void)
{
	return geteuid() ? "" : IMAGE_ROOT_CACHE;
}

unsigned snapdir_names_of(const struct snapdir *d, int fd[SNAPDIR_NAMES])
{
	fd[0] = d->dir;
	fd[1] = d->parent;
	return SNAPDIR_NAMES;
}
