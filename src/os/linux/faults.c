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

int faults_open(int dev, struct err *e)
{
	/* Shared memory can be write-protected since Linux 5.19. */
	static const uint64_t features[] = {UFFD_FEATURE_MISSING_SHMEM |
						    UFFD_FEATURE_PAGEFAULT_FLAG_WP |
						    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
					    UFFD_FEATURE_MISSING_SHMEM};
	int fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK), rc;

	if (fd < 0)
		return err_sys(e, -errno, "userfaultfd");
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		struct uffdio_api api = {.api = UFFD_API, .features = features[i]};

		if (!ioctl(fd, UFFDIO_API, &api))
			return fd;
	}
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

/* A range that was never registered, or whose process is gone, is no matter. */
void faults_end(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range r = {.start = addr, .len = len};

	(void)ioctl(fd, UFFDIO_UNREGISTER, &r);
}
