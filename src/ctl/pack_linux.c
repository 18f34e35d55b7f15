/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of this host as an archive. See pack.h. */
#include "pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "tar.h"

#define PIECE 65536
#define DEPTH 128 /* of directories: each is open while what is in it is read */

static int pack_below(struct pack *p, int at, const char *file, const char *name, unsigned depth,
		      struct err *e);

static int pack_leave_out(struct pack *p, const char *name, const char *why)
{
	char line[300];

	p->skipped++;
	snprintf(line, sizeof(line), "left out: %.160s: %s", name, why);
	p->left_out(p->ctx, line);
	return 0;
}

static int put_header(struct pack *p, const struct stat *st, char type, const char *name,
		      const char *link, struct err *e)
{
	static struct tar_entry n; /* these two: one thread; too large for the stack */
	static uint8_t out[TAR_HEADER_MAX];

	n.type = type;
	n.size = type == TAR_FILE ? (uint64_t)st->st_size : 0;
	n.mode = st->st_mode & 07777;
	n.mtime = st->st_mtime;
	snprintf(n.name, sizeof(n.name), "%s%s", name, type == TAR_DIRECTORY ? "/" : "");
	snprintf(n.link, sizeof(n.link), "%s", link);
	return p->write(p->stream, out, tar_header(&n, out), e);
}

/* As many bytes as the header says: a file that has become shorter is filled up, and named. */
static int put_data(struct pack *p, int fd, uint64_t size, const char *name, struct err *e)
{
	static char buf[PIECE]; /* one thread; too large for the stack */
	uint64_t pad = -size & (TAR_BLOCK - 1);
	bool cut = false;
	int rc = 0;

	while (size && !rc) {
		size_t want = size < sizeof(buf) ? (size_t)size : sizeof(buf);
		ssize_t n = cut ? 0 : read(fd, buf, want);

		if (n <= 0) {
			if (!cut)
				pack_leave_out(p, name, "it became shorter, or cannot be read");
			cut = true;
			memset(buf, 0, want);
			n = (ssize_t)want;
		}
		rc = p->write(p->stream, buf, (size_t)n, e);
		size -= (uint64_t)n;
	}
	memset(buf, 0, TAR_BLOCK);
	return rc || !pad ? rc : p->write(p->stream, buf, (size_t)pad, e);
}

static int pack_file(struct pack *p, int at, const char *file, const char *name, struct err *e)
{
	int fd =
		openat(at, file,
		       O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (p->follow ? 0 : O_NOFOLLOW));
	struct stat st;
	int rc;

	if (fd < 0)
		return pack_leave_out(p, name, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		rc = pack_leave_out(p, name, "it is no file any more");
	else
		rc = put_header(p, &st, TAR_FILE, name, "", e);
	if (!rc && S_ISREG(st.st_mode))
		rc = put_data(p, fd, (uint64_t)st.st_size, name, e);
	fd_close(&fd);
	return rc;
}

static int pack_link(struct pack *p, int at, const char *file, const char *name,
		     const struct stat *st, struct err *e)
{
	char target[TAR_NAME_MAX];
	ssize_t n = readlinkat(at, file, target, sizeof(target) - 1);

	if (n < 0)
		return pack_leave_out(p, name, strerror(errno));
	target[n] = 0;
	return put_header(p, st, TAR_LINK, name, target, e);
}

static int pack_directory(struct pack *p, int at, const char *file, const char *name,
			  const struct stat *st, unsigned depth, struct err *e)
{
	struct dirent *d;
	int fd, rc = 0;
	DIR *dir;

	/* "." is a directory that is there: it stays as it is. */
	if (depth || strcmp(name, ".") != 0)
		rc = put_header(p, st, TAR_DIRECTORY, name, "", e);
	if (rc)
		return rc;
	fd = openat(at, file, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (p->follow ? 0 : O_NOFOLLOW));
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		fd_close(&fd);
		return pack_leave_out(p, name, strerror(errno));
	}
	while (!rc && (d = readdir(dir))) {
		char *below;

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		if (asprintf(&below, "%s/%s", name, d->d_name) < 0)
			panic("out of memory");
		rc = pack_below(p, dirfd(dir), d->d_name, below, depth + 1, e);
		free(below);
	}
	closedir(dir);
	return rc;
}

static int pack_below(struct pack *p, int at, const char *file, const char *name, unsigned depth,
		      struct err *e)
{
	struct stat st;

	if (depth == DEPTH || strlen(name) > TAR_NAME_MAX - 2)
		return pack_leave_out(p, name, "too many directories, or too long a name");
	if (fstatat(at, file, &st, p->follow ? 0 : AT_SYMLINK_NOFOLLOW))
		return pack_leave_out(p, name, strerror(errno));
	if (S_ISREG(st.st_mode))
		return pack_file(p, at, file, name, e);
	if (S_ISLNK(st.st_mode))
		return pack_link(p, at, file, name, &st, e);
	if (S_ISDIR(st.st_mode))
		return pack_directory(p, at, file, name, &st, depth, e);
	return pack_leave_out(p, name, "neither a file nor a directory nor a symbolic link");
}

int pack_all(struct pack *p, const char *path, const char *name, struct err *e)
{
	static const uint8_t end[2 * TAR_BLOCK];
	struct stat st;
	int rc;

	p->skipped = 0;
	if (fstatat(AT_FDCWD, path, &st, p->follow ? 0 : AT_SYMLINK_NOFOLLOW))
		return err_sys(e, -errno, "%.160s", path);
	rc = pack_below(p, AT_FDCWD, path, name, 0, e);
	return rc ? rc : p->write(p->stream, end, sizeof(end), e);
}
