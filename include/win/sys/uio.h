/* SPDX-License-Identifier: BSD-2-Clause */
/* struct iovec, which Windows' headers do not have: POSIX, <sys/uio.h>. */
#ifndef INSULA_WIN_SYS_UIO_H
#define INSULA_WIN_SYS_UIO_H

#include <stddef.h>

struct iovec {
	void *iov_base;
	size_t iov_len;
};

#endif
