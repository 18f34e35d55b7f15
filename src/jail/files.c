/* SPDX-License-Identifier: BSD-2-Clause */
/* Small files of procfs: read whole, written in one piece. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "steps.h"

int jail_file_read(const char *path, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t r;
	int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (n < size - 1) {
		r = read(fd, buf + n, size - 1 - n);
		if (r < 0)
			rc = -errno;
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	buf[n] = 0;
	fd_close(&fd);
	if (rc)
		return rc;
	return n == size - 1 ? -EFBIG : (int)n;
}

int jail_file_write(const char *path, const char *text)
{
	size_t len = strlen(text);
	int rc = 0, fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t r = write(fd, text, len);
	if (r < 0)
		rc = -errno;
	else if ((size_t)r != len)
		rc = -EIO;
	fd_close(&fd);
	return rc;
}
