/* SPDX-License-Identifier: BSD-2-Clause */
/* The console window that this program runs in. See insula/base.h. */
#include "os/win/win.h"

#include <stdlib.h>

#include <insula/base.h>

bool window_size(uint16_t *rows, uint16_t *cols)
{
	static const DWORD which[] = {STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};

	for (unsigned i = 0; i < 2; i++) {
		CONSOLE_SCREEN_BUFFER_INFO b;

		if (!GetConsoleScreenBufferInfo(GetStdHandle(which[i]), &b))
			continue;
		*rows = (uint16_t)(b.srWindow.Bottom - b.srWindow.Top + 1);
		*cols = (uint16_t)(b.srWindow.Right - b.srWindow.Left + 1);
		return true;
	}
	return false;
}

/* A console window that draws what a terminal's programs write knows what xterm does. */
const char *window_type(void)
{
	const char *term = getenv("TERM");
	DWORD mode;

	if (term)
		return term;
	return GetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), &mode) ? "xterm-256color" : NULL;
}
