/* SPDX-License-Identifier: BSD-2-Clause */
/* Files without a name on Linux. See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>

FILE *fd_stream(int fd)
{
	int own = dup(fd);
	FILE *f = own < 0 ? NULL : fdopen(own, "w");

	if (!f)
		fd_close(&own);
	return f;
}

int memfile_create(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	return fd < 0 ? -errno : fd;
}

int memfile_seal(int *fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	int rc = fcntl(*fd, F_ADD_SEALS, seals) ? -errno : 0;

	if (rc)
		fd_close(fd);
	return rc;
}
