/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What snapdir.c needs of the system: snapdir_linux.c, snapdir_win.c. So are of snapdir.h
 * snapdir_make(), snapdir_keep(), snapdir_names_of(), snapdir_close() and snapdir_remove().
 *
 * A directory that is read is named twice, by its descriptor, which counts, and by its path, for
 * messages.
 */
#ifndef SUPERVISOR_SNAPDIR_OS_H
#define SUPERVISOR_SNAPDIR_OS_H

#include "snapdir.h"

#define SNAPDIR_KEY 32u
#define SNAPDIR_SUM 65u /* SHA256_TEXT */
#define SNAPDIR_SEAL "seal"
#define SNAPDIR_ORDER "working-set"

extern const char *const snapdir_names[SNAPDIR_FILES];

/* A descriptor or a negative errno. */
int snapdir_open(const char *path);
/* A regular file in it, to be read, and no link. A descriptor, or a negative errno with a line. */
int snapdir_open_file(int dir, const char *path, const char *name, struct err *e);
/* Is it this user's, and nobody else may write to it? */
bool snapdir_is_ours(int fd);
/* The file of the seal, which lasts. */
int snapdir_write_seal(const struct snapdir *d, const char sum[SNAPDIR_SUM]);

/* The key in this directory, which nobody else can read; `make`: a new one, if there is none. */
int snapdir_key(const char *cache, bool make, uint8_t key[SNAPDIR_KEY]);
/* Where one may be as well; "": nowhere. */
const char *snapdir_other_cache(void);

#endif
