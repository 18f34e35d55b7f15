/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that somebody else fills or guards: userfaultfd(2). See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#define FILLS UFFD_FEATURE_MISSING_SHMEM
/* Since Linux 5.19. */
#define GUARDS (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

int faults_open(int dev, bool *guards, struct err *e)
{
	struct uffdio_api both = {.api = UFFD_API, .features = FILLS | GUARDS};
	struct uffdio_api fills = {.api = UFFD_API, .features = FILLS};
	int fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK), rc;

	if (fd < 0)
		return err_sys(e, -errno, "userfaultfd");
	*guards = !ioctl(fd, UFFDIO_API, &both);
	if (*guards || !ioctl(fd, UFFDIO_API, &fills))
		return fd;
	rc = err_sys(e, -errno, "userfaultfd for shared memory");
	close(fd);
	return rc;
}

int faults_catch(int fd, void *at, size_t len, struct err *e)
{
	struct uffdio_register r = {.range = {.start = (uint64_t)(uintptr_t)at, .len = len},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	/* A huge page of zeros would cover pages that are still to be filled. */
	(void)madvise(at, len, MADV_NOHUGEPAGE);
	if (!ioctl(fd, UFFDIO_REGISTER, &r))
		return 0;
	return err_sys(e, -errno, "userfaultfd for shared memory");
}

/* A range that was never registered, or whose process is gone, is no matter. Linux wakes those who
 * wait for a missing page, but not those who want to write to a protected one. */
void faults_end(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range r = {.start = addr, .len = len};

	(void)ioctl(fd, UFFDIO_UNREGISTER, &r);
	(void)ioctl(fd, UFFDIO_WAKE, &r);
}
