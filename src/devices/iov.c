/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of segments. See iov.h. */
#include <stdint.h>
#include <string.h>

#include "iov.h"

/* One of `out` and `in` is NULL. */
static size_t iov_copy(const struct iovec *iov, unsigned n, size_t off, uint8_t *out,
		       const uint8_t *in, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part = iov[i].iov_len;
		uint8_t *at = iov[i].iov_base;

		if (off >= part) {
			off -= part;
			continue;
		}
		part = part - off < len - done ? part - off : len - done;
		if (out)
			memcpy(out + done, at + off, part);
		else
			memcpy(at + off, in + done, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t iov_get(const struct iovec *iov, unsigned n, size_t off, void *data, size_t len)
{
	return iov_copy(iov, n, off, data, NULL, len);
}

size_t iov_put(const struct iovec *iov, unsigned n, size_t off, const void *data, size_t len)
{
	return iov_copy(iov, n, off, NULL, data, len);
}

void iov_skip(struct iovec **iov, unsigned *n, size_t len)
{
	while (*n && len >= (*iov)->iov_len) {
		len -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + len;
		(*iov)->iov_len -= len;
	}
}

unsigned iov_cut(struct iovec *out, unsigned nout, const struct iovec *iov, unsigned n, size_t skip,
		 size_t max, size_t *total)
{
	unsigned k = 0;

	*total = 0;
	for (unsigned i = 0; i < n && k < nout && *total < max; i++) {
		struct iovec v = iov[i];

		if (skip >= v.iov_len) {
			skip -= v.iov_len;
			continue;
		}
		v.iov_base = (uint8_t *)v.iov_base + skip;
		v.iov_len -= skip;
		if (v.iov_len > max - *total)
			v.iov_len = max - *total;
		*total += v.iov_len;
		out[k++] = v;
		skip = 0;
	}
	return k;
}
