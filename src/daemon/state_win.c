/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state directory on Windows, as in state_linux.c; beside record.json, result and log, a VM has
 * there
 *
 *   setup         what its supervisor began with
 *
 * Its control socket is a named pipe (spawn_win.c). The directory belongs to the daemon's user;
 * SYSTEM and administrators, who may do as they please anyway, are let in, nobody else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "record.h"
#include "state.h"
#include "win.h"

#include <aclapi.h>
#include <sddl.h>

#define SHARE_ALL (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)

/* ---- where ---- */

int state_path(int dir, const char *id, const char *name, wchar_t *out)
{
	DWORD n = GetFinalPathNameByHandleW(fd_handle(dir), out, WIN_PATH_CHARS - 128, 0);
	wchar_t tail[128] = L"";

	if (!n || n >= WIN_PATH_CHARS - 128)
		return -ENAMETOOLONG;
	if (id)
		swprintf(tail, ARRAY_LEN(tail), name ? L"\\%hs\\%hs" : L"\\%hs", id, name);
	wcscpy(out + n, tail);
	return 0;
}

int state_file(int dir, const char *id, const char *name, DWORD access, DWORD share, DWORD how)
{
	wchar_t path[WIN_PATH_CHARS];
	HANDLE h;
	int rc = state_path(dir, id, name, path);

	if (rc)
		return rc;
	h = CreateFileW(path, access, share, NULL, how, FILE_FLAG_OPEN_REPARSE_POINT, NULL);
	return h == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : handle_fd(h);
}

/* All directories of a path; the last one with a descriptor of its own. */
static int make_dirs(wchar_t *path, PSECURITY_DESCRIPTOR sd)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), sd, FALSE};

	for (wchar_t *p = path + wcsspn(path, L"\\/"); *p; p++) {
		if (*p != L'\\' && *p != L'/')
			continue;
		*p = 0;
		/* What cannot be made shows below. */
		CreateDirectoryW(path, NULL);
		*p = L'\\';
	}
	if (!CreateDirectoryW(path, &sa) && GetLastError() != ERROR_ALREADY_EXISTS)
		return win_errno(GetLastError());
	return 0;
}

/* Whose it is may give itself any right to it. */
static bool is_ours(HANDLE h)
{
	PSECURITY_DESCRIPTOR sd;
	char own[SID_LEN], *text;
	PSID owner;
	bool ours;

	if (own_sid(own, NULL) || GetSecurityInfo(h, SE_FILE_OBJECT, OWNER_SECURITY_INFORMATION,
						  &owner, NULL, NULL, NULL, &sd))
		return false;
	ours = ConvertSidToStringSidA(owner, &text);
	LocalFree(sd);
	if (!ours)
		return false;
	ours = !strcmp(text, own) || !strcmp(text, "S-1-5-18") || !strcmp(text, "S-1-5-32-544");
	LocalFree(text);
	return ours;
}

/* One that was there before may be open to others. The handle keeps its name: nobody may move it.
 */
static int open_dir(const wchar_t *path, PSECURITY_DESCRIPTOR sd)
{
	HANDLE h = CreateFileW(path, GENERIC_READ | WRITE_DAC, FILE_SHARE_READ | FILE_SHARE_WRITE,
			       NULL, OPEN_EXISTING,
			       FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
	BY_HANDLE_FILE_INFORMATION i;
	int rc = 0;

	if (h == INVALID_HANDLE_VALUE)
		return win_errno(GetLastError());
	if (!GetFileInformationByHandle(h, &i))
		rc = win_errno(GetLastError());
	else if (!(i.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) ||
		 i.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT)
		rc = -ENOTDIR;
	else if (!is_ours(h))
		rc = -EPERM;
	else if (!SetKernelObjectSecurity(
			 h, DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION, sd))
		rc = win_errno(GetLastError());
	if (rc)
		CloseHandle(h);
	return rc ? rc : handle_fd(h);
}

/* Nobody else may have it open. */
static int take_lock(const wchar_t *top, const char *path, struct err *e)
{
	wchar_t name[WIN_PATH_CHARS + 8];
	HANDLE h;

	swprintf(name, ARRAY_LEN(name), L"%ls\\lock", top);
	h = CreateFileW(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_ALWAYS,
			FILE_FLAG_OPEN_REPARSE_POINT, NULL);
	if (h != INVALID_HANDLE_VALUE)
		return handle_fd(h);
	if (GetLastError() == ERROR_SHARING_VIOLATION)
		return err_set(e, -EBUSY, "state_dir: %s: another insulad uses it", path);
	return err_sys(e, win_errno(GetLastError()), "%s\\lock", path);
}

/* STATE in wide characters, and the security descriptor of all that is in it; LocalFree(*sd). */
static int state_top(const char *path, wchar_t top[WIN_PATH_CHARS], PSECURITY_DESCRIPTOR *sd,
		     struct err *e)
{
	if (!path[0])
		return err_set(e, -EINVAL, "state_dir: not given, and LOCALAPPDATA is not set");
	if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, top, WIN_PATH_CHARS))
		return err_set(e, -EINVAL, "state_dir: %s", path);
	*sd = own_descriptor(true, "", e);
	return *sd ? 0 : e->code;
}

int state_lock(const char *path, struct err *e)
{
	PSECURITY_DESCRIPTOR sd;
	wchar_t top[WIN_PATH_CHARS];
	int rc = state_top(path, top, &sd, e), dir;

	if (rc)
		return rc;
	rc = make_dirs(top, sd);
	dir = rc ? rc : open_dir(top, sd);
	LocalFree(sd);
	if (dir < 0)
		return err_sys(e, dir, "state_dir: %s", path);
	fd_close(&dir);
	return take_lock(top, path, e);
}

int state_open(const char *path, const char *name, struct err *e)
{
	PSECURITY_DESCRIPTOR sd;
	SECURITY_ATTRIBUTES sa;
	wchar_t top[WIN_PATH_CHARS], room[WIN_PATH_CHARS + 8];
	int dir = state_top(path, top, &sd, e);

	if (dir)
		return dir;
	sa = (SECURITY_ATTRIBUTES){sizeof(sa), sd, FALSE};
	swprintf(room, ARRAY_LEN(room), L"%ls\\%hs", top, name);
	if (!CreateDirectoryW(room, &sa) && GetLastError() != ERROR_ALREADY_EXISTS)
		dir = win_errno(GetLastError());
	else
		dir = open_dir(room, sd);
	LocalFree(sd);
	return dir < 0 ? err_sys(e, dir, "%s\\%s", path, name) : dir;
}

/* ---- of one VM ---- */

int state_make(int dir, const char *id, struct err *e)
{
	wchar_t path[WIN_PATH_CHARS];
	int rc = state_path(dir, id, NULL, path);

	if (!rc && !CreateDirectoryW(path, NULL) && GetLastError() != ERROR_ALREADY_EXISTS)
		rc = win_errno(GetLastError());
	return rc ? err_sys(e, rc, "state directory of %s", id) : 0;
}

static int replace(int dir, const char *id, const char *name)
{
	wchar_t from[WIN_PATH_CHARS], to[WIN_PATH_CHARS];
	int rc = state_path(dir, id, "new", from);

	if (!rc)
		rc = state_path(dir, id, name, to);
	if (!rc && !MoveFileExW(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
		rc = win_errno(GetLastError());
	return rc;
}

int state_write(int dir, const char *id, const char *name, const char *text, bool durable,
		struct err *e)
{
	int fd = state_file(dir, id, "new", GENERIC_WRITE, 0, CREATE_ALWAYS);
	int rc = fd < 0 ? fd : write_full(fd, text, strlen(text));

	if (!rc && durable && !FlushFileBuffers(fd_handle(fd)))
		rc = win_errno(GetLastError());
	fd_close(&fd);
	if (!rc)
		rc = replace(dir, id, name);
	return rc ? err_sys(e, rc, "%s of %s", name, id) : 0;
}

int state_read(int dir, const char *id, const char *name, size_t max, char **text, size_t *len)
{
	int fd = state_file(dir, id, name, GENERIC_READ, SHARE_ALL, OPEN_EXISTING), rc;
	uint64_t size;

	if (fd < 0)
		return fd;
	rc = file_size(fd, &size);
	if (!rc && size > max)
		rc = -EFBIG;
	*text = rc ? NULL : malloc((size_t)size + 1);
	if (!rc)
		rc = *text ? read_full(fd, *text, (size_t)size, 0) : -ENOMEM;
	fd_close(&fd);
	if (rc) {
		free(*text);
		return rc;
	}
	(*text)[size] = 0;
	*len = (size_t)size;
	return 0;
}

int state_file_open(int dir, const char *id, const char *name)
{
	return state_file(dir, id, name, GENERIC_READ, SHARE_ALL, OPEN_EXISTING);
}

static bool is_dots(const wchar_t *name)
{
	return !wcscmp(name, L".") || !wcscmp(name, L"..");
}

void state_remove(int dir, const char *id)
{
	wchar_t path[WIN_PATH_CHARS], one[WIN_PATH_CHARS + MAX_PATH];
	WIN32_FIND_DATAW found;
	HANDLE h;

	/* The record goes first: see state_linux.c. */
	if (state_path(dir, id, "record.json", path) ||
	    (!DeleteFileW(path) && GetLastError() != ERROR_FILE_NOT_FOUND) ||
	    state_path(dir, id, "*", path))
		return;
	h = FindFirstFileW(path, &found);
	path[wcslen(path) - 2] = 0;
	if (h == INVALID_HANDLE_VALUE)
		return;
	do {
		swprintf(one, ARRAY_LEN(one), L"%ls\\%ls", path, found.cFileName);
		if (!is_dots(found.cFileName))
			DeleteFileW(one);
	} while (FindNextFileW(h, &found));
	FindClose(h);
	RemoveDirectoryW(path);
}

int state_list(int dir, void (*fn)(struct daemon *d, const char *id), struct daemon *d,
	       struct err *e)
{
	wchar_t path[WIN_PATH_CHARS];
	WIN32_FIND_DATAW found;
	char id[MAX_PATH * 3];
	HANDLE h;

	if (state_path(dir, "*", NULL, path))
		return err_set(e, -ENAMETOOLONG, "state_dir");
	h = FindFirstFileW(path, &found);
	if (h == INVALID_HANDLE_VALUE)
		return err_sys(e, win_errno(GetLastError()), "state_dir");
	do {
		if (WideCharToMultiByte(CP_UTF8, 0, found.cFileName, -1, id, sizeof(id), NULL,
					NULL) &&
		    id_is_valid(id))
			fn(d, id);
	} while (FindNextFileW(h, &found));
	FindClose(h);
	return 0;
}
