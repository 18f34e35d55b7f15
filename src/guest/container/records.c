/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: files, numbers and identifiers of records, read strictly. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

/* statx(2); not every C library has it. */
#define K_STATX_FORCE_SYNC 0x2000
#define K_STATX_NLINK 0x4u
#define GONE_TRIES 30
#define GONE_US 100000

static int read_all(int fd, const char *path, struct buffer *b, size_t size, struct err *e)
{
	while (b->len < size) {
		ssize_t n = read(fd, b->data + b->len, size - b->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "read %s", path);
		if (n == 0)
			break;
		b->len += (size_t)n;
	}
	b->data[b->len] = '\0';
	return 0;
}

/* virtio-fs believes for a second that a name is still the file that it was. A container that has
 * the identifier of one that is just gone would find that one's records. Ask the host. */
static bool is_gone(int fd)
{
	struct k_statx {
		uint32_t mask, blksize;
		uint64_t attributes;
		uint32_t nlink, rest[59];
	} st = {0};

	return !syscall(SYS_statx, fd, "", AT_EMPTY_PATH | K_STATX_FORCE_SYNC, K_STATX_NLINK,
			&st) &&
	       st.mask & K_STATX_NLINK && !st.nlink;
}

static int open_present(const char *path)
{
	for (unsigned tries = 0;; tries++) {
		/* A FIFO in its place must not stop this. */
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

		if (fd < 0 || tries == GONE_TRIES || !is_gone(fd))
			return fd;
		close(fd);
		usleep(GONE_US);
	}
}

int file_read(const char *path, size_t max, struct buffer *out, struct err *e)
{
	int fd = open_present(path), r;
	struct stat st;

	*out = (struct buffer){0};
	if (fd < 0)
		return err_sys(e, -errno, "open %s", path);
	if (fstat(fd, &st) < 0) {
		r = err_sys(e, -errno, "open %s", path);
	} else if (!S_ISREG(st.st_mode)) {
		r = err_set(e, -EINVAL, "open %s: not a regular file", path);
	} else if ((uint64_t)st.st_size > max) {
		r = err_set(e, -EFBIG, "open %s: %llu bytes, at most %zu are taken", path,
			    (unsigned long long)st.st_size, max);
	} else {
		out->data = malloc((size_t)st.st_size + 1);
		r = out->data ? read_all(fd, path, out, (size_t)st.st_size, e)
			      : err_set(e, -ENOMEM, "out of memory");
	}
	close(fd);
	if (r) {
		free(out->data);
		*out = (struct buffer){0};
	}
	return r;
}

void *vec_grow(void *array, size_t n, size_t size)
{
	/* Powers of two from 4 on: the array is full exactly then. */
	if (n == 0 || (n >= 4 && (n & (n - 1)) == 0)) {
		size_t room = n ? n * 2 : 4;
		char *more = room > SIZE_MAX / size ? NULL : realloc(array, room * size);

		if (more)
			memset(more + n * size, 0, (room - n) * size);
		return more;
	}
	return array;
}

static int digit(char c, unsigned base)
{
	int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

	return d >= 0 && (unsigned)d < base ? d : -1;
}

/* The number at *s, which is moved behind it. */
static int number_at(const char **s, unsigned base, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;
	const char *p = *s;

	for (int d; (d = digit(*p, base)) >= 0; p++) {
		if (v > (max - (unsigned)d) / base || (unsigned)d > max)
			return -EINVAL;
		v = v * base + (unsigned)d;
	}
	if (p == *s)
		return -EINVAL;
	*s = p;
	*out = v;
	return 0;
}

int num_u64(const char *s, unsigned base, uint64_t max, uint64_t *out)
{
	return number_at(&s, base, max, out) || *s ? -EINVAL : 0;
}

int num_list(const char *s, int64_t *out, size_t n, bool minus, uint64_t max)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v;

		if (i && *s++ != ' ')
			return -EINVAL;
		if (minus && s[0] == '-' && s[1] == '1') {
			out[i] = -1;
			s += 2;
			continue;
		}
		if (number_at(&s, 10, max, &v))
			return -EINVAL;
		out[i] = (int64_t)v;
	}
	return *s ? -EINVAL : 0;
}

bool id_valid(const char *id)
{
	size_t n = strlen(id);

	if (n == 0 || n > CT_ID_MAX || strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)id[i]) && !strchr("_+-.", id[i]))
			return false;
	return true;
}

int records_read(enum config_kind kind, const char *path, struct buffer *b, struct config *c,
		 struct err *e)
{
	struct err why;
	int r;

	*c = (struct config){0};
	r = file_read(path, CT_FILE_MAX, b, e);
	if (r)
		return r;
	r = records_parse(kind, b->data, b->len, c, &why);
	return r ? err_set(e, r, "%s: %s", path, why.text) : 0;
}
