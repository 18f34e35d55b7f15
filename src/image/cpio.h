/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes cpio archives in the "newc" format (Linux:
 * Documentation/driver-api/early-userspace/buffer-format.rst): owner root, time 0, inode numbers
 * counted up, so that the same content is the same archive.
 *
 * Errors stick: the functions return nothing, cpio_end() says how it went. Paths have no leading
 * slash; a folder comes before what it holds.
 */
#ifndef IMAGE_CPIO_H
#define IMAGE_CPIO_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct cpio {
	FILE *f;
	uint32_t ino;
	int code; /* first error */
};

/* Writes to `fd` from its current position; the descriptor stays the caller's. */
int cpio_begin(struct cpio *c, int fd);
void cpio_dir(struct cpio *c, const char *path, mode_t mode);
void cpio_file(struct cpio *c, const char *path, mode_t mode, const void *data, size_t len);
/* The whole file behind `fd`, which must not change its size meanwhile (-EAGAIN). */
void cpio_copy(struct cpio *c, const char *path, mode_t mode, int fd);
void cpio_chardev(struct cpio *c, const char *path, mode_t mode, unsigned major, unsigned minor);
/* Trailer and flush; always closes. 0 or the first error. */
int cpio_end(struct cpio *c);

#endif
