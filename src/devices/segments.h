/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes at an offset of a vector of segments. The segments are guest memory: what is behind them
 * may change at any time, so what is decided on is the copy. */
#ifndef DEVICES_SEGMENTS_H
#define DEVICES_SEGMENTS_H

#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

/* Copy up to `len` bytes out of (`out`) or into (`in`) the vector from `off` on; one of the two is
 * NULL. The number of bytes that there were. */
static inline size_t seg_copy(const struct iovec *iov, unsigned n, size_t off, void *out,
			      const void *in, size_t len)
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
			memcpy((uint8_t *)out + done, at + off, part);
		else
			memcpy(at + off, (const uint8_t *)in + done, part);
		done += part;
		off = 0;
	}
	return done;
}

static inline size_t seg_get(const struct iovec *iov, unsigned n, size_t off, void *out, size_t len)
{
	return seg_copy(iov, n, off, out, NULL, len);
}

static inline size_t seg_put(const struct iovec *iov, unsigned n, size_t off, const void *in,
			     size_t len)
{
	return seg_copy(iov, n, off, NULL, in, len);
}

/* Leave out the first `len` bytes: segments that are used up become empty. */
static inline void seg_skip(struct iovec *iov, unsigned n, size_t len)
{
	for (unsigned i = 0; i < n && len; i++) {
		size_t part = iov[i].iov_len < len ? iov[i].iov_len : len;

		iov[i].iov_base = (uint8_t *)iov[i].iov_base + part;
		iov[i].iov_len -= part;
		len -= part;
	}
}

#endif
