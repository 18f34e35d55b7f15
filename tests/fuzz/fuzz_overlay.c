/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The head of an overlay's file, from anybody, for any base: what is taken is exactly what would
 * have been made. And where the samples of a base lie.
 *
 * 8 bytes of size, 8 and 4 of time, 8 of sum of the base; then the head. The first byte behind it
 * says whether the head's own sum is put right, without which nothing gets far.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include <devices/blk/blk_overlay_start.h>
#include <supervisor/backing/overlay_head.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static size_t take(void *p, size_t n, const uint8_t **data, size_t *size)
{
	if (n > *size)
		n = *size;
	memcpy(p, *data, n);
	*data += n;
	*size -= n;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct overlay_head h = {0}, made;
	struct overlay_base b = {0};
	struct err e;

	take(&b.size, sizeof(b.size), &data, &size);
	take(&b.mtime_s, sizeof(b.mtime_s), &data, &size);
	take(&b.mtime_ns, sizeof(b.mtime_ns), &data, &size);
	take(&b.sum, sizeof(b.sum), &data, &size);
	b.size = b.size % OVERLAY_MOST + 1;
	take(&h, sizeof(h), &data, &size);
	if (size && *data & 1)
		h.head_sum =
			overlay_sum(OVERLAY_SUM_BEGIN, &h, offsetof(struct overlay_head, head_sum));
	overlay_head_make(&made, &b);
	must(overlay_head_check(&made, &b, "o", "b", &e) == 0, "what was made is refused");
	if (overlay_head_check(&h, &b, "o", "b", &e) == 0)
		must(!memcmp(&h, &made, sizeof(h)), "a head that would not be made is taken");
	else
		must(e.text[0] && !strchr(e.text, '\n'), "a refusal is one line");
	for (unsigned i = 0; i < OVERLAY_SAMPLES; i++)
		must(overlay_sample(b.size, i) < b.size, "a sample behind the end");
	return 0;
}
