/* SPDX-License-Identifier: BSD-2-Clause */
/* openat2(2), which the C library has not got: paths that lead no further than they may. */
#ifndef OCI_RESOLVE_H
#define OCI_RESOLVE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/openat2.h>

/* `resolve`: RESOLVE_*. The descriptor, close-on-exec, or a negative errno. */
static inline int open_resolved(int at, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
	long fd = syscall(SYS_openat2, at, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

#endif
