/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of text, by path. See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#define WRITE_DEADLINE_NS 2000000000ull
#define WRITE_POLL_MS 50

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

char *path_whole(const char *path, int *rc)
{
	char *whole = realpath(path, NULL);

	*rc = whole ? 0 : -errno;
	return whole;
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

/* -ENXIO: it is a pipe that nobody has opened to read. The open file is our own, so O_NONBLOCK is
 * nobody else's. */
static int open_in_time(const char *path, int flags, uint64_t limit)
{
	int fd;

	while ((fd = open(path, flags, 0666)) < 0 && errno == ENXIO && clock_ns() < limit)
		poll(NULL, 0, WRITE_POLL_MS);
	return fd < 0 ? -errno : fd;
}

/* -ETIMEDOUT: it is a pipe or a terminal, and nobody takes it. */
static int write_in_time(int fd, const char *text, size_t len, uint64_t limit)
{
	struct pollfd p = {fd, POLLOUT, 0};

	while (len) {
		ssize_t r = write(fd, text, len);

		if (r < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (r < 0 && clock_ns() >= limit)
			return -ETIMEDOUT;
		if (r < 0)
			poll(&p, 1, WRITE_POLL_MS);
		text += r > 0 ? r : 0;
		len -= r > 0 ? (size_t)r : 0;
	}
	return 0;
}

int text_write(const char *path, const char *text)
{
	const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY;
	uint64_t limit = clock_ns() + WRITE_DEADLINE_NS;
	int fd = open(path, flags | O_EXCL, 0666), rc;
	bool made = fd >= 0;

	if (!made)
		fd = open_in_time(path, flags | O_TRUNC | O_NONBLOCK, limit);
	rc = fd < 0 ? fd : write_in_time(fd, text, strlen(text), limit);
	if (!rc)
		rc = write_in_time(fd, "\n", 1, limit);
	fd_close(&fd);
	if (rc && made)
		unlink(path);
	return rc;
}

void link_name(const char *path, char *out, size_t size)
{
	char to[PATH_MAX];
	ssize_t n = readlink(path, to, sizeof(to) - 1);
	const char *last;

	to[n > 0 ? n : 0] = 0;
	last = strrchr(to, '/');
	snprintf(out, size, "%.*s", (int)size - 1, last ? last + 1 : to);
}
