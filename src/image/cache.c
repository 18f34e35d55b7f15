/* SPDX-License-Identifier: BSD-2-Clause */
/* The cache directory. See cache.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cache.h"

#define TMP_PREFIX ".new-"

int image_cache_dir(char out[IMAGE_PATH_MAX], struct err *e)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n;

	if (xdg && xdg[0] == '/')
		n = snprintf(out, IMAGE_PATH_MAX, "%s/insula", xdg);
	else if (home && home[0] == '/')
		n = snprintf(out, IMAGE_PATH_MAX, "%s/.cache/insula", home);
	else if (geteuid() == 0)
		n = snprintf(out, IMAGE_PATH_MAX, "/var/cache/insula");
	else
		return err_set(e, -ENOENT,
			       "no cache directory: neither XDG_CACHE_HOME nor HOME is set");
	if (n >= IMAGE_PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "the path of the cache directory is too long");
	return 0;
}

static int make_dirs(const char *dir)
{
	char path[IMAGE_PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s", dir) >= sizeof(path))
		return -ENAMETOOLONG;
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(path, 0700); /* the last one tells */
		*p = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

int cache_open(struct cache *c, const char *dir, struct err *e)
{
	struct stat st;
	int r = make_dirs(dir);

	*c = (struct cache){.dir = -1, .tmp = -1};
	if (r)
		return err_sys(e, r, "cache directory %s", dir);
	c->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir < 0 || fstat(c->dir, &st))
		return err_sys(e, -errno, "cache directory %s", dir);
	if (st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(
			e, -EPERM,
			"cache directory %s: must belong to uid %u and be writable by nobody else",
			dir, (unsigned)geteuid());
	return 0;
}

static void drop_tmp(struct cache *c)
{
	if (c->tmp_name[0])
		unlinkat(c->dir, c->tmp_name, 0);
	c->tmp_name[0] = '\0';
	fd_close(&c->tmp);
}

void cache_close(struct cache *c)
{
	drop_tmp(c);
	fd_close(&c->dir);
}

void cache_name(struct cache *c, const char *kind, const struct hash *subject,
		const struct hash *key)
{
	char s[HASH_TEXT], k[HASH_TEXT];

	hash_text(subject, s);
	hash_text(key, k);
	snprintf(c->prefix, sizeof(c->prefix), "%s-%s-", kind, s);
	snprintf(c->name, sizeof(c->name), "%s-%s-%s", kind, s, k);
}

/* Between open() and flock() the entry may have been removed as out of date. */
int cache_get(struct cache *c, int *out, struct err *e)
{
	struct stat st;
	int fd = openat(c->dir, c->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return err_sys(e, -errno, "cache entry %s", c->name);
	if (flock(fd, LOCK_SH) || fstat(fd, &st)) {
		int r = -errno;

		close(fd);
		return err_sys(e, r, "cache entry %s", c->name);
	}
	if (st.st_nlink == 0) {
		close(fd);
		return err_set(e, -ENOENT, "cache entry %s is gone", c->name);
	}
	*out = fd;
	return 0;
}

/* Remove a file unless somebody uses it or makes it. */
static void remove_unused(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlinkat(dir, name, 0);
	close(fd);
}

static void prune(struct cache *c)
{
	int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		fd_close(&fd);
		return; /* the next builder tries again */
	}
	while ((de = readdir(d))) {
		bool stale = strncmp(de->d_name, c->prefix, strlen(c->prefix)) == 0 &&
			     strcmp(de->d_name, c->name) != 0;
		bool orphan = strncmp(de->d_name, TMP_PREFIX, strlen(TMP_PREFIX)) == 0;

		if (stale || orphan)
			remove_unused(c->dir, de->d_name);
	}
	closedir(d);
}

/* Without O_TMPFILE (some overlay file systems): a file of its own name, locked as long as its
 * maker lives. */
static int begin_named(struct cache *c, struct err *e)
{
	for (unsigned i = 0; i < 100; i++) {
		snprintf(c->tmp_name, sizeof(c->tmp_name), TMP_PREFIX "%d-%u", (int)getpid(), i);
		c->tmp = openat(c->dir, c->tmp_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (c->tmp >= 0 || errno != EEXIST)
			break;
	}
	if (c->tmp < 0) {
		c->tmp_name[0] = '\0';
		return err_sys(e, -errno, "new file in the cache directory");
	}
	if (flock(c->tmp, LOCK_EX | LOCK_NB)) {
		/* A prune that saw the file in this instant is about to remove it. */
		c->tmp_name[0] = '\0';
		fd_close(&c->tmp);
		return begin_named(c, e);
	}
	return 0;
}

int cache_begin(struct cache *c, struct err *e)
{
	c->tmp = openat(c->dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (c->tmp >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)
		return err_sys(e, -errno, "new file in the cache directory");
	return begin_named(c, e);
}

static int publish(struct cache *c)
{
	char path[64];

	if (fdatasync(c->tmp)) /* a name must never outlive a power failure that its content did not
				*/
		return -errno;
	if (c->tmp_name[0]) {
		if (renameat(c->dir, c->tmp_name, c->dir, c->name))
			return -errno;
		c->tmp_name[0] = '\0';
		return 0;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", c->tmp);
	if (linkat(AT_FDCWD, path, c->dir, c->name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	return errno == EEXIST ? 0
			       : -errno; /* another builder was faster; the content is the same */
}

int cache_commit(struct cache *c, struct err *e)
{
	int r = publish(c);

	drop_tmp(c);
	if (r)
		return err_sys(e, r, "cache entry %s", c->name);
	prune(c);
	return 0;
}
