/* SPDX-License-Identifier: BSD-2-Clause */
/* The program of a container. See program.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "field.h"
#include "program.h"
#include "resolve.h"
#include "spec/json.h"

enum found { PROGRAM_NO, PROGRAM_DENIED, PROGRAM_UNKNOWN, PROGRAM_YES };

/* Does `path` begin with the directory `dir`? */
static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n && dir[n - 1] == '/')
		n--;
	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

/* The path of a descriptor, as the root `root` has it; "": unknown. */
static void real_path(int fd, int root, char out[PATH_MAX])
{
	char link[40], top[PATH_MAX];
	ssize_t n, t;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, out, PATH_MAX - 1);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", root);
	t = readlink(link, top, sizeof(top) - 1);
	out[n > 0 ? n : 0] = 0;
	top[t > 0 ? t : 0] = 0;
	if (t <= 0 || !is_below(out, top))
		out[0] = 0;
	else
		memmove(out, out + t, strlen(out + t) + 1);
}

/* May a mount of the container lie above or at `path`? */
static bool is_mounted(const struct bundle *b, int root, const char *path)
{
	char real[PATH_MAX];

	for (size_t i = 0; i < field_count(b->mounts); i++) {
		const char *to =
			j_get_str(json_object_array_get_idx(b->mounts, i), "destination", "/");
		int fd = open_resolved(root, to, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);

		real[0] = 0;
		if (fd >= 0)
			real_path(fd, root, real);
		fd_close(&fd);
		if (is_below(path, to) || (real[0] && is_below(path, real)))
			return true;
	}
	return false;
}

static enum found kind_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return PROGRAM_UNKNOWN;
	return S_ISREG(st.st_mode) && st.st_mode & 0111 ? PROGRAM_YES : PROGRAM_DENIED;
}

/* It does not resolve: because a link on the way may lead to a mount, or because it is not there?
 */
static enum found why_not(const struct bundle *b, int root, const char *path)
{
	char dir[PATH_MAX], real[PATH_MAX] = "";
	const char *name = strrchr(path, '/') + 1;
	enum found found = PROGRAM_UNKNOWN;
	struct stat st;
	int fd;

	snprintf(dir, sizeof(dir), "%.*s", (int)(name - path), path);
	fd = open_resolved(root, dir, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	if (fd < 0) {
		fd = open_resolved(root, dir, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
		return fd == -ENOENT ? PROGRAM_NO : PROGRAM_UNKNOWN;
	}
	real_path(fd, root, real);
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT &&
	    !is_mounted(b, root, real))
		found = PROGRAM_NO;
	fd_close(&fd);
	return found;
}

static enum found look_at(const struct bundle *b, int root, const char *path)
{
	enum found found;
	int fd;

	if (strstr(path, "//") || strstr(path, "/./") || strstr(path, "/../") ||
	    is_mounted(b, root, path))
		return PROGRAM_UNKNOWN;
	fd = open_resolved(root, path, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	if (fd < 0)
		return fd == -ENOENT ? why_not(b, root, path) : PROGRAM_UNKNOWN;
	found = kind_of(fd);
	fd_close(&fd);
	return found;
}

/* The last PATH of the environment; NULL: none. */
static const char *find_path(json_object *process)
{
	json_object *env = j_get(process, "env");
	const char *path = NULL;

	for (size_t i = 0; json_object_is_type(env, json_type_array) && i < field_count(env); i++) {
		const char *v = json_object_get_string(json_object_array_get_idx(env, i));

		if (v && !strncmp(v, "PATH=", 5))
			path = v + 5;
	}
	return path;
}

static enum found search(const struct bundle *b, int root, const char *name)
{
	const char *p = find_path(b->process);
	enum found best = p ? PROGRAM_NO : PROGRAM_UNKNOWN;

	while (p && *p && best != PROGRAM_YES) {
		size_t n = strcspn(p, ":");
		char path[PATH_MAX];
		enum found found = PROGRAM_UNKNOWN;

		/* An entry that is not absolute is below the working directory. */
		if (*p == '/' &&
		    (size_t)snprintf(path, sizeof(path), "%.*s/%s", (int)n, p, name) < sizeof(path))
			found = look_at(b, root, path);
		best = found > best ? found : best;
		p += n + (p[n] == ':');
	}
	return best;
}

static enum found find_program(const struct bundle *b, int root, const char *name)
{
	char path[PATH_MAX];

	if (!strchr(name, '/'))
		return search(b, root, name);
	if (snprintf(path, sizeof(path), "%s%s%s",
		     *name == '/' ? "" : j_get_str(b->process, "cwd", "/"), *name == '/' ? "" : "/",
		     name) >= PATH_MAX)
		return PROGRAM_UNKNOWN;
	return look_at(b, root, path);
}

int program_check(const struct bundle *b, struct err *e)
{
	const char *name =
		json_object_get_string(json_object_array_get_idx(j_get(b->process, "args"), 0));
	int root = open(b->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	enum found found = PROGRAM_UNKNOWN;

	if (root >= 0 && name && *name)
		found = find_program(b, root, name);
	fd_close(&root);
	if (found == PROGRAM_DENIED)
		return err_set(e, -EACCES, "exec: \"%.100s\": permission denied", name);
	if (found != PROGRAM_NO)
		return 0;
	return err_set(e, -ENOENT, "exec: \"%.100s\": %s", name,
		       strchr(name, '/') ? "no such file or directory"
					 : "executable file not found in $PATH");
}
