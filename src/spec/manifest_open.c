/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A module's files: its manifest and its program. They are opened once, looked at through the
 * descriptor, and read or executed from that, so what was checked is what is used. See manifest.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "manifest.h"

/* Whoever could change it would run in everybody's VMs. */
static int check_file(const char *dir, const char *name, const struct stat *st, struct err *e)
{
	if (st->st_uid && st->st_uid != geteuid())
		return err_set(e, -EPERM, "module %s/%s: belongs to user %u; expected root or %u",
			       dir, name, (unsigned)st->st_uid, (unsigned)geteuid());
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return err_set(
			e, -EPERM,
			"module %s/%s: mode %03o; expected one that only its owner may write", dir,
			name, (unsigned)(st->st_mode & 0777));
	return 0;
}

static int open_file(int dfd, const char *dir, const char *name, struct err *e)
{
	int fd = openat(dfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc;
	struct stat st;

	if (fd < 0)
		return err_sys(e, -errno, "module %s/%s", dir, name);
	rc = fstat(fd, &st) ? err_sys(e, -errno, "module %s/%s", dir, name) : 0;
	if (!rc && !S_ISREG(st.st_mode))
		rc = err_set(e, -EINVAL, "module %s/%s: not a regular file", dir, name);
	if (!rc)
		rc = check_file(dir, name, &st, e);
	if (rc)
		fd_close(&fd);
	return rc ? rc : fd;
}

static int read_manifest(struct manifest *m, int dfd, const char *dir, const char *name,
			 struct err *e)
{
	static char text[MANIFEST_MAX];
	char file[MANIFEST_WORD + 8];
	uint64_t size = 0;
	int fd, rc;

	snprintf(file, sizeof(file), "%.*s.json", MANIFEST_WORD - 1, name);
	fd = open_file(dfd, dir, file, e);
	if (fd < 0)
		return fd;
	rc = file_size(fd, &size);
	if (!rc && size >= sizeof(text))
		rc = -EFBIG;
	if (!rc)
		rc = read_full(fd, text, (size_t)size, 0);
	fd_close(&fd);
	return rc ? err_sys(e, rc, "module %s/%s", dir, file)
		  : manifest_parse(m, name, text, (size_t)size, e);
}

static int open_directory(const char *dir, const char *what, struct err *e)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;
	struct stat st;

	if (fd < 0)
		return err_sys(e, -errno, "%s %s", what, dir);
	rc = fstat(fd, &st) ? err_sys(e, -errno, "%s %s", what, dir) : check_file(dir, "", &st, e);
	if (rc)
		fd_close(&fd);
	return rc ? rc : fd;
}

static int open_executable(int dfd, const char *dir, const char *name, struct err *e)
{
	int fd = open_file(dfd, dir, name, e);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) || !(st.st_mode & S_IXOTH)) {
		fd_close(&fd);
		return err_set(
			e, -EACCES,
			"module %s/%s: not executable; expected one that everybody may execute",
			dir, name);
	}
	return fd;
}

static int open_program(const struct manifest *m, int dfd, const char *dir, struct err *e)
{
	char above[MANIFEST_TEXT];
	const char *name = strrchr(m->program, '/');
	struct err why;
	int fd, rc;

	if (!name)
		return open_executable(dfd, dir, m->program, e);
	snprintf(above, sizeof(above), "%.*s", (int)(name - m->program), m->program);
	rc = fd = open_directory(above, "program in", &why);
	if (fd >= 0)
		rc = open_executable(fd, above, name + 1, &why);
	fd_close(&fd);
	if (rc == -ENOENT && m->package[0])
		return err_set(e, -ENOENT, "%s (Debian: apt-get install %s)", why.text, m->package);
	return rc < 0 ? err_set(e, rc, "%s", why.text) : rc;
}

int manifest_open_beside(const char *dir, const char *name, struct err *e)
{
	int dfd = open_directory(dir, "modules in", e), fd;

	if (dfd < 0)
		return dfd;
	fd = open_file(dfd, dir, name, e);
	fd_close(&dfd);
	return fd;
}

int manifest_open(struct manifest *m, const char *dir, const char *name, int *exec_fd,
		  struct err *e)
{
	int dfd = open_directory(dir, "modules in", e), rc;

	*exec_fd = -1;
	if (dfd < 0)
		return dfd;
	rc = read_manifest(m, dfd, dir, name, e);
	if (!rc)
		rc = *exec_fd = open_program(m, dfd, dir, e);
	fd_close(&dfd);
	return rc < 0 ? rc : 0;
}
