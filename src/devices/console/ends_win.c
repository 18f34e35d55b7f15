/* SPDX-License-Identifier: BSD-2-Clause */
/* The console's two handles on Windows: pipes or files, never a console window, which would be a
 * way out: the supervisor speaks for that through pipes. See ends.h. */
#include "os/win/win.h"

#include <errno.h>

#include <insula/base.h>

#include "ends.h"

int ends_look(struct ends *c, uint64_t limit, struct err *e)
{
	LARGE_INTEGER size;
	DWORD mode;

	c->out_left = UINT64_MAX;
	if (limit) {
		if (!GetFileSizeEx(fd_handle(c->out_fd), &size))
			return err_sys(e, win_errno(GetLastError()), "size of the console's file");
		c->out_left = (uint64_t)size.QuadPart < limit ? limit - (uint64_t)size.QuadPart : 0;
	}
	if (GetConsoleMode(fd_handle(c->out_fd), &mode) ||
	    (c->in_fd >= 0 && GetConsoleMode(fd_handle(c->in_fd), &mode)))
		return err_set(e, -EPERM, "a console window");
	return 0;
}

uint32_t ends_write(struct ends *c, const uint8_t *buf, uint32_t n)
{
	DWORD done = 0;

	if (!c->out_left) {
		ends_lose(c, n, -EFBIG);
		return n;
	}
	if (n > c->out_left)
		n = (uint32_t)c->out_left;
	if (WriteFile(fd_handle(c->out_fd), buf, n, &done, NULL) && done) {
		c->out_bytes += done;
		c->out_writes++;
		c->out_left -= c->out_left == UINT64_MAX ? 0 : done;
		return done;
	}
	ends_lose(c, n, win_errno(GetLastError()));
	return n;
}

int ends_read(struct ends *c, void *buf, size_t n)
{
	DWORD done = 0, error;

	if (ReadFile(fd_handle(c->in_fd), buf, (DWORD)n, &done, NULL))
		return (int)done;
	error = GetLastError();
	/* The writers of a pipe are gone, or it is the end of a file. */
	return error == ERROR_BROKEN_PIPE || error == ERROR_HANDLE_EOF ? 0 : win_errno(error);
}
