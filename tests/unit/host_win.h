/* SPDX-License-Identifier: BSD-2-Clause */
/* See host.h. */
#include <windows.h>

#include <errno.h>
#include <stdlib.h>
#include <winioctl.h>

#define HOST_EVENTS_COUNT false /* an event is set or not */

HOST_FN uint8_t *host_pages(size_t size)
{
	void *p = VirtualAlloc(NULL, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);

	ck_assert_ptr_nonnull(p);
	return p;
}

HOST_FN void host_free_pages(void *p, size_t size)
{
	(void)size;
	VirtualFree(p, 0, MEM_RELEASE);
}

HOST_FN uint8_t *host_fenced_pages(size_t size)
{
	uint8_t *p = VirtualAlloc(NULL, size + 2 * 4096, MEM_RESERVE, PAGE_NOACCESS);

	ck_assert_ptr_nonnull(p);
	ck_assert_ptr_nonnull(VirtualAlloc(p + 4096, size, MEM_COMMIT, PAGE_READWRITE));
	return p + 4096;
}

HOST_FN void host_free_fenced_pages(uint8_t *p, size_t size)
{
	(void)size;
	VirtualFree(p - 4096, 0, MEM_RELEASE);
}

HOST_FN hv_event host_event(void)
{
	HANDLE h = CreateEventW(NULL, FALSE, FALSE, NULL);

	ck_assert_ptr_nonnull(h);
	return (hv_event)h;
}

HOST_FN void host_ring(hv_event ev)
{
	ck_assert(SetEvent((HANDLE)ev));
}

/* `due`: a signal is on its way, however long a busy host takes; else it gets a moment. */
HOST_FN uint64_t host_drain(hv_event ev, bool due)
{
	return WaitForSingleObject((HANDLE)ev, due ? 20000 : 100) == WAIT_OBJECT_0;
}

HOST_FN void host_close(hv_event ev)
{
	CloseHandle((HANDLE)ev);
}

HOST_FN void host_setenv(const char *name, const char *value)
{
	ck_assert_int_eq(_putenv_s(name, value ? value : ""), 0);
}

/* shm_map() of a file, and of a section that is shorter. */
#define HOST_NOT_SHARED (-EBADF)
#define HOST_SHORT (-EACCES)

/* ---- files ---- */

#define HOST_FILE_MAX (1ull << 40)
#define HOST_FILE_POSITION false
#define HOST_NULL "NUL"
#define HOST_NO_FILE (-EINVAL)

static inline HANDLE host_handle(int fd)
{
	return (HANDLE)(intptr_t)fd;
}

HOST_FN int host_file(const void *data, size_t n, uint64_t size)
{
	static unsigned count;
	char path[MAX_PATH + 40];
	LARGE_INTEGER end = {.QuadPart = (LONGLONG)size};
	DWORD done = GetTempPathA(MAX_PATH, path);
	HANDLE h;

	snprintf(path + done, 40, "insula-%lu-%u", GetCurrentProcessId(), count++);
	h = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ, NULL, CREATE_NEW,
			FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, NULL);
	ck_assert(h != INVALID_HANDLE_VALUE);
	/* Best effort: where it is not possible, a large file takes room. */
	if (size > 1u << 20)
		DeviceIoControl(h, FSCTL_SET_SPARSE, NULL, 0, NULL, 0, &done, NULL);
	ck_assert(WriteFile(h, data, (DWORD)n, &done, NULL) && done == n);
	ck_assert(SetFilePointerEx(h, end, NULL, FILE_BEGIN) && SetEndOfFile(h));
	return (int)(intptr_t)h;
}

HOST_FN int host_open(const char *path)
{
	HANDLE h = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);

	return h == INVALID_HANDLE_VALUE ? -1 : (int)(intptr_t)h;
}

HOST_FN uint64_t host_seek(int fd, uint64_t to)
{
	LARGE_INTEGER was, zero = {.QuadPart = 0}, want = {.QuadPart = (LONGLONG)to};

	ck_assert(SetFilePointerEx(host_handle(fd), zero, &was, FILE_CURRENT));
	ck_assert(SetFilePointerEx(host_handle(fd), want, NULL, FILE_BEGIN));
	return (uint64_t)was.QuadPart;
}

HOST_FN int host_pipe(void)
{
	HANDLE in, out;

	ck_assert(CreatePipe(&in, &out, NULL, 0));
	CloseHandle(out);
	return (int)(intptr_t)in;
}

HOST_FN unsigned host_count_descriptors(void)
{
	DWORD n = 0;

	ck_assert(GetProcessHandleCount(GetCurrentProcess(), &n));
	return n;
}
