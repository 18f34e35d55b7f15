/* SPDX-License-Identifier: BSD-2-Clause */
/* The console's two handles on Windows: pipes or files, never a console window, which would be a
 * way out: the supervisor speaks for that through pipes. See console.h. */
#include "base/win.h"

#include <errno.h>

#include <insula/base.h>

#include "console.h"

int console_ends(struct console *c, struct err *e)
{
	DWORD mode;

	if (GetConsoleMode(fd_handle(c->out_fd), &mode) ||
	    (c->in_fd >= 0 && GetConsoleMode(fd_handle(c->in_fd), &mode)))
		return err_set(e, -EPERM, "a console window");
	return 0;
}

uint32_t console_write(struct console *c, const uint8_t *buf, uint32_t n)
{
	DWORD done = 0;

	if (WriteFile(fd_handle(c->out_fd), buf, n, &done, NULL) && done) {
		c->out_bytes += done;
		c->out_writes++;
		return done;
	}
	c->out_lost += n;
	return n;
}

int console_read(struct console *c, void *buf, size_t n)
{
	DWORD done = 0, error;

	if (ReadFile(fd_handle(c->in_fd), buf, (DWORD)n, &done, NULL))
		return (int)done;
	error = GetLastError();
	/* The writers of a pipe are gone, or it is the end of a file. */
	return error == ERROR_BROKEN_PIPE || error == ERROR_HANDLE_EOF ? 0 : win_errno(error);
}
