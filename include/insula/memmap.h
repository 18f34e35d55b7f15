/*
 * The memory map: where the guest's memory is, as data.
 *
 * A map is an array of regions. Each region says which bytes of which descriptor the guest sees at
 * which guest physical address. The supervisor makes the map of a VM once, when it has made the
 * memory, and every process that works in guest memory gets it in its start message, next to the
 * descriptors: insula-vmm gives the regions to the hypervisor, a helper maps them and nothing else.
 * A process that has no business in guest memory (the console) gets a map without regions and no
 * descriptor. So no process but the supervisor knows how large a guest is or where its memory lies;
 * a second file, a hole in another place or memory that is added later is another map, not another
 * program.
 *
 *        gpa  0             BOARD_LOW_RAM_END    BOARD_HIGH_RAM
 *             |  region 0  |        hole        |  region 1  |
 *   descriptor 0: offset 0  size of region 0      offset of region 1 = size of region 0
 *
 * A receiver believes nothing of a map before memmap_check() has passed it, once; gm_map() calls
 * it. What cannot be seen in the map itself (is the file that long? is it sealed?) is seen when the
 * region is mapped.
 */
#ifndef INSULA_MEMMAP_H
#define INSULA_MEMMAP_H

#include <stdint.h>

#include <insula/err.h>

#define MEMMAP_MAX 8      /* regions */
#define MEMMAP_PAGE 4096u /* what gpa, size and offset are multiples of */
#define MEMMAP_BLOCK (2ull << 20)
#define MEMMAP_MAX_BLOCKS 32768u
#define MEMMAP_END (1ull << 52) /* no guest physical address reaches it (x86-64) */

enum mem_flags {
	/* Not there when the guest begins: what of it is the guest's is a device's to say
	 * (insula-mem). The regions that have it are the last ones. */
	MEMMAP_ADDED = 1,
};

/* 32 bytes on the wire. */
struct mem_region {
	uint64_t gpa;
	uint64_t size;   /* bytes, not 0 */
	uint64_t offset; /* in the descriptor's file */
	uint32_t fd;     /* index among the descriptors of guest memory that came along */
	uint32_t flags;  /* enum mem_flags. Memory that the guest reads and writes */
};
_Static_assert(sizeof(struct mem_region) == 32, "wire size");

struct memmap {
	uint32_t nregions; /* 0..MEMMAP_MAX; ascending by gpa, disjoint */
	uint32_t pad;      /* 0 */
	struct mem_region region[MEMMAP_MAX];
};
_Static_assert(sizeof(struct memmap) == 8 + MEMMAP_MAX * 32, "wire size");

/* Can it be obeyed, by one who has `nfds` descriptors of memory? 0, or -EINVAL and a line that
 * names the region, the field, its value and what was expected: a count or an index out of range, a
 * size of 0, what is no multiple of a page, sums that overflow, regions that overlap in the guest
 * or descend, two regions on the same bytes of a descriptor, an unknown flag. */
int memmap_check(const struct memmap *m, unsigned nfds, struct err *e);

/* The map of the board (board.h) with `size` bytes of memory, all in descriptor 0: up to
 * BOARD_LOW_RAM_END at 0, the rest from BOARD_HIGH_RAM on. */
void memmap_of_board(struct memmap *m, uint64_t size);
/* A region for `size` bytes more that the guest may get later (MEMMAP_ADDED), behind all others in
 * both the guest and descriptor 0. It begins where Linux's blocks of memory do, and ends there, so
 * it may be larger. */
void memmap_add_of_board(struct memmap *m, uint64_t size);
/* The bytes that such a region is plugged and unplugged in: MEMMAP_BLOCK, or as many times two as
 * MEMMAP_MAX_BLOCKS of them need. */
static inline uint64_t memmap_block(uint64_t size)
{
	uint64_t block = MEMMAP_BLOCK;

	while (size / block > MEMMAP_MAX_BLOCKS)
		block *= 2;
	return block;
}
/* How many regions are there when the guest begins. */
unsigned memmap_present(const struct memmap *m);
/* Bytes of all regions: of descriptor 0 in a map of the board. */
uint64_t memmap_size(const struct memmap *m);

#endif
