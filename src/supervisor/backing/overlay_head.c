/* SPDX-License-Identifier: BSD-2-Clause */
/* The head of an overlay's file. See overlay_head.h. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>

#include "devices/blk/blk_overlay_start.h"
#include "overlay_head.h"

#define OVERLAY_FIRST_SAMPLES 16u /* in a row */

uint64_t overlay_sum(uint64_t sum, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ b[i]) * UINT64_C(0x100000001b3);
	return sum;
}

uint64_t overlay_sample(uint64_t size, unsigned i)
{
	uint64_t pages = size / OVERLAY_SAMPLE, last = pages ? pages - 1 : 0, page = i;

	if (i == OVERLAY_SAMPLES - 1)
		page = last;
	else if (i >= OVERLAY_FIRST_SAMPLES)
		page = pages / (OVERLAY_SAMPLES - OVERLAY_FIRST_SAMPLES) *
		       (i - OVERLAY_FIRST_SAMPLES);
	return (page < last ? page : last) * OVERLAY_SAMPLE;
}

static uint64_t head_sum(const struct overlay_head *h)
{
	return overlay_sum(OVERLAY_SUM_BEGIN, h, offsetof(struct overlay_head, head_sum));
}

void overlay_head_make(struct overlay_head *h, const struct overlay_base *b)
{
	struct overlay_layout at = overlay_layout(b->size);

	*h = (struct overlay_head){
		.version = OVERLAY_VERSION,
		.block = OVERLAY_BLOCK,
		.index_off = at.index_off,
		.data_off = at.data_off,
		.base_size = b->size,
		.base_mtime_s = b->mtime_s,
		.base_mtime_ns = b->mtime_ns,
		.base_sum = b->sum,
	};
	memcpy(h->magic, OVERLAY_MAGIC, sizeof(h->magic));
	h->head_sum = head_sum(h);
}

/* Is it a head that overlay_head_make() makes, of whichever base? */
static int check_form(const struct overlay_head *h, const char *path, struct err *e)
{
	struct overlay_layout at;

	if (memcmp(h->magic, OVERLAY_MAGIC, sizeof(h->magic)) != 0)
		return err_set(e, -EINVAL,
			       "overlay %s: something else; expected an overlay of Insula, an "
			       "empty file or none",
			       path);
	if (h->version != OVERLAY_VERSION)
		return err_set(e, -EINVAL, "overlay %s: version %u; expected %u", path, h->version,
			       OVERLAY_VERSION);
	if (h->head_sum != head_sum(h) || !h->base_size || h->base_size > OVERLAY_MOST)
		return err_set(e, -EINVAL, "overlay %s: its head is damaged", path);
	at = overlay_layout(h->base_size);
	if (h->block != OVERLAY_BLOCK || h->index_off != at.index_off ||
	    h->data_off != at.data_off || h->flags)
		return err_set(e, -EINVAL,
			       "overlay %s: blocks of %u bytes, flags %#x; expected %u and 0", path,
			       h->block, h->flags, OVERLAY_BLOCK);
	return 0;
}

int overlay_head_check(const struct overlay_head *h, const struct overlay_base *b, const char *path,
		       const char *base, struct err *e)
{
	int rc = check_form(h, path, e);

	if (rc)
		return rc;
	if (h->base_size != b->size)
		return err_set(e, -EINVAL, "overlay %s: made for a disk of %llu bytes; %s has %llu",
			       path, (unsigned long long)h->base_size, base,
			       (unsigned long long)b->size);
	if (h->base_sum != b->sum)
		return err_set(e, -EINVAL,
			       "overlay %s: made for another disk than %s: the contents differ",
			       path, base);
	if (h->base_mtime_s != b->mtime_s || h->base_mtime_ns != b->mtime_ns)
		return err_set(
			e, -EINVAL,
			"overlay %s: %s was written since the overlay was made for it; if it "
			"is a copy of the same disk: touch -d @%lld.%09u %s",
			path, base, (long long)h->base_mtime_s, h->base_mtime_ns, base);
	return 0;
}
