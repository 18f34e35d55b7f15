/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors, events, sealed shared memory, clocks, whole reads and writes. See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

void fd_close(int *fd)
{
	int keep = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = keep;
}

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int event_create(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void event_signal(int fd)
{
	uint64_t one = 1;
	/* EAGAIN means that the counter is full: it is signalled. */
	ssize_t r = write(fd, &one, sizeof(one));
	(void)r;
}

uint64_t event_drain(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) ? n : 0;
}

int shm_create(const char *name, uint64_t size, struct err *e)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return err_sys(e, -errno, "memfd_create(%s)", name);
	if (ftruncate(fd, (off_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		int r = -errno;
		close(fd);
		return err_sys(e, r, "shared memory %s of %llu bytes", name,
			       (unsigned long long)size);
	}
	return fd;
}

#define HUGE_PAGE (2ul << 20)

/* Guest memory can only be huge pages where host and guest addresses agree modulo 2 MiB: reserve
 * more, keep the aligned part. */
static void *aligned_place(size_t len)
{
	uint8_t *p, *at;

	if (len < HUGE_PAGE)
		return NULL;
	p = mmap(NULL, len + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	if (p == MAP_FAILED)
		return NULL;
	at = (uint8_t *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (at > p)
		munmap(p, (size_t)(at - p));
	munmap(at + len, HUGE_PAGE - (size_t)(at - p));
	return at;
}

int shm_map(int fd, uint64_t size, uint64_t off, size_t len, bool writable, void **out,
	    struct err *e)
{
	const int need = F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	void *p, *at;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & need) != need)
		return err_set(e, -EPERM, "shared memory is not sealed against resizing");
	if (fstat(fd, &st))
		return err_sys(e, -errno, "fstat of shared memory");
	if ((uint64_t)st.st_size != size || off > size || len > size - off)
		return err_set(e, -EINVAL, "shared memory has %lld bytes, expected %llu",
			       (long long)st.st_size, (unsigned long long)size);
	at = aligned_place(len);
	p = mmap(at, len, writable ? PROT_READ | PROT_WRITE : PROT_READ,
		 MAP_SHARED | (at ? MAP_FIXED : 0), fd, (off_t)off);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "mmap of %zu bytes of shared memory", len);
	*out = p;
	return 0;
}

int read_full(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t r = pread(fd, p, len, (off_t)off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -ENODATA;
		p += r;
		off += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

int write_full(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t r = write(fd, p, len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		len -= (size_t)r;
	}
	return 0;
}
