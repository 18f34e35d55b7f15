/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest physical memory. See insula/guestmem.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/guestmem.h>

static int map_region(struct guestmem *gm, int memfd, uint64_t total, gpa_t gpa, uint64_t off,
		      uint64_t size, struct err *e)
{
	struct gm_region *r = &gm->region[gm->nregions];
	void *host;
	int rc = shm_map(memfd, total, off, size, true, &host, e);

	if (rc)
		return rc;
	shm_is_guest(host, size);
	*r = (struct gm_region){.gpa = gpa, .size = size, .host = host};
	gm->nregions++;
	return 0;
}

int gm_map(struct guestmem *gm, int memfd, uint64_t size, struct err *e)
{
	uint64_t low = size < BOARD_LOW_RAM_END ? size : BOARD_LOW_RAM_END;
	int rc;

	memset(gm, 0, sizeof(*gm));
	if (size < BOARD_MIN_MEM || size > BOARD_MAX_MEM || size % BOARD_PAGE)
		return err_set(e, -EINVAL, "guest memory of %llu bytes", (unsigned long long)size);
	rc = map_region(gm, memfd, size, 0, 0, low, e);
	if (!rc && size > low)
		rc = map_region(gm, memfd, size, BOARD_HIGH_RAM, low, size - low, e);
	if (rc)
		gm_unmap(gm);
	return rc;
}

void gm_unmap(struct guestmem *gm)
{
	for (unsigned i = 0; i < gm->nregions; i++)
		shm_unmap(gm->region[i].host, gm->region[i].size);
	memset(gm, 0, sizeof(*gm));
}

int gm_collapse(const struct guestmem *gm, gpa_t from, gpa_t to)
{
	void *host;

	from = (from + GM_HUGE_PAGE - 1) & ~(GM_HUGE_PAGE - 1);
	to &= ~(GM_HUGE_PAGE - 1);
	host = from < to ? gm_ptr(gm, from, to - from) : NULL;
	return host ? shm_collapse(host, to - from) : 0;
}

void *gm_ptr(const struct guestmem *gm, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < gm->nregions && len; i++) {
		const struct gm_region *r = &gm->region[i];
		uint64_t off = gpa - r->gpa;

		if (gpa >= r->gpa && off < r->size && len <= r->size - off)
			return r->host + off;
	}
	return NULL;
}
