/* SPDX-License-Identifier: BSD-2-Clause */
/* The working set of a snapshot. See pager.h. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "pager.h"

int pager_order(const char *snapshot)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (snprintf(path, sizeof(path), "%s/working-set", snapshot) >= (int)sizeof(path))
		return -1;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	/* It is written by one at a time; the others follow what is there. */
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB))
		fd_close(&fd);
	if (fd < 0)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != geteuid())
		fd_close(&fd);
	return fd;
}
