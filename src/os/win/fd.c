/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handles, events, sections, clocks, files of Windows. See insula/base.h.
 *
 * Whatever is made here can be inherited: the supervisor names the handles that a child gets one by
 * one (child_win.c), and no other process may make children.
 */
#include "os/win/win.h"

#include <bcrypt.h>
#include <errno.h>
#include <string.h>

#include <insula/base.h>

int win_errno(DWORD error)
{
	static const struct {
		DWORD error;
		int code;
	} table[] = {
		{ERROR_FILE_NOT_FOUND, -ENOENT},
		{ERROR_PATH_NOT_FOUND, -ENOENT},
		{ERROR_ACCESS_DENIED, -EACCES},
		{ERROR_INVALID_HANDLE, -EBADF},
		{ERROR_NOT_ENOUGH_MEMORY, -ENOMEM},
		{ERROR_OUTOFMEMORY, -ENOMEM},
		{ERROR_COMMITMENT_LIMIT, -ENOMEM},
		{ERROR_SHARING_VIOLATION, -EBUSY},
		{ERROR_LOCK_VIOLATION, -EBUSY},
		{ERROR_INVALID_PARAMETER, -EINVAL},
		{ERROR_INVALID_NAME, -EINVAL},
		{ERROR_NOT_SUPPORTED, -EOPNOTSUPP},
		{ERROR_INVALID_FUNCTION, -EOPNOTSUPP},
		{ERROR_DISK_FULL, -ENOSPC},
		{ERROR_HANDLE_DISK_FULL, -ENOSPC},
		{ERROR_BROKEN_PIPE, -EPIPE},
		{ERROR_PIPE_NOT_CONNECTED, -EPIPE},
		{ERROR_NO_DATA, -EPIPE},
		{ERROR_WRITE_PROTECT, -EROFS},
		{ERROR_HANDLE_EOF, -ENODATA},
		{ERROR_PIPE_BUSY, -EBUSY},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].error == error)
			return table[i].code;
	}
	return -EIO;
}

static SECURITY_ATTRIBUTES inherited(void)
{
	return (SECURITY_ATTRIBUTES){.nLength = sizeof(SECURITY_ATTRIBUTES),
				     .bInheritHandle = TRUE};
}

void fd_close(int *fd)
{
	DWORD keep = GetLastError();

	if (*fd >= 0)
		CloseHandle(fd_handle(*fd));
	*fd = -1;
	SetLastError(keep);
}

int fd_copy(int fd)
{
	HANDLE copy;

	return DuplicateHandle(GetCurrentProcess(), fd_handle(fd), GetCurrentProcess(), &copy, 0,
			       FALSE, DUPLICATE_SAME_ACCESS)
		       ? handle_fd(copy)
		       : -1;
}

uint64_t clock_ns(void)
{
	const uint64_t second = 1000000000u;
	LARGE_INTEGER f, t;
	uint64_t freq, count;

	QueryPerformanceFrequency(&f);
	QueryPerformanceCounter(&t);
	freq = (uint64_t)f.QuadPart;
	count = (uint64_t)t.QuadPart;
	return count / freq * second + count % freq * second / freq;
}

bool several_cpus(void)
{
	DWORD_PTR mine, all;

	return GetProcessAffinityMask(GetCurrentProcess(), &mine, &all) && (mine & (mine - 1));
}

/* ---- events and words ---- */

int event_create(void)
{
	SECURITY_ATTRIBUTES sa = inherited();
	HANDLE h = CreateEventExW(&sa, NULL, 0, SYNCHRONIZE | EVENT_MODIFY_STATE);

	return h ? handle_fd(h) : win_errno(GetLastError());
}

void event_signal(int fd)
{
	SetEvent(fd_handle(fd));
}

uint64_t event_drain(int fd)
{
	return WaitForSingleObject(fd_handle(fd), 0) == WAIT_OBJECT_0;
}

/* There is no way to look that takes nothing. Whoever waits for it meanwhile is woken by this. */
bool event_pending(int fd)
{
	bool was = event_drain(fd);

	if (was)
		event_signal(fd);
	return was;
}

_Static_assert(EVENTS_MAX + 1 < MAXIMUM_WAIT_OBJECTS, "one wait for all of them");

uint64_t events_wait(const int *event, unsigned n, int channel, int timeout_ms)
{
	DWORD total = n + (channel >= 0), ms = timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms, r;
	HANDLE h[EVENTS_MAX + 1];
	uint64_t got = 0;

	if (n > EVENTS_MAX || (channel >= 0 && channel != MSG_CHANNEL_FD))
		panic("%u events and channel %d to wait for", n, channel);
	if (!total) {
		Sleep(ms);
		return 0;
	}
	for (unsigned i = 0; i < n; i++)
		h[i] = fd_handle(event[i]);
	h[n] = channel >= 0 ? channel_event(channel_own()) : NULL;
	/* Completion routines run here (vsock_host_win.c), and end the wait for no reason. */
	r = WaitForMultipleObjectsEx(total, h, FALSE, ms, TRUE);
	if (r == WAIT_FAILED)
		panic("wait for %lu handles: error %lu", total, GetLastError());
	if (r >= total)
		return 0;
	/* The wait has reset the event that ended it; the others are looked at one by one. */
	if (r < n)
		got = UINT64_C(1) << r;
	for (unsigned i = r + 1; i < n; i++)
		got |= event_drain(event[i]) << i;
	if (h[n] && channel >= 0 && WaitForSingleObject(h[n], 0) == WAIT_OBJECT_0)
		got |= EVENTS_CHANNEL;
	return got;
}

void word_wait(_Atomic uint32_t *word, uint32_t seen)
{
	WaitOnAddress(word, &seen, sizeof(seen), INFINITE);
}

void word_wake(_Atomic uint32_t *word)
{
	WakeByAddressAll((void *)word);
}

void word_wait_shared(_Atomic uint32_t *word, uint32_t seen, int event, uint64_t timeout_ns)
{
	if (atomic_load(word) == seen)
		WaitForSingleObject(fd_handle(event), (DWORD)(timeout_ns / 1000000u) + 1);
}

void word_wake_shared(_Atomic uint32_t *word, int event)
{
	(void)word;
	event_signal(event);
}

unsigned word_events(void)
{
	return 1;
}

size_t random_bytes(void *buf, size_t n)
{
	NTSTATUS s;

	if (n > INT32_MAX)
		n = INT32_MAX;
	s = BCryptGenRandom(NULL, buf, (ULONG)n, BCRYPT_USE_SYSTEM_PREFERRED_RNG);
	if (s)
		panic("BCryptGenRandom: %#lx", (unsigned long)s);
	return n;
}

int stderr_fd(void)
{
	return handle_fd(GetStdHandle(STD_ERROR_HANDLE));
}

void stderr_write(const char *text, size_t len)
{
	DWORD n;

	WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, (DWORD)len, &n, NULL);
}

void stderr_write_all(const char *text, size_t len)
{
	(void)write_full(handle_fd(GetStdHandle(STD_ERROR_HANDLE)), text, len);
}

/* ---- memory ---- */

int shm_create(const char *name, uint64_t size, struct err *e)
{
	HANDLE whole = CreateFileMappingW(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE,
					  (DWORD)(size >> 32), (DWORD)size, NULL);
	HANDLE h = NULL;

	/* What is handed on can be mapped, and nothing else. */
	if (whole && !DuplicateHandle(GetCurrentProcess(), whole, GetCurrentProcess(), &h,
				      FILE_MAP_READ | FILE_MAP_WRITE, TRUE, 0))
		h = NULL;
	if (!h) {
		DWORD error = GetLastError();

		if (whole)
			CloseHandle(whole);
		return err_set(e, win_errno(error), "shared memory %s of %llu bytes: error %lu",
			       name, (unsigned long long)size, error);
	}
	CloseHandle(whole);
	return handle_fd(h);
}

int shm_map(int fd, uint64_t size, uint64_t off, size_t len, bool writable, void **out,
	    struct err *e)
{
	void *p;

	/* Without a size the system knows it: it maps nothing beyond the end. */
	if (size && (off > size || len > size - off))
		return err_set(e, -EINVAL, "shared memory of %llu bytes is too small",
			       (unsigned long long)size);
	p = MapViewOfFile(fd_handle(fd), FILE_MAP_READ | (writable ? FILE_MAP_WRITE : 0),
			  (DWORD)(off >> 32), (DWORD)off, len);
	if (!p)
		return err_set(e, win_errno(GetLastError()),
			       "%zu bytes of shared memory cannot be mapped: error %lu", len,
			       GetLastError());
	*out = p;
	return 0;
}

int device_map(int fd, uint64_t off, size_t len, void **out, struct err *e)
{
	(void)fd, (void)off, (void)len, (void)out;
	return err_set(e, -EOPNOTSUPP, "a device of the host: expected Linux");
}

int device_room(size_t size, void **out, struct err *e)
{
	(void)size, (void)out;
	return err_set(e, -EOPNOTSUPP, "a device of the host: expected Linux");
}

int device_map_at(int fd, uint64_t off, size_t len, void *at, struct err *e)
{
	(void)at;
	return device_map(fd, off, len, NULL, e);
}

int device_unmap(void *at, size_t len, struct err *e)
{
	(void)at, (void)len, (void)e;
	return 0;
}

/* The system maps from multiples of 64 KiB on. */
#define SHM_STEP 65536u

static int shm_copy(int fd, uint64_t off, size_t len, uint8_t *out, const uint8_t *in)
{
	while (len) {
		uint64_t from = off / SHM_STEP * SHM_STEP;
		size_t skip = (size_t)(off - from), n = SHM_STEP - skip;
		void *at;

		n = n < len ? n : len;
		at = MapViewOfFile(fd_handle(fd), in ? FILE_MAP_WRITE : FILE_MAP_READ,
				   (DWORD)(from >> 32), (DWORD)from, skip + n);
		if (!at)
			return win_errno(GetLastError());
		if (in)
			memcpy((uint8_t *)at + skip, in, n);
		else
			memcpy(out, (uint8_t *)at + skip, n);
		UnmapViewOfFile(at);
		in = in ? in + n : NULL;
		out = out ? out + n : NULL;
		off += n;
		len -= n;
	}
	return 0;
}

int shm_read(int fd, void *buf, size_t len, uint64_t off)
{
	return shm_copy(fd, off, len, buf, NULL);
}

int shm_write(int fd, const void *buf, size_t len, uint64_t off)
{
	return shm_copy(fd, off, len, NULL, buf);
}

/* The system does not say which pages of a section have been touched. */
uint64_t shm_data(int fd, uint64_t from, uint64_t size)
{
	(void)fd, (void)size;
	return from;
}

void *shm_join(void *const map[], unsigned n, size_t len)
{
	(void)map, (void)n, (void)len;
	return NULL;
}

void shm_unmap(void *at, size_t len)
{
	(void)len;
	UnmapViewOfFile(at);
}

/* The system's crash dumps leave mapped sections out unless they are asked for them. */
void shm_is_guest(void *at, size_t len)
{
	(void)at;
	(void)len;
}

int shm_collapse(void *at, size_t len)
{
	(void)at;
	(void)len;
	return -EOPNOTSUPP; /* large pages are for those who hold a privilege that nobody here has
			     */
}

void *reserve_memory(size_t len, bool writable)
{
	return VirtualAlloc(NULL, len, MEM_RESERVE | MEM_COMMIT,
			    writable ? PAGE_READWRITE : PAGE_READONLY);
}

/* ---- files ---- */

int file_size(int fd, uint64_t *size)
{
	LARGE_INTEGER n;

	if (GetFileType(fd_handle(fd)) != FILE_TYPE_DISK || !GetFileSizeEx(fd_handle(fd), &n))
		return -EINVAL;
	*size = (uint64_t)n.QuadPart;
	return 0;
}

int read_full(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len) {
		OVERLAPPED at = {.Offset = (DWORD)off, .OffsetHigh = (DWORD)(off >> 32)};
		DWORD n = 0, want = len < (1u << 30) ? (DWORD)len : 1u << 30;

		if (!ReadFile(fd_handle(fd), p, want, &n, &at))
			return win_errno(GetLastError());
		if (n == 0)
			return -ENODATA;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

int write_full(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		DWORD n = 0, want = len < (1u << 30) ? (DWORD)len : 1u << 30;

		if (!WriteFile(fd_handle(fd), p, want, &n, NULL))
			return win_errno(GetLastError());
		p += n;
		len -= n;
	}
	return 0;
}

int write_full_at(int fd, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		OVERLAPPED at = {.Offset = (DWORD)off, .OffsetHigh = (DWORD)(off >> 32)};
		DWORD n = 0, want = len < (1u << 30) ? (DWORD)len : 1u << 30;

		if (!WriteFile(fd_handle(fd), p, want, &n, &at))
			return win_errno(GetLastError());
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

int file_sync(int fd)
{
	return FlushFileBuffers(fd_handle(fd)) ? 0 : win_errno(GetLastError());
}
