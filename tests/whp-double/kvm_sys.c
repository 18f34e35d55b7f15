/* SPDX-License-Identifier: BSD-2-Clause */
/* Linux from Windows code: everything goes through linux_call(). `long` has 32 bits here. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <asm/unistd_64.h>

#include "kvm.h"

#define KICK_SIGNAL 45 /* free in wine, which uses the low ones */
#define SIG_BLOCK_LINUX 0
#define SIGSET_BYTES 8
#define LINUX_EAGAIN 11
#define O_RDWR_LINUX 2
#define O_CLOEXEC_LINUX 02000000
#define EFD_FLAGS (O_CLOEXEC_LINUX | 04000) /* and O_NONBLOCK */
#define PROT_RW 3
#define MAP_SHARED_LINUX 1
#define POLLIN_LINUX 1

static intptr_t linux_call(intptr_t nr, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e)
{
	register intptr_t r10 __asm__("r10") = d;
	register intptr_t r8 __asm__("r8") = e;
	register intptr_t r9 __asm__("r9") = 0;
	intptr_t ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

HRESULT complain(HRESULT hr, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "double: %s\n", text);
	fflush(stderr);
	return hr;
}

int sys_open(const char *path)
{
	return (int)linux_call(__NR_open, (intptr_t)path, O_RDWR_LINUX | O_CLOEXEC_LINUX, 0, 0, 0);
}

void sys_close(int fd)
{
	if (fd >= 0)
		linux_call(__NR_close, fd, 0, 0, 0, 0);
}

int sys_ioctl(int fd, uint32_t request, const void *arg)
{
	return (int)linux_call(__NR_ioctl, fd, (intptr_t)request, (intptr_t)arg, 0, 0);
}

void *sys_map(int fd, size_t size)
{
	intptr_t p = linux_call(__NR_mmap, 0, (intptr_t)size, PROT_RW, MAP_SHARED_LINUX, fd);

	return p < 0 && p > -DOUBLE_PAGE ? NULL : (void *)p;
}

void sys_unmap(void *p, size_t size)
{
	if (p)
		linux_call(__NR_munmap, (intptr_t)p, (intptr_t)size, 0, 0, 0);
}

int sys_eventfd(void)
{
	return (int)linux_call(__NR_eventfd2, 0, EFD_FLAGS, 0, 0, 0);
}

void sys_signal_event(int fd)
{
	uint64_t one = 1;

	linux_call(__NR_write, fd, (intptr_t)&one, sizeof(one), 0, 0);
}

void sys_drain_event(int fd)
{
	uint64_t n;

	linux_call(__NR_read, fd, (intptr_t)&n, sizeof(n), 0, 0);
}

void sys_wait(const int *fds, bool *ready, unsigned n)
{
	struct {
		int fd;
		short events, revents;
	} p[DOUBLE_BELLS + 1];
	intptr_t r;

	for (unsigned i = 0; i < n; i++) {
		p[i].fd = fds[i];
		p[i].events = POLLIN_LINUX;
		p[i].revents = 0;
	}
	r = linux_call(__NR_poll, (intptr_t)p, n, -1, 0, 0);
	for (unsigned i = 0; i < n; i++)
		ready[i] = r > 0 && p[i].revents;
}

int sys_gettid(void)
{
	return (int)linux_call(__NR_gettid, 0, 0, 0, 0, 0);
}

void sys_block_kick(uint64_t *others)
{
	uint64_t kick = UINT64_C(1) << (KICK_SIGNAL - 1), old = 0;

	linux_call(__NR_rt_sigprocmask, SIG_BLOCK_LINUX, (intptr_t)&kick, (intptr_t)&old,
		   SIGSET_BYTES, 0);
	*others = old & ~kick;
}

void sys_kick(int tid)
{
	linux_call(__NR_tgkill, linux_call(__NR_getpid, 0, 0, 0, 0, 0), tid, KICK_SIGNAL, 0, 0);
}

void sys_drain_kicks(void)
{
	uint64_t kick = UINT64_C(1) << (KICK_SIGNAL - 1), now[2] = {0, 0};

	while (linux_call(__NR_rt_sigtimedwait, (intptr_t)&kick, 0, (intptr_t)now, SIGSET_BYTES,
			  0) != -LINUX_EAGAIN)
		;
}

HRESULT from_errno(int r)
{
	if (r >= 0)
		return S_OK;
	if (r == -ENOMEM)
		return E_OUTOFMEMORY;
	return r == -EINVAL ? E_INVALIDARG : HRESULT_FROM_WIN32(ERROR_GEN_FAILURE);
}
