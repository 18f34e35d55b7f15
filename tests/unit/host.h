/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the hypervisor layer's tests ask of the operating system: pages, events, a pause. The one
 * place of these tests where Linux and Windows differ.
 */
#ifndef INSULA_TEST_HOST_H
#define INSULA_TEST_HOST_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <insula/hv.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#define HOST_FN static inline __attribute__((unused))

#ifdef _WIN32

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

#else

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

#endif

HOST_FN void host_sleep_us(unsigned us)
{
	struct timespec t = {us / 1000000, (long)(us % 1000000 * 1000)};

	nanosleep(&t, NULL);
}

#endif
