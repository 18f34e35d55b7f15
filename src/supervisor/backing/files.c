/* SPDX-License-Identifier: BSD-2-Clause */
/* Files that the user named. See files.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

bool file_is(int fd, const struct stat *st)
{
	struct stat b;

	return fd >= 0 && !fstat(fd, &b) && st->st_dev == b.st_dev && st->st_ino == b.st_ino;
}

int file_may_be_made(const char *path)
{
	char dir[PATH_MAX];
	char *slash;

	if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir))
		return -ENAMETOOLONG;
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	return faccessat(AT_FDCWD, slash ? dir : ".", W_OK | X_OK, AT_EACCESS) ? -errno : 0;
}
