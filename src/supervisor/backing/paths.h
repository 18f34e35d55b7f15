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
	char own[PATHS_MAX];   /* $XDG_DATA_HOME/insula/kernel: what insula-get-kernel unpacked for
				* this user; "" for root and on Windows */
	char cache[PATHS_MAX]; /* image_cache_dir(); "": there is none, which a payload does not
				* need; Windows: "" */
};

/* Found by the path of the running program, so that an installed tree may be moved. */
int paths_find(struct paths *p, struct err *e);
#define PATHS_SYSTEM_KERNEL "/var/lib/insula/kernel" /* insula-get-kernel's, as root */

/* The kernel to use when none is named: the newest boot/vmlinuz-* in `guest`, `own` or
 * PATHS_SYSTEM_KERNEL, whichever has one first; else /boot/vmlinuz-$(uname -r). Windows:
 * GUEST\vmlinuz. */
int paths_default_kernel(const struct paths *p, char *out, size_t size, struct err *e);

#endif
