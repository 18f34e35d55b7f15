/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of segments. See iov.h. */
#include <stdint.h>
#include <string.h>

#include "iov.h"

int iov_cut(struct iovec *out, int n, const struct iovec *iov, int niov, size_t skip, size_t max,
	    size_t *total)
{
	int k = 0;

	*total = 0;
	for (int i = 0; i < niov && k < n && *total < max; i++) {
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

size_t iov_put(const struct iovec *iov, int niov, const void *data, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < niov && done < len; i++) {
		size_t k = iov[i].iov_len < len - done ? iov[i].iov_len : len - done;

		memcpy(iov[i].iov_base, (const uint8_t *)data + done, k);
		done += k;
	}
	return done;
}

size_t iov_get(const struct iovec *iov, int niov, void *data, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < niov && done < len; i++) {
		size_t k = iov[i].iov_len < len - done ? iov[i].iov_len : len - done;

		memcpy((uint8_t *)data + done, iov[i].iov_base, k);
		done += k;
	}
	return done;
}
