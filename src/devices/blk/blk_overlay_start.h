/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where everything is in the file of a copy-on-write disk, and in the memory that its helpers
 * share. docs/overlay.md describes the file.
 *
 * All of it follows from the capacity, so a helper takes nothing from the file that could lead it
 * astray: a bit of the index is set or not, and both are good.
 */
#ifndef DEVICES_BLK_OVERLAY_START_H
#define DEVICES_BLK_OVERLAY_START_H

#include <stdint.h>

#define OVERLAY_BLOCK 4096u               /* what is in the overlay or in the base as a whole */
#define OVERLAY_PAGE 4096u                /* of the index: written at once */
#define OVERLAY_HEAD 4096u                /* before the index */
#define OVERLAY_ALIGN (UINT64_C(1) << 20) /* of the data */
#define OVERLAY_MOST (UINT64_C(1) << 46)  /* bytes of a disk: the index is 2 GiB then */

struct overlay_layout {
	uint64_t blocks;
	uint64_t pages;                /* of the index */
	uint64_t index_off, index_len; /* in the file; one bit for each block, the lowest first */
	uint64_t data_off;             /* block i is at data_off + i * OVERLAY_BLOCK */
	uint64_t size;                 /* of the file */
	uint64_t flags_off, live_off;  /* in the memory: a byte for each page; the index */
	uint64_t memory;               /* bytes of it */
};

static inline uint64_t overlay_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* Of a disk of `capacity` bytes: 1 to OVERLAY_MOST. */
static inline struct overlay_layout overlay_layout(uint64_t capacity)
{
	struct overlay_layout a = {0};

	a.blocks = overlay_up(capacity, OVERLAY_BLOCK) / OVERLAY_BLOCK;
	a.index_off = OVERLAY_HEAD;
	a.index_len = overlay_up(overlay_up(a.blocks, 8) / 8, OVERLAY_PAGE);
	a.pages = a.index_len / OVERLAY_PAGE;
	a.data_off = overlay_up(a.index_off + a.index_len, OVERLAY_ALIGN);
	a.size = a.data_off + a.blocks * OVERLAY_BLOCK;
	a.flags_off = OVERLAY_PAGE;
	a.live_off = a.flags_off + overlay_up(a.pages, OVERLAY_PAGE);
	a.memory = a.live_off + a.index_len;
	return a;
}

#endif
