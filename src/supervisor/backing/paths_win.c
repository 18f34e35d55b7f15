/* SPDX-License-Identifier: BSD-2-Clause */
/* Where things are on Windows: all beside insula-run.exe, but a key. See paths.h. */
#include "os/win/win.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "paths.h"

#define KERNEL "\\vmlinuz"

/* Where the key of snapshots is (snapdir.h); without it they have no seal. */
static void find_cache(struct paths *p)
{
	const wchar_t *base = _wgetenv(L"LOCALAPPDATA");
	char text[PATHS_MAX];

	p->cache[0] = 0;
	if (base && WideCharToMultiByte(CP_UTF8, 0, base, -1, text, PATHS_MAX, NULL, NULL) &&
	    snprintf(p->cache, PATHS_MAX, "%s\\insula", text) >= PATHS_MAX)
		p->cache[0] = 0;
}

int paths_find(struct paths *p, struct err *e)
{
	wchar_t self[PATHS_MAX];
	DWORD n = GetModuleFileNameW(NULL, self, PATHS_MAX);
	wchar_t *name = n && n < PATHS_MAX ? wcsrchr(self, L'\\') : NULL;

	if (name)
		*name = 0;
	if (!name ||
	    !WideCharToMultiByte(CP_UTF8, 0, self, -1, p->libexec, PATHS_MAX, NULL, NULL) ||
	    snprintf(p->guest, PATHS_MAX, "%s\\guest", p->libexec) >= PATHS_MAX)
		return err_set(e, -ENAMETOOLONG, "the path of insula-run.exe");
	p->own[0] = 0;
	find_cache(p);
	return 0;
}

int paths_default_kernel(const struct paths *p, char *out, size_t size, struct err *e)
{
	int fd;

	if (snprintf(out, size, "%s" KERNEL, p->guest) >= (int)size)
		return err_set(e, -ENAMETOOLONG, "the path of insula-run.exe");
	fd = win_open(out, FILE_READ_ATTRIBUTES, FILE_SHARE_READ, OPEN_EXISTING, 0);
	if (fd < 0)
		return err_set(e, -ENOENT, "--kernel: not given, and there is no %.250s", out);
	CloseHandle(fd_handle(fd));
	return 0;
}
