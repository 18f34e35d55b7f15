/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bus: address ranges and who answers them. One for ports, one for guest physical addresses.
 *
 * Filled before the first vCPU runs, read-only after that, so any vCPU thread may look up without a
 * lock.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

/*
 * How long one exit may wait, whatever number of accesses it has: 1,024 for a string instruction.
 * One per exit, zero at first; whoever has to wait sets `until` if nobody has.
 */
struct bus_patience {
	uint64_t until; /* clock_ns(); 0: nobody has waited yet */
	bool over;      /* it was in vain: the exit's other accesses do not wait, whoever answers */
};

/* Called by vCPU threads, several at once. `off` + `size` lies within the region; size is 1, 2, 4
 * or 8 (MMIO accesses of other sizes arrive as single bytes). Values are zero-extended. */
struct bus_ops {
	uint64_t (*read)(void *self, uint64_t off, unsigned size, struct bus_patience *w);
	void (*write)(void *self, uint64_t off, unsigned size, uint64_t value,
		      struct bus_patience *w);
};

struct bus_region {
	uint64_t base, len;
	const struct bus_ops *ops;
	void *self;
};

#define BUS_MAX_REGIONS 128 /* windows of all devices in one space, and the board's own */

struct bus {
	unsigned n;
	struct bus_region region[BUS_MAX_REGIONS]; /* ascending, disjoint */
};

/* -EEXIST: overlaps a region; -EINVAL: empty or wraps; -ENOSPC: full. */
int bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *self,
	    struct err *e);

/* False if no region holds the whole access; *value is all ones then. */
bool bus_read(const struct bus *b, uint64_t addr, unsigned size, uint64_t *value,
	      struct bus_patience *w);
bool bus_write(const struct bus *b, uint64_t addr, unsigned size, uint64_t value,
	       struct bus_patience *w);

#endif
