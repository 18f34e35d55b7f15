/* SPDX-License-Identifier: BSD-2-Clause */
/* FNV-1a, 128 bits. See hash.h. */
#include <stdio.h>
#include <string.h>

#include "hash.h"

#define U128(hi, lo) (((unsigned __int128)(hi) << 64) | (lo))
#define FNV_BASIS U128(0x6c62272e07bb0142u, 0x62b821756295c58du)
#define FNV_PRIME U128(0x0000000001000000u, 0x000000000000013bu)

void hash_init(struct hash *h)
{
	h->v = FNV_BASIS;
}

void hash_bytes(struct hash *h, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++) {
		h->v ^= b[i];
		h->v *= FNV_PRIME;
	}
}

void hash_u64(struct hash *h, uint64_t v)
{
	hash_bytes(h, &v, sizeof(v));
}

void hash_str(struct hash *h, const char *s)
{
	hash_bytes(h, s, strlen(s) + 1);
}

void hash_stat(struct hash *h, const struct stat *st)
{
	hash_u64(h, st->st_dev);
	hash_u64(h, st->st_ino);
	hash_u64(h, st->st_mode);
	hash_u64(h, st->st_uid);
	hash_u64(h, st->st_gid);
	hash_u64(h, st->st_rdev);
	/* What a directory's size means is the file system's own affair. */
	hash_u64(h, S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size);
	hash_u64(h, (uint64_t)st->st_mtim.tv_sec);
	hash_u64(h, (uint64_t)st->st_mtim.tv_nsec);
	hash_u64(h, (uint64_t)st->st_ctim.tv_sec);
	hash_u64(h, (uint64_t)st->st_ctim.tv_nsec);
}

void hash_text(const struct hash *h, char out[HASH_TEXT])
{
	snprintf(out, HASH_TEXT, "%016llx%016llx", (unsigned long long)(h->v >> 64),
		 (unsigned long long)h->v);
}
