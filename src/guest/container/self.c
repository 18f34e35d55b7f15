/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: runs from a sealed copy of itself.
 *
 * A process that is about to become a container's has this program as its /proc/PID/exe, and an
 * image whose entry point begins with "#!/proc/self/exe" runs it once more, inside. Root of the
 * container could write to the file through that link as soon as nobody executes it, and the
 * machine would run what it has written. A memfd with all seals cannot be written to.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "container.h"

#define ALL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int copy_self(int from)
{
	int fd = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ssize_t n = fd < 0 ? -1 : 1;

	while (n > 0)
		n = sendfile(fd, from, NULL, 1u << 20);
	if (n == 0 && fcntl(fd, F_ADD_SEALS, ALL_SEALS) == 0)
		return fd;
	n = -errno;
	if (fd >= 0)
		close(fd);
	return (int)n;
}

int self_seal(char **argv, struct err *e)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), copy, seals;
	char path[FD_PATH_MAX];

	if (self < 0)
		return err_sys(e, -errno, "/proc/self/exe");
	seals = fcntl(self, F_GET_SEALS);
	if (seals >= 0 && (seals & ALL_SEALS) == ALL_SEALS) {
		close(self);
		return 0;
	}
	copy = copy_self(self);
	close(self);
	if (copy < 0)
		return err_sys(e, copy, "a sealed copy of this program");
	execve(fd_path(copy, path), argv, environ);
	return err_sys(e, -errno, "run a sealed copy of this program");
}
