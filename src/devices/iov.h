/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of segments (struct iovec), such as the two halves of a descriptor chain, which a driver
 * may cut wherever it likes (virtio 1.2, 2.7.4.2). Nothing is allocated. */
#ifndef DEVICES_IOV_H
#define DEVICES_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* out[] becomes what is left of iov[] after `skip` bytes: at most `max` bytes in at most `n`
 * segments, none of them empty. The number of segments; *total is their length. out may be iov. */
int iov_cut(struct iovec *out, int n, const struct iovec *iov, int niov, size_t skip, size_t max,
	    size_t *total);

/* Copy between `data` and the first `len` bytes of iov[]. The number of bytes: less than `len` if
 * iov[] is shorter. */
size_t iov_put(const struct iovec *iov, int niov, const void *data, size_t len);
size_t iov_get(const struct iovec *iov, int niov, void *data, size_t len);

#endif
