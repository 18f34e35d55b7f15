/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of segments (struct iovec), such as the two halves of a descriptor chain, which a driver
 * may cut wherever it likes (virtio 1.2, 2.7.4.2). Nothing is allocated. The segments are guest
 * memory: what is behind them may change at any time, so what is decided on is the copy. */
#ifndef DEVICES_IOV_H
#define DEVICES_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* Copy up to `len` bytes out of (get) or into (put) the list from byte `off` on. The number of
 * bytes: less than `len` if the list is shorter. */
size_t iov_get(const struct iovec *iov, unsigned n, size_t off, void *data, size_t len);
size_t iov_put(const struct iovec *iov, unsigned n, size_t off, const void *data, size_t len);

/* Drop the first `len` bytes: the list begins later, at a segment that is not empty. */
void iov_skip(struct iovec **iov, unsigned *n, size_t len);

/* out[] becomes what is left of iov[] after `skip` bytes: at most `max` bytes in at most `nout`
 * segments, none of them empty. The number of segments; *total is their length. out may be iov. */
unsigned iov_cut(struct iovec *out, unsigned nout, const struct iovec *iov, unsigned n, size_t skip,
		 size_t max, size_t *total);

#endif
