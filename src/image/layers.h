/* SPDX-License-Identifier: BSD-2-Clause */
/* Layers become EROFS images: runs the jailed insula-layer (insula/layer.h), and feeds it. */
#ifndef IMAGE_LAYERS_H
#define IMAGE_LAYERS_H

#include "oci.h"
#include "store.h"

struct layers_job {
	int program;                        /* insula-layer, open for reading */
	const struct oci_blob *layer;       /* the lowest first */
	const char (*diff_id)[SHA256_TEXT]; /* what they must be unpacked; NULL: not known */
	unsigned n, all;                    /* how many of them; of the image, for the progress */
	unsigned first;
	/* The nth one's blob, open for reading, the caller's. */
	int (*blob)(void *ctx, unsigned i, struct err *e);
	void *ctx;
	const struct store *store; /* says when it is enough (store_go_on()) */
	uint64_t bytes;            /* so long may the file be; -EFBIG */
	/* They become one, and nothing lies below: whiteouts take effect and are not kept. A single
	 * layer keeps them, the lowest too: its file is that of every image that has it. */
	bool merge;
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *progress_ctx;
};

/* Into c->tmp, an empty file. Each blob's length and SHA-256 are checked. -EINVAL and the like: a
 * layer is no good. */
int layers_make(const struct layers_job *j, int out, struct err *e);

#endif
