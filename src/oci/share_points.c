/* SPDX-License-Identifier: BSD-2-Clause */
/* Mount points in a root in which the guest's root cannot make them. See share_source.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "field.h"
#include "resolve.h"
#include "share_source.h"
#include "spec/json.h"

/* Links are followed as they are in the container: none leads out of the root. */
static int open_inside(int root, const char *path)
{
	return open_resolved(root, path, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* Where they are made, and whose they are. */
struct place {
	int root;
	uid_t uid;
	gid_t gid;
};

static void make_last(const struct place *at, int up, const char *name, bool directory)
{
	const int flags = O_NOFOLLOW | O_CLOEXEC;
	int fd;

	if (directory && mkdirat(up, name, 0755))
		return;
	fd = directory ? openat(up, name, O_RDONLY | O_DIRECTORY | flags)
		       : openat(up, name, O_CREAT | O_EXCL | O_WRONLY | flags, 0644);
	if (fd >= 0)
		(void)!fchown(fd, at->uid, at->gid);
	fd_close(&fd);
}

/* Each part of the path that is missing. */
static void make_inside(const struct place *at, const char *path, bool directory)
{
	char part[PATH_MAX], *end;
	int up = fd_copy(at->root), fd;

	if (strlen(path) >= sizeof(part)) {
		fd_close(&up);
		return;
	}
	strcpy(part, path);
	for (char *p = part; up >= 0 && *p; p = end) {
		bool last;
		char kept;

		p += strspn(p, "/");
		end = p + strcspn(p, "/");
		last = !end[strspn(end, "/")];
		kept = *end;
		*end = 0;
		if (!*p || !strcmp(p, ".") || !strcmp(p, "..")) {
			fd_close(&up); /* such a path is the guest's matter */
			return;
		}
		fd = open_inside(at->root, part);
		if (fd == -ENOENT) {
			make_last(at, up, p, directory || !last);
			fd = open_inside(at->root, part);
		}
		fd_close(&up);
		up = fd;
		*end = kept;
	}
	fd_close(&up);
}

static const char *destination(const struct bundle *b, size_t i)
{
	return j_get_str(json_object_array_get_idx(b->mounts, i), "destination", "");
}

/* In what an earlier mount brings, nothing of the root is seen. */
static bool is_covered(const struct bundle *b, const char *path, size_t before)
{
	for (size_t i = 0; i < before; i++) {
		const char *d = destination(b, i);
		size_t n = strlen(d);

		if (n > 1 && !strncmp(path, d, n) && (path[n] == '/' || !path[n]))
			return true;
	}
	return false;
}

static bool is_of_file(const struct bundle *b, size_t i)
{
	struct share_source s;
	struct err later;
	bool file;

	if (share_source_open(&s, b, json_object_array_get_idx(b->mounts, i), "mounts", &later))
		return false;
	file = s.fd >= 0 && !s.directory;
	share_source_close(&s);
	return file;
}

/* The host's id of the container's root. */
static unsigned root_of(const struct bundle *b, const char *key)
{
	json_object *list = j_get(b->linux_, key);
	size_t n = json_object_is_type(list, json_type_array) ? field_count(list) : 0;

	for (size_t i = 0; i < n; i++) {
		json_object *map = json_object_array_get_idx(list, i);

		if (!j_get_int(map, "containerID", 0))
			return (unsigned)j_get_int(map, "hostID", 0);
	}
	return 0;
}

void share_mountpoints(const struct bundle *b, int root)
{
	const struct place at = {root, root_of(b, "uidMappings"), root_of(b, "gidMappings")};
	size_t n = field_count(b->mounts);
	const char *cwd = j_get_str(b->process, "cwd", "/");

	for (size_t i = 0; i < n; i++) {
		if (!is_covered(b, destination(b, i), i))
			make_inside(&at, destination(b, i), !is_of_file(b, i));
	}
	if (!is_covered(b, cwd, n))
		make_inside(&at, cwd, true);
}
