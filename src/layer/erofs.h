/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes EROFS images, uncompressed (Linux: Documentation/filesystems/erofs.rst and
 * fs/erofs/erofs_fs.h; what Linux 5.4 reads). Blocks of 4 KiB:
 *
 *   block 0      the superblock, at byte 1024
 *   data         of each file, as it comes; blocks of zeros are holes of the image
 *   directories  that are too large for their inode
 *   inodes       of 64 bytes, each with its attributes and, if it is small, its content
 */
#ifndef LAYER_EROFS_H
#define LAYER_EROFS_H

#include "tree.h"

#define EROFS_BLOCK 4096u
#define EROFS_INLINE_MAX 1024u         /* a file of so many bytes may lie beside its inode */
#define EROFS_INLINE_ALL (64ull << 20) /* of all of them, which are kept in memory */
#define EROFS_MAX_BLOCKS (UINT32_MAX - (1u << 20))

/* Of the names of attributes; in the image they stand for "user." and so on. */
enum {
	EROFS_XATTR_USER = 1,
	EROFS_XATTR_ACL_ACCESS,
	EROFS_XATTR_ACL_DEFAULT,
	EROFS_XATTR_TRUSTED,
	EROFS_XATTR_SECURITY = 6,
};

struct erofs {
	int fd;
	uint64_t end;     /* where the next data goes: a multiple of a block */
	uint64_t inlined; /* bytes */
	uint8_t *buf;
	size_t nbuf;
	struct node *open; /* whose data is being written */
	uint64_t left;
};

int erofs_begin(struct erofs *w, int fd, struct err *e);
void erofs_free(struct erofs *w);
/* The data of a file, in pieces that are n->size bytes together. */
int erofs_file(struct erofs *w, struct node *n, struct err *e);
int erofs_data(struct erofs *w, const void *data, size_t len, struct err *e);
/* All the rest. `id`: 16 bytes that name this image. *size: of the whole. */
int erofs_finish(struct erofs *w, struct tree *t, const uint8_t id[16], uint64_t *size,
		 struct err *e);

#endif
