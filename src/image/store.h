/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where images are kept: a directory of files, each of which is complete or not there (cache.h).
 *
 *   layer-v2-HEX  the EROFS image of the layer whose blob has this SHA-256, with its whiteouts
 *   merged-HEX    of several layers, the lowest ones of an image; the hash of their digests in turn
 *   image-HEX     a record: the layers and the configuration of the image whose manifest has this
 *                 SHA-256 (oci_record()). Its time of access is the last use
 *   ref-HASH      what a reference named when it was last looked up: a JSON object
 *   lock          a byte for each of them, by a hash of the name: whoever makes one holds its lock
 *   .pull-XXXXXX  what skopeo is fetching; locked as long as its maker lives
 *
 * Whoever uses an image holds shared locks on its record and its layers. Eviction takes the record
 * of the image that has not been used for the longest time, then the layers that no record names.
 */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "cache.h"
#include "oci.h"

#define STORE_NAME_MAX CACHE_NAME_MAX

struct store {
	struct cache cache;
	int lock;
	unsigned seconds; /* for the whole of an image, which end then; 0: any time */
	uint64_t end_ns;
};

int store_open(struct store *s, const char *dir, struct err *e);
void store_close(struct store *s);

void store_layer_name(const struct oci_blob *b, char out[STORE_NAME_MAX]);
/* Of the `n` lowest layers as one. */
void store_merged_name(const struct oci_manifest *m, unsigned n, char out[STORE_NAME_MAX]);
void store_image_name(const char *hex, char out[STORE_NAME_MAX]);
void store_ref_name(const char *reference, char out[STORE_NAME_MAX]);

/* Nobody else makes what has this name; waits for whoever does, at most until the clock's end. After
 * 2 s a line says so. */
int store_lock(const struct store *s, const char *name, struct err *e);
void store_unlock(const struct store *s, const char *name);

/* As cache_get(). */
int store_get(struct store *s, const char *name, int *fd, struct err *e);
/* A whole small file, the caller's, and the descriptor that keeps it (NULL: it need not be kept).
 * -ENOENT: there is none. */
int store_read(struct store *s, const char *name, char **text, size_t *len, int *hold,
	       struct err *e);
/* Make or replace one. *hold as above. */
int store_write(struct store *s, const char *name, const char *text, int *hold, struct err *e);

struct store_ref {
	char reference[1100], hex[SHA256_TEXT];
	char state[64]; /* of the file that it names; "" */
};
int store_ref_read(struct store *s, const char *reference, struct store_ref *out, struct err *e);
int store_ref_write(struct store *s, const struct store_ref *r, struct err *e);

/* A directory for skopeo: its name in the store, and a descriptor whose lock keeps it. */
int store_pull_begin(struct store *s, char name[32], int *hold, struct err *e);
void store_pull_end(struct store *s, const char *name, int *hold);

/* Bytes of all images together: INSULA_IMAGE_LIMIT in the environment, else 20 GiB. */
int store_limit(uint64_t *out, struct err *e);
/* Bytes of one image, its files as long as they say: INSULA_IMAGE_MAX, else 80 GiB. */
int store_image_max(uint64_t *out, struct err *e);
/* An hour from now on, or INSULA_IMAGE_TIMEOUT. */
int store_start_clock(struct store *s, struct err *e);
/* May more be made now? -ETIMEDOUT; -ENOSPC: the file system has less than 1 GiB free, or, where
 * that is less, 5 % of it. */
int store_go_on(const struct store *s, struct err *e);
/* The same for a program that has failed with `rc`, which is the reason if there is no other. */
int store_reason(const struct store *s, int rc, struct err *e);

struct store_image {
	char hex[SHA256_TEXT];
	uint64_t bytes;        /* of its layers, those that it shares too */
	uint64_t used;         /* seconds since 1970 */
	bool in_use, complete; /* a VM holds it; all layers are there */
	unsigned nrefs;
	char **ref;
};
struct store_list {
	size_t n;
	struct store_image *image; /* the last used first */
};
int store_images(struct store *s, struct store_list *out, struct err *e);
void store_list_free(struct store_list *l);

/* Remove an image and the layers that no other one names. -EBUSY: a VM uses it. */
int store_remove(struct store *s, const char *hex, struct err *e);
/* Remove what nobody names, and images until all have `limit` bytes together. *bytes: what that
 * freed; NULL: it is of no interest. `keep`: the image that stays; NULL: none. */
int store_trim(struct store *s, uint64_t limit, const char *keep, uint64_t *bytes, struct err *e);

#endif
