/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors, events, sealed shared memory, clocks, whole reads and writes. See insula/base.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/guestmem.h>

void fd_close(int *fd)
{
	int keep = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = keep;
}

void fd_occupy_standard(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int fd_copy(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool several_cpus(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

/* ---- events and words ---- */

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

bool event_pending(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

uint64_t events_wait(const int *event, unsigned n, int channel, int timeout_ms)
{
	struct pollfd p[EVENTS_MAX + 1];
	uint64_t got = 0;

	if (n > EVENTS_MAX)
		panic("%u events to wait for", n);
	p[0] = (struct pollfd){.fd = channel, .events = POLLIN}; /* -1 is passed over */
	for (unsigned i = 0; i < n; i++)
		p[1 + i] = (struct pollfd){.fd = event[i], .events = POLLIN};
	if (poll(p, 1 + n, timeout_ms) <= 0)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		if (!p[1 + i].revents)
			continue;
		event_drain(event[i]);
		got |= UINT64_C(1) << i;
	}
	return p[0].revents ? got | EVENTS_CHANNEL : got;
}

void word_wait(_Atomic uint32_t *word, uint32_t seen)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void word_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void word_wait_shared(_Atomic uint32_t *word, uint32_t seen, int event, uint64_t timeout_ns)
{
	struct timespec ts = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};

	(void)event;
	syscall(SYS_futex, word, FUTEX_WAIT, seen, &ts, NULL, 0);
}

void word_wake_shared(_Atomic uint32_t *word, int event)
{
	(void)event;
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

unsigned word_events(void)
{
	return 0;
}

size_t random_bytes(void *buf, size_t n)
{
	ssize_t got;

	do
		got = getrandom(buf, n, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		panic("getrandom: %d", errno);
	return (size_t)got;
}

int stderr_fd(void)
{
	return STDERR_FILENO;
}

void stderr_write(const char *text, size_t len)
{
	/* A log that cannot be written has nowhere to complain. */
	ssize_t r = write(STDERR_FILENO, text, len);
	(void)r;
}

void stderr_write_all(const char *text, size_t len)
{
	struct pollfd p = {STDERR_FILENO, POLLOUT, 0};

	while (len) {
		ssize_t r = write(STDERR_FILENO, text, len);

		/* Whoever else has this open file may have asked it not to block. */
		if (r < 0 && errno == EAGAIN)
			poll(&p, 1, -1);
		else if (r < 0 && errno != EINTR)
			return;
		text += r > 0 ? r : 0;
		len -= r > 0 ? (size_t)r : 0;
	}
}

/* ---- memory ---- */

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
	uint64_t have;
	void *p, *at;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & need) != need)
		return err_set(e, -EPERM, "shared memory is not sealed against resizing");
	if (fstat(fd, &st))
		return err_sys(e, -errno, "fstat of shared memory");
	have = (uint64_t)st.st_size;
	if ((size && have != size) || off > have || len > have - off)
		return err_set(e, -EINVAL, "shared memory has %llu bytes, expected %llu",
			       (unsigned long long)have,
			       (unsigned long long)(size ? size : off + len));
	at = aligned_place(len);
	p = mmap(at, len, writable ? PROT_READ | PROT_WRITE : PROT_READ,
		 MAP_SHARED | (at ? MAP_FIXED : 0), fd, (off_t)off);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "mmap of %zu bytes of shared memory", len);
	*out = p;
	return 0;
}

int device_map(int fd, uint64_t off, size_t len, void **out, struct err *e)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);

	if (p == MAP_FAILED)
		return err_sys(e, -errno, "mmap of %zu bytes of a device", len);
	*out = p;
	return 0;
}

int device_room(size_t size, void **out, struct err *e)
{
	char *p =
		mmap(NULL, 3 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return err_sys(e, -errno, "%zu bytes of address space", 3 * size);
	*out = p + (-(uintptr_t)p & (size - 1));
	return 0;
}

int device_map_at(int fd, uint64_t off, size_t len, void *at, struct err *e)
{
	if (mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)off) ==
	    MAP_FAILED)
		return err_sys(e, -errno, "mmap of %zu bytes of a device", len);
	return 0;
}

int device_unmap(void *at, size_t len, struct err *e)
{
	if (mmap(at, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		return err_sys(e, -errno, "%zu bytes of a device cannot be unmapped", len);
	return 0;
}

/* mremap() of nothing of a shared mapping makes another one of it: mremap(2), "old_size". */
void *shm_join(void *const map[], unsigned n, size_t len)
{
	char *at =
		mmap(NULL, n * len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	for (unsigned i = 0; i < n; i++) {
		if (mremap(map[i], 0, len, MREMAP_MAYMOVE | MREMAP_FIXED, at + i * len) ==
		    MAP_FAILED) {
			munmap(at, n * len);
			return NULL;
		}
	}
	return at;
}

void shm_unmap(void *at, size_t len)
{
	munmap(at, len);
}

void shm_is_guest(void *at, size_t len)
{
	/* Guest memory in a core dump or in a child would be a leak. */
	(void)madvise(at, len, MADV_DONTDUMP);
	/* Where the host allows it for shared memory (transparent_hugepage/shmem_enabled = advise).
	 */
	(void)madvise(at, len, MADV_HUGEPAGE);
}

int shm_collapse(void *at, size_t len)
{
	const volatile uint8_t *p = at;

	/* Linux collapses only what has a page table. */
	for (size_t off = 0; off < len; off += GM_HUGE_PAGE)
		(void)p[off];
	return madvise(at, len, GM_ADVICE) ? -errno : 0;
}

void *reserve_memory(size_t len, bool writable)
{
	void *p = mmap(NULL, len, writable ? PROT_READ | PROT_WRITE : PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Where transparent_hugepage/enabled is "always", the first byte would take 2 MiB. */
	(void)madvise(p, len, MADV_NOHUGEPAGE);
	return p;
}

/* ---- files ---- */

int file_size(int fd, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*size = (uint64_t)st.st_size;
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

int write_full_at(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t r = pwrite(fd, p, len, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -EIO;
		p += r;
		off += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

int file_sync(int fd)
{
	return fsync(fd) ? -errno : 0;
}

int shm_read(int fd, void *buf, size_t len, uint64_t off)
{
	return read_full(fd, buf, len, off);
}

int shm_write(int fd, const void *buf, size_t len, uint64_t off)
{
	return write_full_at(fd, buf, len, off);
}

uint64_t shm_data(int fd, uint64_t from, uint64_t size)
{
	off_t at = lseek(fd, (off_t)from, SEEK_DATA);

	return at < 0 ? (errno == ENXIO ? size : from) : (uint64_t)at;
}
