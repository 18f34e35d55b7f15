/* SPDX-License-Identifier: BSD-2-Clause */
/* See host.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define HOST_EVENTS_COUNT true

HOST_FN uint8_t *host_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

HOST_FN void host_free_pages(void *p, size_t size)
{
	munmap(p, size);
}

/* Pages between two that cannot be touched, of which only those cost memory that are. */
HOST_FN uint8_t *host_fenced_pages(size_t size)
{
	uint8_t *p = mmap(NULL, size + 2 * 4096, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(mprotect(p + 4096, size, PROT_READ | PROT_WRITE), 0);
	return p + 4096;
}

HOST_FN void host_free_fenced_pages(uint8_t *p, size_t size)
{
	munmap(p - 4096, size + 2 * 4096);
}

HOST_FN hv_event host_event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	ck_assert_int_ge(fd, 0);
	return fd;
}

HOST_FN void host_ring(hv_event ev)
{
	uint64_t one = 1;

	ck_assert_int_eq(write((int)ev, &one, sizeof(one)), sizeof(one));
}

/* KVM has signalled when the guest has written: nothing to wait for. */
HOST_FN uint64_t host_drain(hv_event ev, bool due)
{
	uint64_t n = 0;

	(void)due;
	return read((int)ev, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

HOST_FN void host_close(hv_event ev)
{
	close((int)ev);
}

/* NULL: it has no value from here on. */
HOST_FN void host_setenv(const char *name, const char *value)
{
	ck_assert_int_eq(value ? setenv(name, value, 1) : unsetenv(name), 0);
}

/* shm_map() of what may become shorter, and of what is shorter. */
#define HOST_NOT_SHARED (-EPERM)
#define HOST_SHORT (-EINVAL)

/* ---- files: descriptors as in insula/base.h ---- */

#define HOST_FILE_MAX (1ull << 62)
#define HOST_FILE_POSITION true /* reading at an offset leaves the descriptor's own alone */
#define HOST_NULL "/dev/null"
#define HOST_NO_FILE (-EBADF) /* file_size() of what is no descriptor */

/* A file of `size` bytes without a name that begins with `data`. */
HOST_FN int host_file(const void *data, size_t n, uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, n), (ssize_t)n);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	return fd;
}

/* A file that exists, to read. Negative: there is none. */
HOST_FN int host_open(const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* Move a descriptor's position; where it was. */
HOST_FN uint64_t host_seek(int fd, uint64_t to)
{
	off_t was = lseek(fd, 0, SEEK_CUR);

	ck_assert_int_eq(lseek(fd, (off_t)to, SEEK_SET), (off_t)to);
	return (uint64_t)was;
}

/* The end of a pipe that is read; nobody writes. */
HOST_FN int host_pipe(void)
{
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	close(p[1]);
	return p[0];
}

/* How many descriptors the process has. */
HOST_FN unsigned host_count_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}
