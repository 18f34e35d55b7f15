/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A snapshot's directory and files on Windows. See snapdir.h and snapdir_os.h.
 *
 * Everything is opened by its path, below a directory that is held open and so keeps its name, and
 * so do those above it. What is made is for this user, SYSTEM and administrators. A directory gets
 * another name only while no file in it is open, so all are closed before that, by insula-pager too
 * (src/pager/pager_win.c); MOVEFILE_WRITE_THROUGH makes the name last. So a file beside it keeps
 * others away from before it is made until it has its name.
 */
#include "os/win/win.h"

#include <aclapi.h>
#include <errno.h>
#include <sddl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <winioctl.h>

#include <insula/base.h>
#include <insula/log.h>

#include "snapdir_os.h"

#define WRITES                                                                    \
	(FILE_WRITE_DATA | FILE_APPEND_DATA | FILE_WRITE_EA | FILE_DELETE_CHILD | \
	 FILE_WRITE_ATTRIBUTES | DELETE | WRITE_DAC | WRITE_OWNER | GENERIC_WRITE | GENERIC_ALL)
#define READS (FILE_READ_DATA | GENERIC_READ)

/* ---- whose is it ---- */

static bool is_trusted(PSID sid)
{
	char own[WIN_SID_LEN], *text;
	bool yes;

	if (own_sid(own, NULL) || !ConvertSidToStringSidA(sid, &text))
		return false;
	yes = !strcmp(text, own) || !strcmp(text, "S-1-5-18") || !strcmp(text, "S-1-5-32-544");
	LocalFree(text);
	return yes;
}

/* One that says what nobody here knows lets others in. */
static bool lets_others(const ACE_HEADER *a, DWORD what)
{
	const ACCESS_ALLOWED_ACE *allowed = (const void *)a;

	if (a->AceFlags & INHERIT_ONLY_ACE || a->AceType == ACCESS_DENIED_ACE_TYPE)
		return false;
	return a->AceType != ACCESS_ALLOWED_ACE_TYPE ||
	       (allowed->Mask & what && !is_trusted((PSID)(uintptr_t)&allowed->SidStart));
}

/* This user's, SYSTEM's or the administrators', and nobody else may do that. */
static bool is_only_ours(int fd, DWORD what)
{
	PSECURITY_DESCRIPTOR sd;
	bool ours;
	PSID owner;
	ACL *acl;
	void *a;

	if (GetSecurityInfo(fd_handle(fd), SE_FILE_OBJECT,
			    OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION, &owner, NULL,
			    &acl, NULL, &sd))
		return false;
	ours = acl && is_trusted(owner);
	for (DWORD i = 0; ours && i < acl->AceCount; i++)
		ours = GetAce(acl, i, &a) && !lets_others(a, what);
	LocalFree(sd);
	return ours;
}

bool snapdir_is_ours(int fd)
{
	return is_only_ours(fd, WRITES);
}

/* ---- paths ---- */

static int to_wide(const char *dir, const char *name, wchar_t wide[WIN_PATH_CHARS])
{
	char path[4 * WIN_PATH_CHARS];

	if (snprintf(path, sizeof(path), "%s%s%s", dir, *name ? "\\" : "", name) >=
		    (int)sizeof(path) ||
	    !MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, WIN_PATH_CHARS))
		return -ENAMETOOLONG;
	return 0;
}

static int open_with(SECURITY_ATTRIBUTES *sa, const char *dir, const char *name, DWORD access,
		     DWORD share, DWORD how, DWORD flags)
{
	wchar_t wide[WIN_PATH_CHARS];
	int rc = to_wide(dir, name, wide);
	HANDLE h;

	if (rc)
		return rc;
	h = CreateFileW(wide, access, share, sa, how, flags, NULL);
	return h == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : handle_fd(h);
}

/* To be read. What is opened can be inherited. */
static int open_in(const char *dir, const char *name, DWORD share, DWORD flags)
{
	SECURITY_ATTRIBUTES sa = {.nLength = sizeof(sa), .bInheritHandle = TRUE};

	return open_with(&sa, dir, name, GENERIC_READ, share, OPEN_EXISTING, flags);
}

/* A new file, for this user, whatever the directory lets its files have. */
static int create_in(const char *dir, const char *name)
{
	SECURITY_ATTRIBUTES sa = {.nLength = sizeof(sa), .bInheritHandle = TRUE};
	int fd;

	sa.lpSecurityDescriptor = own_descriptor(false, "", NULL);
	if (!sa.lpSecurityDescriptor)
		return -EIO;
	fd = open_with(&sa, dir, name, GENERIC_READ | GENERIC_WRITE, 0, CREATE_NEW, 0);
	LocalFree(sa.lpSecurityDescriptor);
	return fd;
}

/* A directory. Neither it nor what it is in can be renamed while this is open. */
static int open_directory(const char *path, DWORD flags)
{
	BY_HANDLE_FILE_INFORMATION i;
	int fd = open_in(path, "", FILE_SHARE_READ | FILE_SHARE_WRITE,
			 FILE_FLAG_BACKUP_SEMANTICS | flags);

	if (fd < 0 || (GetFileInformationByHandle(fd_handle(fd), &i) &&
		       i.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY &&
		       !(i.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT)))
		return fd;
	fd_close(&fd);
	return -ENOTDIR;
}

/* One that the user names may be a link. */
int snapdir_open(const char *path)
{
	return open_directory(path, 0);
}

/* The directory's own path: whatever the given one leads over may lead elsewhere by now. */
static int own_path(int dir, char own[4 * WIN_PATH_CHARS])
{
	wchar_t wide[WIN_PATH_CHARS];
	DWORD n = GetFinalPathNameByHandleW(fd_handle(dir), wide, WIN_PATH_CHARS, 0);

	if (!n || n >= WIN_PATH_CHARS)
		return n ? -ENAMETOOLONG : win_errno(GetLastError());
	return WideCharToMultiByte(CP_UTF8, WC_ERR_INVALID_CHARS, wide, -1, own, 4 * WIN_PATH_CHARS,
				   NULL, NULL)
		       ? 0
		       : -EINVAL;
}

static int open_below(int dir, const char *name)
{
	char own[4 * WIN_PATH_CHARS];
	int rc = own_path(dir, own);

	return rc ? rc : open_in(own, name, FILE_SHARE_READ, FILE_FLAG_OPEN_REPARSE_POINT);
}

int snapdir_open_file(int dir, const char *path, const char *name, struct err *e)
{
	BY_HANDLE_FILE_INFORMATION i;
	int fd = open_below(dir, name);

	if (fd < 0)
		return err_sys(e, fd, "snapshot: %s/%s", path, name);
	if (GetFileType(fd_handle(fd)) == FILE_TYPE_DISK &&
	    GetFileInformationByHandle(fd_handle(fd), &i) &&
	    !(i.dwFileAttributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)))
		return fd;
	fd_close(&fd);
	return err_set(e, -EPROTO, "snapshot: %s/%s: is no file", path, name);
}

/* For this user, and what is made in it. */
static int make_directory(const char *parent, const char *name)
{
	SECURITY_ATTRIBUTES sa = {.nLength = sizeof(sa)};
	wchar_t wide[WIN_PATH_CHARS];
	int rc = to_wide(parent, name, wide);

	if (rc)
		return rc;
	sa.lpSecurityDescriptor = own_descriptor(true, "", NULL);
	if (!sa.lpSecurityDescriptor)
		return -EIO;
	if (!CreateDirectoryW(wide, &sa))
		rc = GetLastError() == ERROR_ALREADY_EXISTS ? -EEXIST : win_errno(GetLastError());
	LocalFree(sa.lpSecurityDescriptor);
	return rc;
}

/* ---- the key ---- */

static int read_key(const char *cache, uint8_t key[SNAPDIR_KEY])
{
	int fd = open_in(cache, "snapshot.key", FILE_SHARE_READ, FILE_FLAG_OPEN_REPARSE_POINT);
	int rc = fd < 0 ? fd : 0;

	if (!rc && !is_only_ours(fd, READS | WRITES))
		rc = -EPERM;
	if (!rc)
		rc = read_full(fd, key, SNAPDIR_KEY, 0);
	fd_close(&fd);
	return rc;
}

/* One of two that make it at once wins. */
static int make_key(const char *cache)
{
	wchar_t part[WIN_PATH_CHARS], whole[WIN_PATH_CHARS];
	uint8_t key[SNAPDIR_KEY] = {0};
	char name[32] = ".key-";
	int fd, rc;

	random_hex(name + strlen(name), 16);
	random_bytes(key, sizeof(key));
	fd = create_in(cache, name);
	if (fd < 0)
		return fd;
	rc = write_full(fd, key, sizeof(key));
	if (!rc)
		rc = file_sync(fd);
	fd_close(&fd);
	if (!rc)
		rc = to_wide(cache, name, part);
	if (!rc)
		rc = to_wide(cache, "snapshot.key", whole);
	if (!rc && !MoveFileExW(part, whole, MOVEFILE_WRITE_THROUGH))
		DeleteFileW(part);
	return rc;
}

int snapdir_key(const char *cache, bool make, uint8_t key[SNAPDIR_KEY])
{
	int rc = cache[0] ? read_key(cache, key) : -ENOENT;

	if (rc != -ENOENT || !make || !cache[0])
		return rc;
	rc = make_directory(cache, "");
	if (!rc || rc == -EEXIST)
		rc = make_key(cache);
	return rc ? rc : read_key(cache, key);
}

const char *snapdir_other_cache(void)
{
	return "";
}

/* ---- make ---- */

/* "C:\DIR\NAME", with what slashes there are. */
static int split(struct snapdir *d, const char *path, struct err *e)
{
	size_t len = strlen(path), from;

	while (len > 1 && strchr("\\/", path[len - 1]))
		len--;
	for (from = len; from && !strchr("\\/:", path[from - 1]);)
		from--;
	if (len == from || !from || len - from > sizeof(d->name) - 16 ||
	    !strncmp(path + from, "..", len - from) || !strncmp(path + from, ".", len - from))
		return err_set(e, -EINVAL, "path: '%.80s'; expected the name of a new directory",
			       path);
	snprintf(d->name, sizeof(d->name), "%.*s", (int)(len - from), path + from);
	snprintf(d->part, sizeof(d->part), ".%s.part", d->name);
	d->at = strdup(path);
	if (!d->at)
		return err_set(e, -ENOMEM, "out of memory");
	d->at[from] = 0;
	return 0;
}

static char *path_in(const struct snapdir *d, const char *name)
{
	size_t n = strlen(d->at) + strlen(name) + 2;
	char *path = malloc(n);

	if (path)
		snprintf(path, n, "%s\\%s", d->at, name);
	return path;
}

/* -EBUSY: somebody has one of them open. */
static int remove_file(const char *dir, const char *name)
{
	wchar_t wide[WIN_PATH_CHARS];
	int rc = to_wide(dir, name, wide);

	if (!rc && !DeleteFileW(wide))
		rc = win_errno(GetLastError());
	return rc == -EBUSY ? rc : 0;
}

static int remove_files(const char *dir)
{
	int rc = remove_file(dir, SNAPDIR_SEAL);

	for (unsigned i = 0; i < SNAPDIR_FILES && !rc; i++)
		rc = remove_file(dir, snapdir_names[i]);
	return rc;
}

/* Not what a link of that name stands for. */
static int remove_directory(const char *dir)
{
	wchar_t wide[WIN_PATH_CHARS];
	int fd = open_directory(dir, FILE_FLAG_OPEN_REPARSE_POINT);
	int rc = fd < 0 ? fd : remove_files(dir);

	fd_close(&fd);
	if (!rc)
		rc = to_wide(dir, "", wide);
	if (!rc && !RemoveDirectoryW(wide))
		rc = win_errno(GetLastError());
	return rc;
}

void snapdir_remove(const char *path)
{
	int rc = remove_directory(path);

	if (rc && rc != -ENOENT)
		log_warn("snapshot: %s: %s", path, strerror(-rc));
}

/* One that was left by a process that was killed is in nobody's way. */
static int make_part(const struct snapdir *d, const char *part)
{
	int rc = make_directory(d->at, d->part);

	if (rc != -EEXIST)
		return rc;
	rc = remove_directory(part);
	return rc ? rc : make_directory(d->at, d->part);
}

/* Holes take no room, if the file system can do that. */
static void make_sparse(int fd)
{
	DWORD n;

	(void)DeviceIoControl(fd_handle(fd), FSCTL_SET_SPARSE, NULL, 0, NULL, 0, &n, NULL);
}

static int make_files(struct snapdir *d, struct err *e)
{
	char *part = path_in(d, d->part);
	int rc = part ? 0 : -ENOMEM;

	for (unsigned i = 0; i < SNAPDIR_FILES && !rc; i++) {
		d->file[i] = create_in(part, snapdir_names[i]);
		if (d->file[i] < 0)
			rc = err_sys(e, d->file[i], "path: %s", snapdir_names[i]);
	}
	free(part);
	if (!rc)
		make_sparse(d->file[SNAPDIR_MEMORY]);
	return part ? rc : err_set(e, rc, "out of memory");
}

static bool exists(const struct snapdir *d)
{
	wchar_t wide[WIN_PATH_CHARS];

	return to_wide(d->at, d->name, wide) || GetFileAttributesW(wide) != INVALID_FILE_ATTRIBUTES;
}

static int open_parent(struct snapdir *d)
{
	char own[4 * WIN_PATH_CHARS], *at;
	int rc;

	d->parent = snapdir_open(d->at);
	rc = d->parent < 0 ? d->parent : own_path(d->parent, own);
	if (rc)
		return rc;
	at = strdup(own);
	if (!at)
		return -ENOMEM;
	free(d->at);
	d->at = at;
	return 0;
}

/* Nobody else's while it is open, and gone with whoever has it. -EBUSY: another one has it. */
static int lock(struct snapdir *d)
{
	SECURITY_ATTRIBUTES sa = {.nLength = sizeof(sa)};
	char name[sizeof(d->part)];

	snprintf(name, sizeof(name), ".%s.lock", d->name);
	sa.lpSecurityDescriptor = own_descriptor(false, "", NULL);
	if (!sa.lpSecurityDescriptor)
		return -EIO;
	d->lock = open_with(&sa, d->at, name, GENERIC_READ | DELETE, 0, OPEN_ALWAYS,
			    FILE_FLAG_DELETE_ON_CLOSE | FILE_FLAG_OPEN_REPARSE_POINT);
	LocalFree(sa.lpSecurityDescriptor);
	return d->lock < 0 ? d->lock : 0;
}

static int prepare(struct snapdir *d, const char *path, struct err *e)
{
	char *part;
	int rc = open_parent(d);

	if (rc)
		return err_sys(e, rc, "path: %s", d->at);
	rc = lock(d);
	if (exists(d))
		return err_set(e, -EEXIST, "path: '%.80s' exists; expected a new directory", path);
	part = rc ? NULL : path_in(d, d->part);
	if (!rc)
		rc = part ? make_part(d, part) : -ENOMEM;
	if (!rc)
		d->dir = open_directory(part, FILE_FLAG_OPEN_REPARSE_POINT);
	free(part);
	if (rc == -EBUSY)
		return err_set(e, rc, "path: '%.80s' is being written by another VM", path);
	if (rc || d->dir < 0)
		return err_sys(e, rc ? rc : d->dir, "path: %s", path);
	return snapdir_is_ours(d->dir)
		       ? 0
		       : err_set(e, -EPERM, "path: %s: others may write to what is made there",
				 path);
}

int snapdir_make(struct snapdir *d, const char *path, struct err *e)
{
	int rc;

	snapdir_none(d);
	rc = split(d, path, e);
	if (rc)
		return rc;
	rc = prepare(d, path, e);
	if (rc)
		d->part[0] = 0; /* nothing there is ours */
	else
		rc = make_files(d, e);
	if (rc)
		snapdir_close(d);
	return rc;
}

int snapdir_write_seal(const struct snapdir *d, const char sum[SNAPDIR_SUM])
{
	char *part = path_in(d, d->part);
	int fd = part ? create_in(part, SNAPDIR_SEAL) : -ENOMEM;
	int rc = fd < 0 ? fd : write_full(fd, sum, SNAPDIR_SUM - 1);

	if (!rc)
		rc = file_sync(fd);
	fd_close(&fd);
	free(part);
	return rc;
}

static void close_all(struct snapdir *d)
{
	for (unsigned i = 0; i < SNAPDIR_FILES; i++)
		fd_close(&d->file[i]);
	fd_close(&d->dir);
}

int snapdir_keep(struct snapdir *d, struct err *e)
{
	wchar_t part[WIN_PATH_CHARS], whole[WIN_PATH_CHARS];
	int rc = to_wide(d->at, d->part, part);

	if (!rc)
		rc = to_wide(d->at, d->name, whole);
	close_all(d);
	if (!rc && !MoveFileExW(part, whole, MOVEFILE_WRITE_THROUGH))
		rc = GetLastError() == ERROR_ALREADY_EXISTS ? -EEXIST : win_errno(GetLastError());
	if (rc)
		return err_sys(e, rc, "path: %s", d->name);
	d->part[0] = 0;
	return 0;
}

unsigned snapdir_names_of(const struct snapdir *d, int fd[SNAPDIR_NAMES])
{
	(void)d, (void)fd;
	return 0;
}

void snapdir_close(struct snapdir *d)
{
	char *part = d->at && d->part[0] ? path_in(d, d->part) : NULL;

	close_all(d);
	if (part)
		snapdir_remove(part);
	free(part);
	fd_close(&d->lock);
	fd_close(&d->parent);
	free(d->at);
	d->at = NULL;
}
