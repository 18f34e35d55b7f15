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
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "cache.h"

#define PUBLISH_TRIES 10
#define TOUCH_S 60        /* the order of use is exact to so many seconds */
#define FULL_BYTES 65536u /* a file system with less is full */
#define MAX_ENTRIES 65536u

static const char *const kinds[] = {CACHE_INITRD "-", CACHE_INITRD ".", CACHE_KERNEL "-",
				    CACHE_ROOTFS "-"};

int image_cache_dir(char out[IMAGE_PATH_MAX], struct err *e)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n;

	if (xdg && xdg[0] == '/')
		n = snprintf(out, IMAGE_PATH_MAX, "%s/insula", xdg);
	else if (home && home[0] == '/')
		n = snprintf(out, IMAGE_PATH_MAX, "%s/.cache/insula", home);
	else if (geteuid() == 0)
		n = snprintf(out, IMAGE_PATH_MAX, IMAGE_ROOT_CACHE);
	else
		return err_set(e, -ENOENT,
			       "no cache directory: neither XDG_CACHE_HOME nor HOME is set");
	if (n >= IMAGE_PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "the path of the cache directory is too long");
	return 0;
}

static int make_cache_dirs(const char *dir)
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

int cache_failed(const struct cache *c, int code, const char *what, struct err *e)
{
	return err_set(e, code,
		       "cache directory %s: %s%s%s; expected a directory that can be written, or "
		       "XDG_CACHE_HOME with another place",
		       c->path, what, what[0] ? ": " : "", strerror(-code));
}

bool cache_is_full(const struct cache *c)
{
	struct statvfs v;

	return !fstatvfs(c->dir, &v) && (uint64_t)v.f_bavail * v.f_frsize < FULL_BYTES;
}

int cache_open(struct cache *c, const char *dir, struct err *e)
{
	struct stat st;
	int r;

	c->dir = c->tmp = -1;
	c->tmp_name[0] = '\0';
	c->path = dir;
	if (!dir[0])
		return err_set(e, -ENOENT,
			       "no cache directory: neither XDG_CACHE_HOME nor HOME is set");
	r = make_cache_dirs(dir);
	if (r)
		return cache_failed(c, r, "", e);
	c->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir < 0 || fstat(c->dir, &st))
		return cache_failed(c, -errno, "", e);
	if (st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(
			e, -EPERM,
			"cache directory %s: must belong to uid %u and be writable by nobody else",
			dir, (unsigned)geteuid());
	return 0;
}

void cache_drop(struct cache *c)
{
	if (c->tmp_name[0])
		unlinkat(c->dir, c->tmp_name, 0);
	c->tmp_name[0] = '\0';
	fd_close(&c->tmp);
}

void cache_close(struct cache *c)
{
	cache_drop(c);
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

void cache_name_is(struct cache *c, const char *name)
{
	snprintf(c->prefix, sizeof(c->prefix), "%s", name);
	snprintf(c->name, sizeof(c->name), "%s", name);
}

/* The time of access tells how long an entry has not been used. Whatever forbids to set it makes
 * the order less exact, no more. */
static void touch(int fd, const struct stat *st)
{
	const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};

	if (time(NULL) - st->st_atime >= TOUCH_S)
		(void)futimens(fd, now);
}

/* Between open() and flock() the entry may have been removed as out of date. */
int cache_get(struct cache *c, int *out, struct err *e)
{
	struct stat st;
	/* Without O_NOATIME the kernel would set the time of access once a day when it is read. */
	int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (c->look ? O_NOATIME : 0);
	int fd = openat(c->dir, c->name, flags);

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
	if (!c->look)
		touch(fd, &st);
	*out = fd;
	return 0;
}

/* ---- removal ---- */

/* Remove a file unless somebody uses it or makes it. Once it is locked, its name cannot go to
 * another file: only the owner of the lock removes it. Before that it can, so look twice. */
static bool remove_unused(int dir, const char *name)
{
	struct stat st, now;
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool gone = false;

	if (fd < 0)
		return false;
	if (!flock(fd, LOCK_EX | LOCK_NB) && !fstat(fd, &st) &&
	    !fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) && st.st_ino == now.st_ino)
		gone = unlinkat(dir, name, 0) == 0;
	close(fd);
	return gone;
}

bool cache_remove(const struct cache *c, const char *name)
{
	return remove_unused(c->dir, name);
}

struct entry {
	struct timespec used;
	uint64_t bytes;
	char name[CACHE_NAME_MAX];
};

struct entries {
	struct entry *at;
	size_t n, room;
	uint64_t bytes;
};

static bool is_entry(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (strncmp(name, kinds[i], strlen(kinds[i])) == 0)
			return strlen(name) < CACHE_NAME_MAX;
	return false;
}

static void note_entry(int dir, const char *name, struct entries *s)
{
	struct stat st;

	if (!is_entry(name) || s->n == MAX_ENTRIES ||
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		return;
	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		struct entry *p = realloc(s->at, room * sizeof(*p));

		if (!p)
			return;
		s->at = p;
		s->room = room;
	}
	s->at[s->n] = (struct entry){.used = st.st_atim, .bytes = (uint64_t)st.st_blocks * 512};
	snprintf(s->at[s->n].name, sizeof(s->at[s->n].name), "%s", name);
	s->bytes += s->at[s->n++].bytes;
}

static int by_use(const void *a, const void *b)
{
	const struct timespec *x = &((const struct entry *)a)->used,
			      *y = &((const struct entry *)b)->used;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* What goes at once: older states of the same subject, and what a dead maker has left. */
static bool is_stale(const struct cache *c, const char *name)
{
	return (strncmp(name, c->prefix, strlen(c->prefix)) == 0 && strcmp(name, c->name) != 0) ||
	       strncmp(name, CACHE_TMP, strlen(CACHE_TMP)) == 0;
}

void cache_trim(struct cache *c, uint64_t limit)
{
	int fd = openat(c->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct entries s = {.n = 0};
	struct dirent *de;

	if (!d) {
		fd_close(&fd);
		return; /* the next builder tries again */
	}
	while ((de = readdir(d)))
		if (!is_stale(c, de->d_name) || !remove_unused(c->dir, de->d_name))
			note_entry(c->dir, de->d_name, &s);
	closedir(d);
	if (s.bytes > limit)
		qsort(s.at, s.n, sizeof(*s.at), by_use);
	for (size_t i = 0; i < s.n && s.bytes > limit; i++)
		if (strcmp(s.at[i].name, c->name) != 0 && remove_unused(c->dir, s.at[i].name))
			s.bytes -= s.at[i].bytes;
	free(s.at);
}

/* ---- a new entry ---- */

/* Without O_TMPFILE (some overlay file systems): a file of its own name, locked as long as its
 * maker lives. */
static int begin_named(struct cache *c, struct err *e)
{
	for (unsigned i = 0; i < 100; i++) {
		snprintf(c->tmp_name, sizeof(c->tmp_name), CACHE_TMP "%d-%u", (int)getpid(), i);
		c->tmp = openat(c->dir, c->tmp_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (c->tmp >= 0 || errno != EEXIST)
			break;
	}
	if (c->tmp < 0) {
		c->tmp_name[0] = '\0';
		return cache_failed(c, -errno, "new file", e);
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
	if (c->replace)
		return begin_named(c, e); /* a link does not replace */
	c->tmp = openat(c->dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (c->tmp >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)
		return cache_failed(c, -errno, "new file", e);
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

/* Until an entry has a lock, another maker may remove it, even if it has just got its name. That is
 * also true of the entry of a faster maker. */
int cache_commit(struct cache *c, int *fd, struct err *e)
{
	int r = flock(c->tmp, LOCK_SH) ? cache_failed(c, -errno, c->name, e) : -ENOENT;

	for (unsigned i = 0; i < PUBLISH_TRIES && r == -ENOENT; i++) {
		r = publish(c);
		if (r)
			r = cache_failed(c, r, c->name, e);
		else
			r = cache_get(c, fd, e);
	}
	cache_drop(c);
	if (!r)
		cache_trim(c, CACHE_LIMIT);
	return r;
}
