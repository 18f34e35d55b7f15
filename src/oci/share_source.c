/* SPDX-License-Identifier: BSD-2-Clause */
/* Sources of mounts. See share_source.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include <insula/base.h>
#include <insula/log.h>

#include "field.h"
#include "oci/share.h"
#include "share_source.h"
#include "spec/json.h"

#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif

static bool is_kernels(long type)
{
	static const long own[] = {
		PROC_SUPER_MAGIC,   SYSFS_MAGIC,    CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC,
		DEVPTS_SUPER_MAGIC, DEBUGFS_MAGIC,  TRACEFS_MAGIC,       SECURITYFS_MAGIC,
		BPF_FS_MAGIC,       PSTOREFS_MAGIC, EFIVARFS_MAGIC,      SELINUX_MAGIC,
		MQUEUE_MAGIC,
	};

	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (own[i] == type)
			return true;
	}
	return false;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/');
}

bool share_is_mount(int fd)
{
	struct statx st = {.stx_mask = 0};

	return !statx(fd, "", AT_EMPTY_PATH, 0, &st) && st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* podman's, docker's and containerd's: .../ID/shm, a tmpfs of its own. */
static bool is_engine_shm(const struct share_source *s, const char *path, const char *dest,
			  long type)
{
	size_t n = strlen(path);

	return !strcmp(dest, "/dev/shm") && s->directory && type == TMPFS_MAGIC && n > 4 &&
	       !strcmp(path + n - 4, "/shm") && share_is_mount(s->fd);
}

static int real_path(int fd, char *out, size_t size)
{
	char name[64];
	ssize_t n;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	n = readlink(name, out, size - 1);
	if (n < 0)
		return -errno;
	out[n] = 0;
	return 0;
}

static int refuse_kind(const char *where, const char *source, const char *what, struct err *e)
{
	return err_set(e, -EINVAL,
		       "%s.source: %.80s: %s of the host cannot be used from a VM; expected a file "
		       "or a directory",
		       where, source, what);
}

static int choose_kind(struct share_source *s, const char *source, const char *dest,
		       const char *where, struct err *e)
{
	char path[PATH_MAX] = "";
	struct statfs fs = {.f_type = 0};
	struct stat st = {.st_mode = 0};
	int rc = fstat(s->fd, &st) || fstatfs(s->fd, &fs) ? -errno
							  : real_path(s->fd, path, sizeof(path));

	if (rc)
		return err_sys(e, rc, "%s.source: %.120s", where, source);
	s->directory = S_ISDIR(st.st_mode);
	s->kind = SOURCE_GUEST;
	if (is_engine_shm(s, path, dest, fs.f_type)) {
		strcpy(s->guest, "/dev/shm");
		return 0;
	}
	strcpy(s->guest, path);
	if (is_kernels(fs.f_type) || (is_below(path, "/dev") && strncmp(path, "/dev/shm/", 9) != 0))
		return 0;
	s->kind = SOURCE_HOST;
	if (s->directory || S_ISREG(st.st_mode))
		return 0;
	return refuse_kind(where, source,
			   S_ISSOCK(st.st_mode)   ? "a socket"
			   : S_ISFIFO(st.st_mode) ? "a pipe"
						  : "a device",
			   e);
}

static int open_source(struct share_source *s, const struct bundle *b, json_object *m,
		       const char *dest, const char *where, struct err *e)
{
	const char *source;
	int dir = -1, rc = field_text(m, where, "source", &source, e);

	if (rc)
		return rc;
	if (!source || !source[0])
		return field_wrong(where, "source", j_get(m, "source"), "a path", e);
	/* "Relative to the bundle", config.md says. */
	if (source[0] != '/')
		dir = open(b->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	s->fd = openat(dir, source, O_PATH | O_CLOEXEC);
	rc = s->fd < 0 ? err_sys(e, -errno, "%s.source: %.120s", where, source) : 0;
	fd_close(&dir);
	return rc ? rc : choose_kind(s, source, dest, where, e);
}

int share_source_open(struct share_source *s, const struct bundle *b, json_object *mount,
		      const char *where, struct err *e)
{
	const char *type, *dest;
	json_object *options;
	int rc = field_text(mount, where, "type", &type, e);

	*s = (struct share_source){.fd = -1};
	if (!rc)
		rc = field_text(mount, where, "destination", &dest, e);
	if (!rc)
		rc = field_array(mount, where, "options", &options, e);
	if (!rc)
		rc = mountopt_parse(&s->opt, options, type ? type : "", where, e);
	if (rc)
		return rc;
	if (s->opt.flags & MS_BIND) {
		rc = open_source(s, b, mount, dest ? dest : "", where, e);
	} else if (type && !strcmp(type, "overlay")) {
		s->kind = SOURCE_OVERLAY;
		s->directory = true;
	}
	if (s->opt.prop & MS_SHARED && s->kind == SOURCE_HOST)
		log_warn("%s: shared: what a VM mounts there does not reach the host", where);
	if (rc)
		share_source_close(s);
	return rc;
}

void share_source_close(struct share_source *s)
{
	fd_close(&s->fd);
	mountopt_free(&s->opt);
}
