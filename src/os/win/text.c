/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of text, by path. See insula/base.h. */
#include "os/win/win.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

int win_open(const char *path, DWORD access, DWORD share, DWORD how, DWORD flags)
{
	wchar_t wide[WIN_PATH_CHARS];
	HANDLE h;

	if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, WIN_PATH_CHARS))
		return -EINVAL;
	h = CreateFileW(wide, access, share, NULL, how, flags, NULL);
	return h == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : handle_fd(h);
}

static int open_to_read(const char *path, bool streams)
{
	HANDLE in = GetStdHandle(STD_INPUT_HANDLE), copy;

	if (!streams || strcmp(path, "-") != 0)
		return win_open(path, GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0);
	if (!DuplicateHandle(GetCurrentProcess(), in, GetCurrentProcess(), &copy, 0, FALSE,
			     DUPLICATE_SAME_ACCESS))
		return win_errno(GetLastError());
	return handle_fd(copy);
}

static int read_all(int fd, char *text, size_t max, size_t *len)
{
	DWORD n = 1;

	*len = 0;
	while (n && *len <= max) {
		if (!ReadFile(fd_handle(fd), text + *len, (DWORD)(max + 1 - *len), &n, NULL)) {
			if (GetLastError() != ERROR_BROKEN_PIPE) /* the end of a pipe */
				return win_errno(GetLastError());
			n = 0;
		}
		*len += n;
	}
	if (*len > max)
		return -EFBIG;
	text[*len] = 0;
	return 0;
}

/* With a drive, or of a share; not relative to a drive's directory. */
bool path_is_absolute(const char *path)
{
	bool drive = ((path[0] | 32) >= 'a' && (path[0] | 32) <= 'z') && path[1] == ':';

	return (drive && (path[2] == '\\' || path[2] == '/')) || !strncmp(path, "\\\\", 2);
}

bool path_is_relative(const char *path)
{
	return path[0] && path[1] != ':' && path[0] != '\\' && path[0] != '/';
}

char *path_whole(const char *path, int *rc)
{
	wchar_t wide[WIN_PATH_CHARS], whole[WIN_PATH_CHARS];
	char *text = malloc(4 * WIN_PATH_CHARS);
	DWORD n = 0;

	*rc = -ENOMEM;
	if (!text)
		return NULL;
	if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, WIN_PATH_CHARS))
		n = GetFullPathNameW(wide, WIN_PATH_CHARS, whole, NULL);
	*rc = n && n < WIN_PATH_CHARS &&
			      WideCharToMultiByte(CP_UTF8, 0, whole, -1, text, 4 * WIN_PATH_CHARS,
						  NULL, NULL)
		      ? 0
		      : -EINVAL;
	if (!*rc)
		return text;
	free(text);
	return NULL;
}

int text_read(const char *path, bool streams, size_t max, char **text, size_t *len)
{
	int fd = open_to_read(path, streams), rc;
	uint64_t size;

	*text = NULL;
	if (fd < 0)
		return fd;
	*text = max < INT32_MAX ? malloc(max + 2) : NULL;
	rc = *text ? 0 : -ENOMEM;
	if (!rc && !streams)
		rc = file_size(fd, &size);
	if (!rc)
		rc = read_all(fd, *text, max, len);
	fd_close(&fd);
	if (rc) {
		free(*text);
		*text = NULL;
	}
	return rc;
}

int text_write(const char *path, const char *text)
{
	int fd = win_open(path, GENERIC_WRITE, FILE_SHARE_READ, CREATE_ALWAYS, 0);
	int rc = fd < 0 ? fd : write_full(fd, text, strlen(text));

	if (!rc)
		rc = write_full(fd, "\n", 1);
	fd_close(&fd);
	return rc;
}
