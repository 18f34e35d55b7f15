/* SPDX-License-Identifier: BSD-2-Clause */
#include <windows.h>

#include <shellapi.h>
#include <stdlib.h>

#include "utf8_win.h"

char **utf8_arguments(int *argc)
{
	wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), argc);
	char **argv = wide ? calloc((size_t)*argc + 1, sizeof(*argv)) : NULL;

	for (int i = 0; argv && i < *argc; i++) {
		int n = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, NULL, 0, NULL, NULL);

		argv[i] = n > 0 ? malloc((size_t)n) : NULL;
		if (!argv[i])
			return NULL;
		WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, argv[i], n, NULL, NULL);
	}
	return argv;
}
