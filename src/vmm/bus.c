/* SPDX-License-Identifier: BSD-2-Clause */
/* The bus. See bus.h. */
#include <errno.h>
#include <string.h>

#include "bus.h"

int bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *self,
	    struct err *e)
{
	unsigned at = 0;

	if (!len || base + (len - 1) < base)
		return err_set(e, -EINVAL, "bus: region at %#llx of %#llx bytes",
			       (unsigned long long)base, (unsigned long long)len);
	if (b->n == BUS_MAX_REGIONS)
		return err_set(e, -ENOSPC, "bus: more than %d regions", BUS_MAX_REGIONS);
	while (at < b->n && b->region[at].base < base)
		at++;
	if ((at && b->region[at - 1].base + (b->region[at - 1].len - 1) >= base) ||
	    (at < b->n && base + (len - 1) >= b->region[at].base))
		return err_set(e, -EEXIST, "bus: region at %#llx of %#llx bytes overlaps another",
			       (unsigned long long)base, (unsigned long long)len);
	memmove(&b->region[at + 1], &b->region[at], (b->n - at) * sizeof(b->region[0]));
	b->region[at] = (struct bus_region){base, len, ops, self};
	b->n++;
	return 0;
}

static const struct bus_region *bus_find(const struct bus *b, uint64_t addr, unsigned size)
{
	unsigned lo = 0, hi = b->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct bus_region *r = &b->region[mid];

		if (addr < r->base)
			hi = mid;
		else if (addr - r->base >= r->len)
			lo = mid + 1;
		else
			return size <= r->len - (addr - r->base) ? r : NULL;
	}
	return NULL;
}

bool bus_read(const struct bus *b, uint64_t addr, unsigned size, uint64_t *value,
	      struct bus_patience *w)
{
	const struct bus_region *r = bus_find(b, addr, size);

	*value = ~0ull;
	if (!r)
		return false;
	*value = r->ops->read(r->self, addr - r->base, size, w);
	return true;
}

bool bus_write(const struct bus *b, uint64_t addr, unsigned size, uint64_t value,
	       struct bus_patience *w)
{
	const struct bus_region *r = bus_find(b, addr, size);

	if (!r)
		return false;
	r->ops->write(r->self, addr - r->base, size, value, w);
	return true;
}
