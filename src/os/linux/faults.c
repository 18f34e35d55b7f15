/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that somebody else fills: userfaultfd(2). See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>

int faults_catch(int dev, void *at, size_t len, struct err *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
	struct uffdio_register r = {.range = {.start = (uint64_t)(uintptr_t)at, .len = len},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK), rc;

	if (fd < 0)
		return err_sys(e, -errno, "userfaultfd");
	/* A huge page of zeros would cover pages that are still to be filled. */
	(void)madvise(at, len, MADV_NOHUGEPAGE);
	if (!ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &r))
		return fd;
	rc = err_sys(e, -errno, "userfaultfd for shared memory");
	close(fd);
	return rc;
}
