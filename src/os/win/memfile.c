/* SPDX-License-Identifier: BSD-2-Clause */
/* Files without a name on Windows. See insula/base.h. */
#include "os/win/win.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>

#include <insula/base.h>

FILE *fd_stream(int fd)
{
	int own = fd_copy(fd), crt = own < 0 ? -1 : _open_osfhandle(own, _O_BINARY);
	FILE *f = crt < 0 ? NULL : _fdopen(crt, "wb");

	if (!f && crt >= 0)
		_close(crt);
	else if (!f)
		fd_close(&own);
	return f;
}

/* Whoever is faster at making a file of this name makes us fail, and nothing else. */
int memfile_create(const char *name)
{
	wchar_t dir[MAX_PATH + 1], path[MAX_PATH + 64];
	DWORD n = GetTempPathW(ARRAY_LEN(dir), dir);
	uint64_t r;
	HANDLE h;

	if (!n || n > ARRAY_LEN(dir))
		return -ENOENT;
	random_bytes(&r, sizeof(r));
	swprintf(path, ARRAY_LEN(path), L"%ls%hs-%llx.tmp", dir, name, (unsigned long long)r);
	h = CreateFileW(path, GENERIC_READ | GENERIC_WRITE | DELETE, 0, NULL, CREATE_NEW,
			FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, NULL);
	return h == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : handle_fd(h);
}

int memfile_seal(int *fd)
{
	HANDLE h;
	BOOL ok = DuplicateHandle(GetCurrentProcess(), fd_handle(*fd), GetCurrentProcess(), &h,
				  FILE_READ_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE, TRUE, 0);
	int rc = ok ? 0 : win_errno(GetLastError());

	fd_close(fd);
	if (!rc)
		*fd = handle_fd(h);
	return rc;
}
