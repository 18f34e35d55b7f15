/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache directory: files "KIND-SUBJECT-KEY", where SUBJECT stands for the kernel or directory
 * that it was made from and KEY for the exact state of all inputs. An entry gets its name when it
 * is complete and on disk. Who uses an entry holds a shared flock on it; an older entry of the same
 * subject is removed when a newer one appears and nobody holds it.
 */
#ifndef IMAGE_CACHE_H
#define IMAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#include "hash.h"

#define CACHE_NAME_MAX 128
#define CACHE_TMP ".new-"        /* a file that is being made, where it needs a name; locked */
#define CACHE_LIMIT (4ull << 30) /* bytes on disk */

/* What cache_name() takes. Files of other names are nobody's business here. */
#define CACHE_INITRD "initrd" /* and behind it, in this order, what is in it besides: */
#define CACHE_INITRD_ROOT ".root"
#define CACHE_INITRD_FS ".fs"
#define CACHE_INITRD_PCI ".pci"
#define CACHE_INITRD_MEM ".mem"
#define CACHE_INITRD_SEED ".seed"
#define CACHE_INITRD_DEVICES ".dev"
#define CACHE_KERNEL "vmlinux"
#define CACHE_ROOTFS "rootfs"

struct cache {
	const char *path;          /* of the directory; borrowed */
	int dir;                   /* the directory */
	int tmp;                   /* the entry that is being made, or -1 */
	char tmp_name[32];         /* its name where the file system has no O_TMPFILE, or "" */
	char name[CACHE_NAME_MAX]; /* what it will be called */
	char prefix[CACHE_NAME_MAX];
	bool look;    /* cache_get() is no use: it leaves the time of access alone */
	bool replace; /* cache_commit() puts the new entry in the place of one of its name */
};

/* Open (make) the directory. It must belong to the caller, and nobody else may write to it. "":
 * there is none. `dir` must live until cache_close(). */
int cache_open(struct cache *c, const char *dir, struct err *e);
void cache_close(struct cache *c); /* also drops an unfinished entry */
void cache_name(struct cache *c, const char *kind, const struct hash *subject,
		const struct hash *key);
/* The same for an entry that has one state only, and a name of its own. */
void cache_name_is(struct cache *c, const char *name);
/* The finished entry, read-only, with a shared lock; -ENOENT if there is none. */
int cache_get(struct cache *c, int *fd, struct err *e);
/* c->tmp becomes an empty file, open for reading and writing. */
int cache_begin(struct cache *c, struct err *e);
/* Flush it, give it its name, get it as cache_get() does, remove what it replaces and what is too
 * much. c->tmp is closed either way. */
int cache_commit(struct cache *c, int *fd, struct err *e);
/* Remove entries, the least recently used first, until all have `limit` bytes together. The entry
 * that cache_name() has named stays, and so do entries in use. */
void cache_trim(struct cache *c, uint64_t limit);
/* Drop an unfinished entry. */
void cache_drop(struct cache *c);
/* Remove an entry; false: somebody uses it, or it is not there. */
bool cache_remove(const struct cache *c, const char *name);
/* The text for a failure in the directory: `what` or "". Returns `code`. */
int cache_failed(const struct cache *c, int code, const char *what, struct err *e);
/* Why a program could not write the entry, if it does not say so itself. */
bool cache_is_full(const struct cache *c);

#endif
