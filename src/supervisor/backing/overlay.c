/* SPDX-License-Identifier: BSD-2-Clause */
/* The file of a copy-on-write disk. See overlay.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/blk/blk_overlay_start.h"
#include "files.h"
#include "overlay.h"
#include "overlay_head.h"

#define OVERLAY_OPEN (O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
#define OVERLAY_MODE 0600 /* the base may be readable to fewer than a new file is */
#define OVERLAY_TEMP "/var/tmp"
#define OVERLAY_PATH_MAX 4096

/* ---- the base ---- */

static int take_samples(int fd, struct overlay_base *b)
{
	uint8_t buf[OVERLAY_SAMPLE];

	b->sum = OVERLAY_SUM_BEGIN;
	for (unsigned i = 0; i < OVERLAY_SAMPLES; i++) {
		uint64_t off = overlay_sample(b->size, i);
		ssize_t n = pread(fd, buf, sizeof(buf), (off_t)off);

		if (n < 0)
			return -errno;
		b->sum = overlay_sum(b->sum, buf, (size_t)n);
	}
	return 0;
}

/* A time of a device's node says nothing of what is on the device. */
static int know_base(struct overlay_base *b, const struct overlay_of *of, struct err *e)
{
	char self[40];
	struct stat st;
	int fd, rc;

	if (fstat(of->base_fd, &st))
		return err_sys(e, -errno, "disk %s", of->base);
	*b = (struct overlay_base){.size = of->capacity};
	if (S_ISREG(st.st_mode)) {
		b->mtime_s = st.st_mtim.tv_sec;
		b->mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
	}
	/* Again, because direct I/O wants what is aligned. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", of->base_fd);
	fd = open(self, O_RDONLY | O_CLOEXEC);
	rc = fd < 0 ? -errno : take_samples(fd, b);
	if (fd >= 0)
		close(fd);
	return rc ? err_sys(e, rc, "disk %s", of->base) : 0;
}

/* ---- a file with a name ---- */

static int lock_file(int fd, const char *path, const struct overlay_of *of, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_sys(e, -errno, "overlay %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "overlay %s: not a file", path);
	if (file_is(of->base_fd, &st))
		return err_set(e, -EINVAL, "overlay %s: the disk itself; expected another file",
			       path);
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK
			       ? err_set(e, -EBUSY, "overlay %s: locked by another VM", path)
			       : err_sys(e, -errno, "overlay %s: lock", path);
	return 0;
}

/* The head is stable before there is anything behind it. So whoever dies in here, or the machine,
 * leaves an empty file, a head alone, or all of it. */
static int make_file(int fd, const char *path, const struct overlay_base *b, struct err *e)
{
	uint8_t page[OVERLAY_HEAD] = {0};
	struct overlay_head h;

	overlay_head_make(&h, b);
	memcpy(page, &h, sizeof(h));
	if (pwrite(fd, page, sizeof(page), 0) != (ssize_t)sizeof(page) || fdatasync(fd))
		return err_sys(e, errno ? -errno : -EIO, "overlay %s: head", path);
	if (ftruncate(fd, (off_t)overlay_layout(b->size).size))
		return err_sys(e, -errno, "overlay %s: %llu bytes, most of them a hole", path,
			       (unsigned long long)overlay_layout(b->size).size);
	return 0;
}

/* Is there nothing yet? The machine may have stopped before the head was stable. What is behind the
 * file's end is zero in `page`. */
static bool is_empty(const uint8_t *page, uint64_t size)
{
	return size <= OVERLAY_HEAD && mem_is_zero(page, OVERLAY_HEAD);
}

static int check_file(const uint8_t *page, uint64_t size, const char *path,
		      const struct overlay_of *of, const struct overlay_base *b, struct err *e)
{
	uint64_t wanted = overlay_layout(b->size).size;
	struct overlay_head h;
	int rc;

	memcpy(&h, page, sizeof(h));
	rc = overlay_head_check(&h, b, path, of->base, e);
	if (!rc && size != wanted && size != OVERLAY_HEAD)
		rc = err_set(e, -EINVAL, "overlay %s: %llu bytes; expected %llu", path,
			     (unsigned long long)size, (unsigned long long)wanted);
	return rc;
}

/* Locked. */
static int check_or_make(int fd, const char *path, const struct overlay_of *of, bool check_only,
			 struct err *e)
{
	uint8_t page[OVERLAY_HEAD] = {0};
	struct overlay_base b;
	struct stat st;
	bool empty;
	int rc = know_base(&b, of, e);

	if (rc)
		return rc;
	if (fstat(fd, &st) || pread(fd, page, sizeof(page), 0) < 0)
		return err_sys(e, -errno, "overlay %s", path);
	empty = is_empty(page, (uint64_t)st.st_size);
	if (!empty)
		rc = check_file(page, (uint64_t)st.st_size, path, of, &b, e);
	if (rc || check_only)
		return rc;
	return empty || st.st_size == OVERLAY_HEAD ? make_file(fd, path, &b, e) : 0;
}

int overlay_open(const char *path, const struct overlay_of *of, bool check_only, int *fd,
		 struct err *e)
{
	bool made = false;
	int rc;

	*fd = open(path, OVERLAY_OPEN);
	if (*fd < 0 && errno == ENOENT && check_only) {
		rc = file_may_be_made(path);
		return rc ? err_sys(e, rc, "overlay %s", path) : 0;
	}
	if (*fd < 0 && errno == ENOENT) {
		*fd = open(path, OVERLAY_OPEN | O_CREAT, OVERLAY_MODE);
		made = *fd >= 0;
	}
	if (*fd < 0)
		return err_sys(e, -errno, "overlay %s", path);
	rc = lock_file(*fd, path, of, e);
	if (!rc)
		rc = check_or_make(*fd, path, of, check_only, e);
	else
		made = false; /* perhaps it is another VM's by now */
	if (rc && made)
		unlink(path);
	if (rc)
		fd_close(fd);
	return rc;
}

/* ---- a file without a name ---- */

static int nameless(const char *dir)
{
	char path[OVERLAY_PATH_MAX];
	int fd = open(dir, O_TMPFILE | O_EXCL | OVERLAY_OPEN, OVERLAY_MODE);

	/* Older kernels' overlayfs, and some network file systems, have no such files. */
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd < 0 ? -errno : fd;
	if (snprintf(path, sizeof(path), "%s/insula-overlay-XXXXXX", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

int overlay_throwaway(uint64_t capacity, bool check_only, int *fd, struct err *e)
{
	const char *dir = getenv("TMPDIR");
	uint64_t size = overlay_layout(capacity).size;
	int rc = 0;

	if (!dir || !*dir)
		dir = OVERLAY_TEMP;
	*fd = -1;
	if (check_only)
		return access(dir, W_OK | X_OK) ? err_sys(e, -errno, "overlay discard: %s", dir)
						: 0;
	*fd = nameless(dir);
	if (*fd < 0)
		return err_sys(e, *fd, "overlay discard: a file in %s", dir);
	if (ftruncate(*fd, (off_t)size))
		rc = err_sys(e, -errno, "overlay discard: %llu bytes in %s, most of them a hole",
			     (unsigned long long)size, dir);
	if (rc)
		fd_close(fd);
	return rc;
}
