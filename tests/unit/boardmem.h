/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory as the board lays it out, for tests. */
#ifndef TESTS_BOARDMEM_H
#define TESTS_BOARDMEM_H

#include <insula/guestmem.h>

static inline struct memmap board_map(uint64_t size)
{
	struct memmap m;

	memmap_of_board(&m, size);
	return m;
}

/* gm_map() of `size` bytes in one descriptor. */
static inline int board_gm_map(struct guestmem *gm, int fd, uint64_t size, struct err *e)
{
	struct memmap m = board_map(size);

	return gm_map(gm, &m, &fd, 1, e);
}

#endif
