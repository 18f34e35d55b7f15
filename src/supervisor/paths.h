/* SPDX-License-Identifier: BSD-2-Clause */
/* Where things are: the other programs, the default kernel, the cache. */
#ifndef SUPERVISOR_PATHS_H
#define SUPERVISOR_PATHS_H

#include <limits.h>
#include <stddef.h>

#include <insula/err.h>

struct paths {
	char libexec[PATH_MAX]; /* BINDIR/../libexec/insula: insula-vmm, the helpers, insula-init,
				   busybox */
	char guest[PATH_MAX];   /* BINDIR/../guest: what `make guest` unpacked; may not exist */
	char cache[PATH_MAX];   /* image_cache_dir() */
};

/* Found by the path of the running program, so that an installed tree may be moved. */
int paths_find(struct paths *p, struct err *e);
/* The kernel to use when none is named: GUEST/boot/vmlinuz-* (the newest name), else
 * /boot/vmlinuz-$(uname -r). */
int paths_default_kernel(const struct paths *p, char *out, size_t size, struct err *e);

#endif
