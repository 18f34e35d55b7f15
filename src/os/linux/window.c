/* SPDX-License-Identifier: BSD-2-Clause */
/* The terminal that this program runs in. See insula/base.h. */
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <insula/base.h>

bool window_size(uint16_t *rows, uint16_t *cols)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		struct winsize w;

		if (ioctl(fd, TIOCGWINSZ, &w) || !w.ws_row || !w.ws_col)
			continue;
		*rows = w.ws_row;
		*cols = w.ws_col;
		return true;
	}
	return false;
}

const char *window_type(void)
{
	return getenv("TERM");
}
