/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kernel's module tree. See modules.h. The formats are those of depmod(8): modules.dep has "PATH:
 * PATH..." with all dependencies, to be loaded from the last to the first; modules.softdep has
 * "softdep NAME pre: NAME... post: NAME..."; modules.alias "alias PATTERN NAME". In names - and _
 * are the same.
 *
 * What is read here ends up in a guest. So a path of modules.dep may not lead out of the tree, and
 * only root, the user and the kernel's owner may be able to change the tree. All files are opened
 * by open_tree_file().
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "modules.h"
#include "spawn.h"

#define TREE_FILE_MAX (64u << 20)
#define SOFTDEP_DEPTH 4

/* ---- files of the tree ---- */

/* One step of a path. -ELOOP: a symbolic link. */
static int open_step(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC), rc = fd < 0 ? -errno : fd;
	struct stat st;

	if (rc == -ENOTDIR && !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
		return -ELOOP;
	return rc;
}

/* Step by step, as openat2() would do it with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: systemd's
 * RestrictSUIDSGID= and the seccomp profiles of containers forbid openat2(). -EXDEV: it leads out.
 */
static int open_beneath(int dir, const char *path, int flags)
{
	char name[NAME_MAX + 1];
	int at = dir, next = -EXDEV;

	while (*path != '/') {
		size_t n = strcspn(path, "/");
		bool last = !path[n];

		snprintf(name, sizeof(name), "%.*s", (int)n, path);
		next = n >= sizeof(name)     ? -ENAMETOOLONG
		       : !strcmp(name, "..") ? -EXDEV
		       : last                ? open_step(at, name, flags)
					     : open_step(at, name, O_PATH | O_DIRECTORY);
		if (at != dir)
			close(at);
		if (last || next < 0)
			return next;
		at = next;
		path += n + 1;
	}
	if (at != dir)
		close(at);
	return -EXDEV;
}

/* Whoever owns "/" counts as root: in a user namespace in which root is not mapped, root's files
 * belong to the overflow user. */
static bool is_root(uid_t uid)
{
	struct stat st;

	return uid == 0 || (!stat("/", &st) && st.st_uid == uid);
}

/* Only root, the user and whoever owns the kernel, and so decides what runs in the guest anyway,
 * may be able to change it. */
static int check_owner(const struct modules *k, const struct stat *st, const char *path,
		       struct err *e)
{
	if (st->st_uid != geteuid() && st->st_uid != k->owner && !is_root(st->st_uid))
		return err_set(e, -EPERM,
			       "module tree %s: %s belongs to user %u; expected root, user %u or "
			       "the kernel's owner",
			       k->name, path, (unsigned)st->st_uid, (unsigned)geteuid());
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return err_set(e, -EPERM,
			       "module tree %s: %s can be written by %s (mode %04o); expected its "
			       "owner alone (chmod -R go-w)",
			       k->name, path, st->st_mode & S_IWOTH ? "everybody" : "its group",
			       (unsigned)st->st_mode & 07777);
	return 0;
}

/* Each directory on the way from the tree's top to the file. */
static int check_way(const struct modules *k, const char *path, struct err *e)
{
	char part[MODULE_PATH_MAX];
	struct stat st;
	int r = 0;

	for (const char *slash = strchr(path, '/'); slash && !r; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (fstatat(k->dir, part, &st, AT_SYMLINK_NOFOLLOW))
			return err_sys(e, -errno, "module tree %s: %s", k->name, part);
		r = check_owner(k, &st, part, e);
	}
	return r;
}

/* A regular file of the tree: its descriptor, and what it is. -ENOENT: there is none. */
static int open_tree_file(const struct modules *k, const char *path, struct stat *st, struct err *e)
{
	int r, fd = open_beneath(k->dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);

	if (fd == -EXDEV || fd == -ELOOP)
		return err_set(e, -EPERM,
			       "module tree %s: %s leads out of it, or is a symbolic link", k->name,
			       path);
	if (fd < 0)
		return err_sys(e, fd, "module tree %s: %s", k->name, path);
	r = fstat(fd, st) ? err_sys(e, -errno, "module tree %s: %s", k->name, path)
	    : !S_ISREG(st->st_mode)
		    ? err_set(e, -EPERM, "module tree %s: %s is not a regular file", k->name, path)
		    : check_owner(k, st, path, e);
	if (!r)
		r = check_way(k, path, e);
	if (r)
		fd_close(&fd);
	return r ? r : fd;
}

/* The whole text file, terminated; NULL and -ENOENT if there is none. */
static int slurp(const struct modules *k, const char *name, char **out, struct err *e)
{
	struct stat st;
	int r = 0, fd = open_tree_file(k, name, &st, e);

	*out = NULL;
	if (fd < 0)
		return fd;
	if (st.st_size > TREE_FILE_MAX)
		r = -EFBIG;
	else if (!(*out = calloc(1, (size_t)st.st_size + 1)))
		r = -ENOMEM;
	else
		r = read_full(fd, *out, (size_t)st.st_size, 0);
	close(fd);
	if (r) {
		free(*out);
		*out = NULL;
	}
	return r ? err_sys(e, r, "module tree %s: %s", k->name, name) : 0;
}

static bool dir_is_empty(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	bool empty = true;

	if (!d) {
		fd_close(&fd);
		return false;
	}
	while (empty && (de = readdir(d)))
		empty = strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0;
	closedir(d);
	return empty;
}

static int read_lists(struct modules *k, struct err *e)
{
	int r = slurp(k, "modules.dep", &k->dep, e);

	if (r == -ENOENT)
		return err_set(e, r, "module tree %s: no modules.dep; expected what depmod makes",
			       k->name);
	/* Older trees have no soft dependencies, and no file is as good as an empty one. */
	if (!r)
		r = slurp(k, "modules.softdep", &k->softdep, e);
	if (!r || r == -ENOENT)
		r = slurp(k, "modules.alias", &k->alias, e);
	return r == -ENOENT ? 0 : r;
}

int modules_open(struct modules *k, const char *dir, uid_t owner, struct err *e)
{
	struct stat st;
	int r;

	*k = (struct modules){
		.name = dir, .owner = owner, .dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	if (k->dir < 0 || fstat(k->dir, &st))
		return err_sys(e, -errno, "module tree %s", dir);
	r = check_owner(k, &st, "the directory", e);
	if (!r && dir_is_empty(k->dir)) {
		fd_close(&k->dir);
		return 0;
	}
	if (!r)
		r = read_lists(k, e);
	if (r)
		modules_close(k);
	return r;
}

void modules_close(struct modules *k)
{
	for (size_t i = 0; i < k->n; i++)
		free(k->m[i].path);
	free(k->dep);
	free(k->softdep);
	free(k->alias);
	fd_close(&k->dir);
	*k = (struct modules){.dir = -1};
}

/* Compare a name with `len` characters of a path or list; - equals _. */
static bool same_name(const char *name, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char a = name[i] == '-' ? '_' : name[i], b = p[i] == '-' ? '_' : p[i];

		if (!a || a != b)
			return false;
	}
	return name[len] == '\0';
}

/* The name inside a path of `len` characters: after the last slash, before ".ko". */
static const char *path_name(const char *path, size_t len, size_t *name_len)
{
	const char *slash = memrchr(path, '/', len), *p = slash ? slash + 1 : path;
	size_t rest = len - (size_t)(p - path);
	const char *ko = memmem(p, rest, ".ko", 3);

	*name_len = ko ? (size_t)(ko - p) : rest;
	return p;
}

/* The line of modules.dep that describes the module, or NULL. */
static const char *find_dep(const struct modules *k, const char *name)
{
	for (const char *line = k->dep; line && *line;) {
		size_t len = strcspn(line, ":\n"), n;
		const char *p = path_name(line, len, &n);

		if (line[len] == ':' && same_name(name, p, n))
			return line;
		line += strcspn(line, "\n");
		line += *line == '\n';
	}
	return NULL;
}

static int append_path(struct modules *k, const char *group, const char *path, size_t len,
		       bool optional, struct err *e)
{
	size_t n;
	const char *name = path_name(path, len, &n);
	struct module *m = &k->m[k->n];

	for (size_t i = 0; i < k->n; i++)
		if (strcmp(k->m[i].group, group) == 0 && same_name(k->m[i].name, name, n))
			return 0;
	if (k->n == MODULES_MAX || n >= MODULE_NAME_MAX || len >= MODULE_PATH_MAX)
		return err_set(e, -E2BIG, "module %.*s: too many modules or too long a name",
			       (int)len, path);
	*m = (struct module){.group = group, .path = strndup(path, len), .optional = optional};
	if (!m->path)
		return err_set(e, -ENOMEM, "out of memory");
	memcpy(m->name, name, n);
	k->n++;
	return 0;
}

static int need(struct modules *k, const char *group, const char *name, size_t len, bool optional,
		unsigned depth, struct err *e);

/* A line "alias PATTERN NAME" whose pattern is this text, or `fits` it: a modalias, whose bus each
 * pattern names in full. */
static bool is_alias(const char *pattern, size_t plen, const char *text, size_t len, bool fits)
{
	const char *colon = memchr(text, ':', len);
	char whole[MODULE_PATH_MAX];
	size_t bus = colon ? (size_t)(colon - text) + 1 : 0;

	if (!fits)
		return plen == len && memcmp(pattern, text, len) == 0;
	if (plen < bus || plen >= sizeof(whole) || memcmp(pattern, text, bus) != 0)
		return false;
	memcpy(whole, pattern, plen);
	whole[plen] = '\0';
	return fnmatch(whole, text, 0) == 0;
}

/* Every driver that has the text as an alias ("crc32c" is crc32c_generic and crc32c_intel). */
static int need_alias(struct modules *k, const char *group, const char *text, size_t len, bool fits,
		      unsigned depth, struct err *e)
{
	int r = 0;

	for (const char *line = k->alias; line && *line && !r;) {
		const char *pattern = line + strcspn(line, " \n"), *target;
		size_t plen;

		pattern += strspn(pattern, " ");
		plen = strcspn(pattern, " \n");
		target = pattern + plen + strspn(pattern + plen, " ");
		if (pattern[plen] == ' ' && is_alias(pattern, plen, text, len, fits))
			r = need(k, group, target, strcspn(target, " \n"), true, depth, e);
		line += strcspn(line, "\n");
		line += *line == '\n';
	}
	return r;
}

/* "softdep NAME pre: A B post: C": A and B, if there are such modules. */
static int need_soft(struct modules *k, const char *group, const char *name, size_t len,
		     unsigned depth, struct err *e)
{
	int r = 0;

	for (const char *line = k->softdep; line && *line && !r;) {
		const char *end = line + strcspn(line, "\n"), *p = line;
		bool pre = false;
		size_t n;

		p += strncmp(p, "softdep ", 8) == 0 ? 8 : end - p;
		n = strcspn(p, " \n");
		if (n && n == len && strncmp(p, name, n) == 0) {
			for (p += n; p < end && !r; p += n) {
				p += strspn(p, " ");
				n = strcspn(p, " \n");
				if (n && p[n - 1] == ':')
					pre = n == 4 && memcmp(p, "pre:", 4) == 0;
				else if (n && pre)
					r = need(k, group, p, n, true, depth + 1, e);
			}
		}
		line = end + (*end == '\n');
	}
	return r;
}

/* Append every path of a list in reverse, each after its own soft dependencies. */
static int append_list(struct modules *k, const char *group, const char *list, size_t len,
		       bool optional, unsigned depth, struct err *e)
{
	while (len) {
		size_t start = len, n;
		const char *name;
		int r;

		while (start && list[start - 1] != ' ')
			start--;
		name = path_name(list + start, len - start, &n);
		r = n ? need_soft(k, group, name, n, depth, e) : 0;
		if (!r && n)
			r = append_path(k, group, list + start, len - start, optional, e);
		if (r)
			return r;
		len = start ? start - 1 : 0;
	}
	return 0;
}

static int need(struct modules *k, const char *group, const char *name, size_t len, bool optional,
		unsigned depth, struct err *e)
{
	char text[MODULE_NAME_MAX];
	const char *line;
	size_t path;
	int r;

	if (len >= sizeof(text) || depth > SOFTDEP_DEPTH)
		return 0; /* no module has such a name; a circle of soft dependencies ends here */
	memcpy(text, name, len);
	text[len] = '\0';
	line = find_dep(k, text);
	if (!line)
		return optional && depth <= SOFTDEP_DEPTH
			       ? need_alias(k, group, name, len, false, depth + 1, e)
			       : 0;
	path = strcspn(line, ":");
	r = append_list(k, group, line + path + 1, strcspn(line + path + 1, "\n"), false, depth, e);
	if (!r)
		r = append_list(k, group, line, path, optional, depth, e);
	return r;
}

int modules_need(struct modules *k, const char *group, const char *name, struct err *e)
{
	return need(k, group, name, strlen(name), false, 0, e);
}

int modules_need_device(struct modules *k, const char *group, const char *modalias, struct err *e)
{
	int r = need_alias(k, group, modalias, strlen(modalias), true, 0, e);

	for (size_t i = 0; i < k->n; i++)
		k->m[i].optional |= strcmp(k->m[i].group, group) == 0;
	return r;
}

int modules_hash(const struct modules *k, struct hash *h, struct err *e)
{
	struct stat st;

	for (size_t i = 0; i < k->n; i++) {
		int fd = open_tree_file(k, k->m[i].path, &st, e);

		if (fd < 0)
			return fd;
		close(fd);
		hash_str(h, k->m[i].group);
		hash_str(h, k->m[i].path);
		hash_u64(h, k->m[i].optional);
		hash_stat(h, &st);
	}
	return 0;
}

static const struct decompressor {
	const char *suffix, *program, *package;
} decompressors[] = {
	{".xz", "xz", "xz-utils"},
	{".zst", "zstd", "zstd"},
	{".gz", "gzip", "gzip"},
};

static int decompress(const struct decompressor *d, int in, int *out, struct err *e)
{
	const char *const argv[] = {d->program, "-dc", NULL};
	struct spawn s = {.argv = argv, .package = d->package, .in = in, .out = -1, .extra = -1};
	int r;

	s.out = memfd_create("module", MFD_CLOEXEC);
	if (s.out < 0)
		return err_sys(e, -errno, "memory for a module");
	r = spawn_run(&s, e);
	if (r)
		close(s.out);
	else
		*out = s.out;
	return r;
}

int modules_read(const struct modules *k, const struct module *m, int *out, struct err *e)
{
	struct stat st;
	int fd = open_tree_file(k, m->path, &st, e), r;
	size_t len = strlen(m->path);

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < ARRAY_LEN(decompressors); i++) {
		size_t n = strlen(decompressors[i].suffix);

		if (len > n && strcmp(m->path + len - n, decompressors[i].suffix) == 0) {
			r = decompress(&decompressors[i], fd, out, e);
			close(fd);
			return r;
		}
	}
	*out = fd;
	return 0;
}
