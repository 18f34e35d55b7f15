/* SPDX-License-Identifier: BSD-2-Clause */
/* newc archives. See cpio.h. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <insula/base.h>

#include "cpio.h"

#define HEADER_LEN 110
#define COPY_CHUNK 65536

static void emit(struct cpio *c, const void *p, size_t len)
{
	if (!c->code && len && fwrite(p, 1, len, c->f) != len)
		c->code = errno ? -errno : -EIO;
}

static void pad4(struct cpio *c, size_t len)
{
	emit(c, "\0\0\0", (4 - len % 4) % 4);
}

struct entry {
	mode_t mode; /* type and permissions */
	uint32_t nlink;
	uint32_t size;
	unsigned major, minor;
};

static void header(struct cpio *c, const char *path, const struct entry *e)
{
	char h[HEADER_LEN + 1];
	size_t name = strlen(path) + 1;

	/* magic, then 13 fields of 8 hex digits: ino mode uid gid nlink mtime filesize devmajor
	 * devminor rdevmajor rdevminor namesize check */
	snprintf(h, sizeof(h), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		 c->ino++, (unsigned)e->mode, 0u, 0u, e->nlink, 0u, e->size, 0u, 0u, e->major,
		 e->minor, (unsigned)name, 0u);
	emit(c, h, HEADER_LEN);
	emit(c, path, name);
	pad4(c, HEADER_LEN + name);
}

int cpio_begin(struct cpio *c, int fd)
{
	*c = (struct cpio){.f = fd_stream(fd), .ino = 1};
	return c->f ? 0 : errno ? -errno : -EIO;
}

void cpio_dir(struct cpio *c, const char *path, mode_t mode)
{
	header(c, path, &(struct entry){.mode = (mode_t)(S_IFDIR | mode), .nlink = 2});
}

void cpio_file(struct cpio *c, const char *path, mode_t mode, const void *data, size_t len)
{
	if (len > UINT32_MAX && !c->code)
		c->code = -EFBIG;
	header(c, path,
	       &(struct entry){
		       .mode = (mode_t)(S_IFREG | mode), .nlink = 1, .size = (uint32_t)len});
	emit(c, data, len);
	pad4(c, len);
}

void cpio_copy(struct cpio *c, const char *path, mode_t mode, int fd)
{
	uint8_t buf[COPY_CHUNK];
	uint64_t size, off = 0;

	if (!c->code)
		c->code = file_size(fd, &size);
	if (!c->code && size > UINT32_MAX)
		c->code = -EFBIG;
	if (c->code)
		return;
	header(c, path,
	       &(struct entry){
		       .mode = (mode_t)(S_IFREG | mode), .nlink = 1, .size = (uint32_t)size});
	while (!c->code && off < size) {
		size_t n = size - off < COPY_CHUNK ? (size_t)(size - off) : COPY_CHUNK;
		int rc = read_full(fd, buf, n, off);

		if (rc) {
			c->code = rc == -ENODATA ? -EAGAIN : rc;
			return;
		}
		emit(c, buf, n);
		off += n;
	}
	pad4(c, (size_t)size);
}

void cpio_chardev(struct cpio *c, const char *path, mode_t mode, unsigned major, unsigned minor)
{
	header(c, path,
	       &(struct entry){.mode = (mode_t)(S_IFCHR | mode),
			       .nlink = 1,
			       .major = major,
			       .minor = minor});
}

int cpio_end(struct cpio *c)
{
	c->ino = 0;
	header(c, "TRAILER!!!", &(struct entry){.nlink = 1});
	if (fclose(c->f) && !c->code)
		c->code = errno ? -errno : -EIO;
	c->f = NULL;
	return c->code;
}
