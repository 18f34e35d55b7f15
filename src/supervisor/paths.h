/* SPDX-License-Identifier: BSD-2-Clause */
/* Where things are: the other programs, the default kernel, the cache. */
#ifndef SUPERVISOR_PATHS_H
#define SUPERVISOR_PATHS_H

#include <stddef.h>

#include <insula/err.h>

#define PATHS_MAX 4096

struct paths {
	char libexec[PATHS_MAX]; /* BINDIR/../libexec/insula: insula-vmm, the helpers, insula-init,
				  * busybox; Windows: BINDIR */
	char guest[PATHS_MAX];   /* BINDIR/../guest: what `make guest` unpacked; Windows:
				  * BINDIR\guest,   what tools/windows-guest made; may not exist */
	char cache[PATHS_MAX];   /* image_cache_dir(); "": there is none, which a payload does not
				  * need; Windows: "" */
};

/* Found by the path of the running program, so that an installed tree may be moved. */
int paths_find(struct paths *p, struct err *e);
/* The kernel to use when none is named: GUEST/boot/vmlinuz-* (the newest name), else
 * /boot/vmlinuz-$(uname -r). Windows: GUEST\vmlinuz. */
int paths_default_kernel(const struct paths *p, char *out, size_t size, struct err *e);

#endif
