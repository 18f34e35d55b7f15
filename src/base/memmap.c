/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's memory as data. See insula/memmap.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include <insula/board.h>
#include <insula/memmap.h>

static int bad_region(struct err *e, unsigned i, const char *field, uint64_t value,
		      const char *expected)
{
	return err_set(e, -EINVAL, "memory map: region %u: %s 0x%" PRIx64 "; expected %s", i, field,
		       value, expected);
}

static int check_region(const struct mem_region *r, unsigned i, unsigned nfds, struct err *e)
{
	if (r->gpa % MEMMAP_PAGE || r->gpa >= MEMMAP_END)
		return bad_region(e, i, "gpa", r->gpa, "a multiple of 4096 below 2^52");
	if (!r->size || r->size % MEMMAP_PAGE || r->size > MEMMAP_END - r->gpa)
		return bad_region(e, i, "size", r->size,
				  "a multiple of 4096, not 0, that ends below 2^52");
	if (r->offset % MEMMAP_PAGE || r->offset > INT64_MAX - r->size)
		return bad_region(e, i, "offset", r->offset,
				  "a multiple of 4096 within a file's greatest size");
	if (r->fd >= nfds)
		return bad_region(e, i, "descriptor", r->fd, "the index of one that came along");
	if (r->flags & ~(uint32_t)MEMMAP_ADDED)
		return bad_region(e, i, "flags", r->flags, "0 or 1");
	return 0;
}

static bool same_bytes(const struct mem_region *a, const struct mem_region *b)
{
	return a->fd == b->fd && a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

int memmap_check(const struct memmap *m, unsigned nfds, struct err *e)
{
	if (m->nregions > MEMMAP_MAX || m->pad)
		return err_set(e, -EINVAL, "memory map: %u regions; expected at most %d",
			       m->nregions, MEMMAP_MAX);
	for (unsigned i = 0; i < m->nregions; i++) {
		const struct mem_region *r = &m->region[i];
		int rc = check_region(r, i, nfds, e);

		if (rc)
			return rc;
		if (i && r->gpa < r[-1].gpa + r[-1].size)
			return bad_region(e, i, "gpa", r->gpa,
					  "the end of the region before, or more");
		if (i && (r[-1].flags & MEMMAP_ADDED) && !(r->flags & MEMMAP_ADDED))
			return bad_region(e, i, "flags", r->flags, "1, as the region before has");
		for (unsigned k = 0; k < i; k++) {
			if (same_bytes(r, &m->region[k]))
				return bad_region(e, i, "offset", r->offset,
						  "bytes that no other region has");
		}
	}
	return 0;
}

void memmap_of_board(struct memmap *m, uint64_t size)
{
	uint64_t low = size < BOARD_LOW_RAM_END ? size : BOARD_LOW_RAM_END;

	memset(m, 0, sizeof(*m));
	m->region[m->nregions++] = (struct mem_region){.gpa = 0, .size = low};
	if (size > low)
		m->region[m->nregions++] = (struct mem_region){
			.gpa = BOARD_HIGH_RAM, .size = size - low, .offset = low};
}

/* Linux has blocks of 128 MiB, or of up to 2 GiB in a guest that begins with 64 GiB or more. */
void memmap_add_of_board(struct memmap *m, uint64_t size)
{
	const struct mem_region *last = &m->region[m->nregions - 1];
	uint64_t block = memmap_size(m) < BOARD_LARGE_MEM ? BOARD_MEM_BLOCK : BOARD_ADDED_ALIGN;
	uint64_t gpa = last->gpa + last->size;

	gpa = (gpa + BOARD_ADDED_ALIGN - 1) & ~(BOARD_ADDED_ALIGN - 1);
	m->region[m->nregions] = (struct mem_region){
		.gpa = gpa < BOARD_HIGH_RAM ? BOARD_HIGH_RAM : gpa,
		.size = (size + block - 1) & ~(block - 1),
		.offset = memmap_size(m),
		.flags = MEMMAP_ADDED,
	};
	m->nregions++;
}

unsigned memmap_present(const struct memmap *m)
{
	unsigned n = 0;

	while (n < m->nregions && !(m->region[n].flags & MEMMAP_ADDED))
		n++;
	return n;
}

uint64_t memmap_size(const struct memmap *m)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < m->nregions; i++)
		sum += m->region[i].size;
	return sum;
}
