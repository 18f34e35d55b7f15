/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * FNV-1a, 128 bits: names for cache entries. This is not a cryptographic hash: whoever can choose
 * the inputs' inode numbers and time stamps owns the files anyway.
 */
#ifndef IMAGE_HASH_H
#define IMAGE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct hash {
	unsigned __int128 v;
};

#define HASH_TEXT 33 /* 32 hex digits and the NUL */

void hash_init(struct hash *h);
void hash_bytes(struct hash *h, const void *p, size_t len);
void hash_u64(struct hash *h, uint64_t v);
/* With its NUL, so that two strings in a row are not one. */
void hash_str(struct hash *h, const char *s);
/* Device, inode, type and mode, owner, size, modification and change time: what another content
 * cannot share. */
void hash_stat(struct hash *h, const struct stat *st);
void hash_text(const struct hash *h, char out[HASH_TEXT]);

#endif
