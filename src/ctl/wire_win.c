/* SPDX-License-Identifier: BSD-2-Clause */
/* The connection to insulad: a named pipe. See ctl.h. */
#include "os/win/win.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>

#include <insula/base.h>

#include "spec/utf8_win.h"
#include "ctl.h"

/* Read and write; not GENERIC_WRITE, which has the right to make instances of the pipe. */
#define RIGHTS 0x12019b
#define BUSY_MS 2000
#define BUSY_TRIES 5

const char wire_default[] = "\\\\.\\pipe\\insula";

/* All instances can be taken for a moment: insulad makes the next one when one is. */
static int open_pipe(const char *path)
{
	wchar_t wide[CTL_PATH_MAX];
	int fd = -EBUSY;

	if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, CTL_PATH_MAX))
		return -EINVAL;

	for (int i = 0; i < BUSY_TRIES && fd == -EBUSY; i++) {
		/* Who serves it learns who we are, and cannot be us. */
		fd = win_open(path, RIGHTS, 0, OPEN_EXISTING,
			      FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT |
				      SECURITY_IDENTIFICATION);
		if (fd == -EBUSY)
			WaitNamedPipeW(wide, BUSY_MS);
	}
	return fd;
}

int wire_open(const char *path, struct err *e)
{
	int fd;

	if (!pipe_is_name(path))
		return err_set(e, -EINVAL, "--socket: '%.80s'; expected \\\\.\\pipe\\NAME", path);
	fd = open_pipe(path);
	return fd < 0 ? err_sys(e, fd, "%s (is insulad running, and may you use its pipe?)", path)
		      : fd;
}

/* The handle is open for overlapped I/O, so that a write need not wait for a read of another
 * thread. */
static int transfer(int fd, bool write, void *buf, size_t len)
{
	OVERLAPPED ov = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	DWORD n = 0, want = len < (1u << 20) ? (DWORD)len : 1u << 20;
	BOOL ok;
	int rc;

	if (!ov.hEvent)
		return -ENOMEM;
	ok = write ? WriteFile(fd_handle(fd), buf, want, NULL, &ov)
		   : ReadFile(fd_handle(fd), buf, want, NULL, &ov);
	if (ok || GetLastError() == ERROR_IO_PENDING)
		ok = GetOverlappedResult(fd_handle(fd), &ov, &n, TRUE);
	rc = ok ? (int)n : win_errno(GetLastError());
	CloseHandle(ov.hEvent);
	return rc;
}

int wire_send(int fd, const char *text, size_t len, const int *fds, unsigned nfds)
{
	(void)fds;
	if (nfds)
		return -EOPNOTSUPP;
	while (len) {
		int n = transfer(fd, true, (void *)(uintptr_t)text, len);

		if (n < 0)
			return n;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

int wire_recv(int fd, void *buf, size_t size, int *got)
{
	int n = transfer(fd, false, buf, size);

	(void)got; /* none can come */
	return n == -EPIPE ? 0 : n;
}

char **wire_arguments(int *argc, char **argv)
{
	(void)argv;
	_setmode(_fileno(stdout), _O_BINARY);
	_setmode(_fileno(stderr), _O_BINARY);
	return utf8_arguments(argc);
}

int wire_look(const char *path)
{
	wchar_t wide[CTL_PATH_MAX];

	if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, CTL_PATH_MAX))
		return -EINVAL;
	return GetFileAttributesW(wide) == INVALID_FILE_ATTRIBUTES ? win_errno(GetLastError()) : 0;
}

void wire_directory(char *out, size_t size)
{
	wchar_t wide[CTL_PATH_MAX];
	DWORD n = GetCurrentDirectoryW(CTL_PATH_MAX, wide);

	if (!n || n >= CTL_PATH_MAX ||
	    !WideCharToMultiByte(CP_UTF8, 0, wide, -1, out, (int)size, NULL, NULL))
		out[0] = 0;
}
