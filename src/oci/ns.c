/* SPDX-License-Identifier: BSD-2-Clause */
/* Namespaces of a proxy. See ns.h. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "field.h"
#include "ns.h"
#include "resolve.h"
#include "spec/json.h"

static const struct {
	const char *type;
	int flag;
} kinds[] = {{"network", CLONE_NEWNET}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}};

static int enter_one(const char *where, const char *type, const char *path, int flag, struct err *e)
{
	int fd, rc = 0;

	if (!path || !path[0])
		return unshare(flag) ? err_sys(e, -errno, "%s: a new %s namespace", where, type)
				     : 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, flag))
		rc = err_sys(e, -errno, "%s.path: %.120s", where, path);
	fd_close(&fd);
	return rc;
}

int ns_enter(json_object *linux_, struct err *e)
{
	json_object *list;
	int rc = field_array(linux_, "linux", "namespaces", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		json_object *n = json_object_array_get_idx(list, i);
		const char *type = j_get_str(n, "type", "");
		char where[FIELD_WHERE_MAX];

		field_at(where, "linux.namespaces", i);
		for (size_t k = 0; k < ARRAY_LEN(kinds) && !rc; k++) {
			if (!strcmp(kinds[k].type, type))
				rc = enter_one(where, type, j_get_str(n, "path", NULL),
					       kinds[k].flag, e);
		}
	}
	return rc;
}

int ns_open_net(pid_t pid, struct err *e)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, -errno, "%s", path) : fd;
}

/* ---- the root ---- */

static int open_in_root(int root, const char *path)
{
	return open_resolved(root, path, O_PATH, RESOLVE_IN_ROOT);
}

static bool has_option(json_object *mount, const char *option)
{
	json_object *list = j_get(mount, "options");

	if (!json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		const char *text = json_object_get_string(json_object_array_get_idx(list, i));

		if (text && !strcmp(text, option))
			return true;
	}
	return false;
}

static int mount_bind(const char *from, const char *to)
{
	return mount(from, to, NULL, MS_BIND | MS_REC, NULL);
}

static int mount_read_only(const char *to)
{
	return mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
}

/* Where the container sees a volume, others who come by this root see it too. One whose place is
 * not there yet is left out: the guest makes that place. */
static void bind_volume(int root, const struct bundle *b, json_object *mount)
{
	const char *source = j_get_str(mount, "source", ""),
		   *destination = j_get_str(mount, "destination", "");
	char from[2 * PATH_MAX], to[64];
	int fd;

	if (!has_option(mount, "bind") && !has_option(mount, "rbind"))
		return;
	snprintf(from, sizeof(from), "%s%s%s", source[0] == '/' ? "" : b->path,
		 source[0] == '/' ? "" : "/", source);
	fd = open_in_root(root, destination);
	snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
	if (fd >= 0 && !mount_bind(from, to) && has_option(mount, "ro")) {
		fd_close(&fd);
		fd = open_in_root(root, destination);
		snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
		(void)mount_read_only(to);
	}
	fd_close(&fd);
}

/* The guest has it in its memory. Whoever writes there by this root (`podman cp`) would lose it
 * below: here it is empty, and nobody's to write. */
static void hide_memory(int root, json_object *mount_of)
{
	char to[64];
	int fd;

	if (strcmp(j_get_str(mount_of, "type", ""), "tmpfs") != 0)
		return;
	fd = open_in_root(root, j_get_str(mount_of, "destination", ""));
	snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
	if (fd >= 0)
		(void)mount("tmpfs", to, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY,
			    "mode=555,size=4k,nr_inodes=2");
	fd_close(&fd);
}

/* Of the host's /proc what is about this process, and since when the host runs: `podman top` enters
 * this mount namespace and reads /proc there. An image without the directory has none. */
static int bind_name(int at, const char *name, const char *from, bool directory)
{
	char to[64];
	int fd = -1,
	    rc = directory ? mkdirat(at, name, 0555) : mknodat(at, name, S_IFREG | 0444, 0);

	if (!rc)
		fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
	rc = mount(from, to, NULL, MS_BIND, NULL);
	close(fd);
	return rc;
}

static void show_self(int root)
{
	static const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	char to[64], from[32], *name = from + strlen("/proc/");
	int fd = open_resolved(root, "proc", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);

	snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
	if (fd < 0 || mount("proc", to, "tmpfs", flags, "mode=555,size=64k,nr_inodes=8")) {
		fd_close(&fd);
		return;
	}
	close(fd);
	fd = open_resolved(root, "proc", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
	snprintf(to, sizeof(to), "/proc/self/fd/%d", fd);
	snprintf(from, sizeof(from), "/proc/%d", getpid());
	if (fd >= 0 && !bind_name(fd, name, from, true) &&
	    !bind_name(fd, "stat", "/proc/stat", false))
		(void)mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL);
	fd_close(&fd);
}

static int change_root(const struct bundle *b, int *root)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(b->rootfs, b->rootfs, NULL, MS_BIND | MS_REC, NULL))
		return -errno;
	*root = open(b->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < field_count(b->mounts) && *root >= 0; i++) {
		bind_volume(*root, b, json_object_array_get_idx(b->mounts, i));
		hide_memory(*root, json_object_array_get_idx(b->mounts, i));
	}
	if (*root >= 0)
		show_self(*root);
	if (*root < 0 || fchdir(*root) || syscall(SYS_pivot_root, ".", ".") ||
	    umount2(".", MNT_DETACH) || chdir("/"))
		return -errno;
	return 0;
}

int ns_root(const struct bundle *b, struct err *e)
{
	int root = -1, rc = change_root(b, &root);

	fd_close(&root);
	return rc ? err_sys(e, rc, "root.path: %.150s", b->rootfs) : 0;
}
