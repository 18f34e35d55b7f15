/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The head of an overlay's file: docs/overlay.md. It says what the file is, and of which base.
 *
 * The file may be anybody's. Nothing in the head is followed: each field has one value that this
 * version takes, for this base, and what differs is refused.
 */
#ifndef SUPERVISOR_OVERLAY_HEAD_H
#define SUPERVISOR_OVERLAY_HEAD_H

#include <stdint.h>

#include <insula/err.h>

#define OVERLAY_MAGIC "INSULAOV"
#define OVERLAY_VERSION 1u

/* Little endian; the rest of OVERLAY_HEAD bytes are zeros. */
struct overlay_head {
	uint8_t magic[8];
	uint32_t version;
	uint32_t block;     /* OVERLAY_BLOCK */
	uint64_t index_off; /* as overlay_layout() says, of base_size */
	uint64_t data_off;
	uint64_t base_size;   /* bytes */
	int64_t base_mtime_s; /* of a file: when it was written last; of a block device 0 */
	uint32_t base_mtime_ns;
	uint32_t flags;    /* 0 */
	uint64_t base_sum; /* of samples of the base: overlay_sample() */
	uint64_t head_sum; /* overlay_sum() of all that is before it */
};
_Static_assert(sizeof(struct overlay_head) == 72, "no holes, and the same everywhere");

/* What is known of a base. */
struct overlay_base {
	uint64_t size;
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint64_t sum;
};

#define OVERLAY_SUM_BEGIN UINT64_C(0xcbf29ce484222325)
#define OVERLAY_SAMPLE 4096u /* bytes of a sample, at most */
#define OVERLAY_SAMPLES 81u

/* FNV-1a, 64 bits, going on from `sum`: against mistakes, not against somebody who wants two bases
 * to be taken for one. */
uint64_t overlay_sum(uint64_t sum, const void *p, size_t n);
/* Where sample i (below OVERLAY_SAMPLES) of a base of `size` bytes begins: the first 64 KiB, then
 * all over it, and its end. Short at the end of a small base; the same place may come twice. */
uint64_t overlay_sample(uint64_t size, unsigned i);

void overlay_head_make(struct overlay_head *h, const struct overlay_base *b);
/* -EINVAL: it is no overlay, or not of this base, and *e says so in words. `path` and `base` are
 * for them. */
int overlay_head_check(const struct overlay_head *h, const struct overlay_base *b, const char *path,
		       const char *base, struct err *e);

#endif
