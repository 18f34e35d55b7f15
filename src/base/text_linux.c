/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of text, by path. See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

static int read_all(int fd, char *text, size_t max, size_t *len)
{
	ssize_t n = 1;

	*len = 0;
	while (n > 0 && *len <= max) {
		n = read(fd, text + *len, max + 1 - *len);
		if (n < 0)
			return -errno;
		*len += (size_t)n;
	}
	if (*len > max)
		return -EFBIG;
	text[*len] = 0;
	return 0;
}

bool path_is_absolute(const char *path)
{
	return path[0] == '/';
}

bool path_is_relative(const char *path)
{
	return path[0] && path[0] != '/';
}

int text_read(const char *path, bool streams, size_t max, char **text, size_t *len)
{
	bool std = streams && !strcmp(path, "-");
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | (streams ? 0 : O_NONBLOCK);
	int fd = std ? dup(STDIN_FILENO) : open(path, flags), rc;
	uint64_t size;

	*text = NULL;
	if (fd < 0)
		return -errno;
	*text = malloc(max + 2);
	rc = *text ? 0 : -ENOMEM;
	if (!rc && !streams)
		rc = file_size(fd, &size);
	if (!rc)
		rc = read_all(fd, *text, max, len);
	close(fd);
	if (rc) {
		free(*text);
		*text = NULL;
	}
	return rc;
}

int text_write(const char *path, const char *text)
{
	const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY;
	int fd = open(path, flags | O_EXCL, 0666), rc;
	bool made = fd >= 0;

	if (!made)
		fd = open(path, flags | O_TRUNC, 0666);
	rc = fd < 0 ? -errno : write_full(fd, text, strlen(text));
	if (!rc)
		rc = write_full(fd, "\n", 1);
	fd_close(&fd);
	if (rc && made)
		unlink(path);
	return rc;
}
