/* SPDX-License-Identifier: BSD-2-Clause */
/* What the user named, opened on Windows: kernel, disks, the console's ends. See ends_win.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "ends_win.h"

#define SECTOR 512u
#define PATH_CHARS 4096
#define MAX_BLOCK 4096u
#define DRAIN_MS 2000 /* a console window takes the last output in this time */

/* ---- files ---- */

static bool widen(const char *path, wchar_t wide[PATH_CHARS])
{
	return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, PATH_CHARS);
}

/* Inheritable. */
static int open_path(const char *path, DWORD access, DWORD share, DWORD how, DWORD flags)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), NULL, TRUE};
	wchar_t wide[PATH_CHARS];
	HANDLE h;

	if (!widen(path, wide))
		return -EINVAL;
	h = CreateFileW(wide, access, share, &sa, how, flags, NULL);
	return h == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : handle_fd(h);
}

int file_open(const char *path, const char *what, struct err *e)
{
	int fd = open_path(path, GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0);
	uint64_t size = 0;

	if (fd < 0)
		return err_sys(e, fd, "%s: %s", what, path);
	if (file_size(fd, &size) || !size) {
		fd_close(&fd);
		return err_set(e, -EINVAL, "%s: %s: expected a file that is not empty", what, path);
	}
	return fd;
}

/* What offsets, lengths and addresses of unbuffered I/O are multiples of: the volume's sector, and
 * the alignment that its drivers want of memory. */
static int direct_block(const char *path, int fd, uint32_t *block, struct err *e)
{
	wchar_t wide[PATH_CHARS], volume[PATH_CHARS];
	FILE_ALIGNMENT_INFO a = {0};
	DWORD sector = 0, other;

	if (!widen(path, wide) || !GetVolumePathNameW(wide, volume, PATH_CHARS) ||
	    !GetDiskFreeSpaceW(volume, &other, &sector, &other, &other))
		return err_set(e, -EOPNOTSUPP,
			       "disk %s: direct I/O is not possible here: error %lu", path,
			       GetLastError());
	/* A mask. Not every file system says it: then it is the sector. */
	GetFileInformationByHandleEx(fd_handle(fd), FileAlignmentInfo, &a, sizeof(a));
	*block = sector > SECTOR ? sector : SECTOR;
	if (a.AlignmentRequirement >= *block)
		*block = a.AlignmentRequirement + 1;
	if (*block > MAX_BLOCK || (*block & (*block - 1)))
		return err_set(e, -EOPNOTSUPP,
			       "disk %s: direct I/O is not possible here: blocks of %u bytes", path,
			       *block);
	return 0;
}

static int open_disk(const struct disk_config *c, struct err *e)
{
	int fd = open_path(c->path, c->ro ? GENERIC_READ : GENERIC_READ | GENERIC_WRITE,
			   c->ro ? FILE_SHARE_READ : 0, OPEN_EXISTING,
			   FILE_FLAG_OVERLAPPED | (c->direct ? FILE_FLAG_NO_BUFFERING : 0));

	if (fd == -EBUSY)
		return err_set(e, -EBUSY, "disk %s: locked by another VM%s", c->path,
			       c->ro ? " that writes to it" : "");
	return fd < 0 ? err_sys(e, fd, "disk %s", c->path) : fd;
}

/* No sharing with a writer: that is the lock. The helper's handle is this one; when its process has
 * ended, so have its requests. */
int disk_open(struct disk *d, const struct disk_config *c, bool check_only, struct err *e)
{
	uint32_t block = SECTOR;
	uint64_t size = 0;
	int rc = 0;

	memset(d, 0, sizeof(*d));
	(void)check_only; /* nothing is made */
	d->conf = c;
	d->limit = (struct msg_limit){c->rate, c->iops};
	if (c->overlay) {
		d->fd = -1;
		return err_set(e, -EINVAL, "disk %s: overlay; not on Windows yet", c->path);
	}
	d->fd = open_disk(c, e);
	if (d->fd < 0)
		return d->fd;
	if (file_size(d->fd, &size))
		return err_set(e, -EINVAL, "disk %s: not a file", c->path);
	if (!size)
		return err_set(e, -EINVAL, "disk %s: empty; expected at least %u bytes", c->path,
			       SECTOR);
	if (c->direct)
		rc = direct_block(c->path, d->fd, &block, e);
	if (rc)
		return rc;
	if (size % block)
		return err_set(e, -EINVAL, "disk %s: %llu bytes; expected a multiple of %u%s",
			       c->path, (unsigned long long)size, block,
			       c->direct ? ", as direct I/O needs it here" : "");
	d->start = (struct msg_start_blk){
		.capacity = size,
		.flags = (c->ro ? BLK_RO : 0) | (c->direct ? BLK_DIRECT : 0),
		.logical = block,
		.physical = MAX_BLOCK,
	};
	memcpy(d->start.serial, c->serial, sizeof(d->start.serial));
	return 0;
}

int disk_hand_out(const struct disk *d, bool again, struct msg_start_blk *m, int fds[DISK_FDS],
		  unsigned *n, int once[DISK_ONCE], struct err *e)
{
	(void)again;
	(void)once;
	(void)e;
	m->engine = BLK_ENGINE_THREADS;
	fds[0] = d->fd;
	*n = 1;
	return 0;
}

int disk_quiet(const struct disk *d)
{
	(void)d; /* an end of a process is the end of its I/O here */
	return 1;
}

/* ---- console ---- */

/* Between a console window, which no helper gets a handle of, and a pipe. */
struct pump {
	HANDLE from, to, pipe; /* pipe: our end, one of the two; owned */
};

static DWORD WINAPI pump_main(void *arg)
{
	struct pump *p = arg;
	uint8_t buf[512];
	DWORD n, done;
	BOOL good = TRUE;

	while (good && ReadFile(p->from, buf, sizeof(buf), &n, NULL) && n) {
		for (DWORD at = 0; good && at < n; at += done)
			good = WriteFile(p->to, buf + at, n - at, &done, NULL);
	}
	CloseHandle(p->pipe);
	return 0;
}

static int start_pump(HANDLE window, bool input, int *fd, void **pump, struct err *e)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), NULL, FALSE};
	struct pump *p = malloc(sizeof(*p));
	HANDLE r, w, theirs;

	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	if (!CreatePipe(&r, &w, &sa, 0)) {
		free(p);
		return err_set(e, -EIO, "pipe: error %lu", GetLastError());
	}
	*p = input ? (struct pump){window, w, w} : (struct pump){r, window, r};
	theirs = input ? r : w;
	SetHandleInformation(theirs, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
	*fd = handle_fd(theirs);
	*pump = CreateThread(NULL, 65536, pump_main, p, 0, NULL);
	return *pump ? 0 : err_set(e, -EIO, "thread: error %lu", GetLastError());
}

void std_drain(void **pump)
{
	if (*pump) {
		WaitForSingleObject(*pump, DRAIN_MS);
		CloseHandle(*pump);
	}
	*pump = NULL;
}

/* No more than the helper needs. Of a file: to write at its end, not to change what is there, to
 * cut, or to lock it. */
static DWORD std_access(HANDLE h, bool in)
{
	DWORD a = FILE_READ_ATTRIBUTES | SYNCHRONIZE;

	if (in)
		return a | FILE_READ_DATA;
	return a | (GetFileType(h) == FILE_TYPE_DISK ? FILE_APPEND_DATA : FILE_WRITE_DATA);
}

bool std_is_window(DWORD which)
{
	HANDLE h = GetStdHandle(which);
	DWORD mode;

	return h && h != INVALID_HANDLE_VALUE && GetConsoleMode(h, &mode);
}

int std_open(DWORD which, int *fd, void **pump, struct err *e)
{
	HANDLE h = GetStdHandle(which), copy;
	bool in = which == STD_INPUT_HANDLE;

	*pump = NULL;
	if (std_is_window(which))
		return start_pump(h, in, fd, pump, e);
	if (!h || h == INVALID_HANDLE_VALUE) {
		*fd = open_path("NUL", in ? GENERIC_READ : GENERIC_WRITE,
				FILE_SHARE_READ | FILE_SHARE_WRITE, OPEN_EXISTING, 0);
		return *fd < 0 ? err_sys(e, *fd, "NUL") : 0;
	}
	if (!DuplicateHandle(GetCurrentProcess(), h, GetCurrentProcess(), &copy, std_access(h, in),
			     TRUE, 0))
		return err_set(e, -EIO, "standard stream: error %lu", GetLastError());
	*fd = handle_fd(copy);
	return 0;
}

void terminal_modes(struct terminal *t, bool stream, bool raw)
{
	(void)stream;
	t->raw_wanted |= raw;
}

void terminal_tell(const struct terminal *t)
{
	(void)t;
}

void terminal_raw(struct terminal *t)
{
	HANDLE in = GetStdHandle(STD_INPUT_HANDLE), out = GetStdHandle(STD_OUTPUT_HANDLE);

	if (!t->raw_wanted || t->raw || !GetConsoleMode(in, &t->saved_in))
		return;
	t->raw = SetConsoleMode(in, ENABLE_VIRTUAL_TERMINAL_INPUT | ENABLE_EXTENDED_FLAGS);
	if (!GetConsoleMode(out, &t->saved_out))
		t->saved_out = 0;
	if (t->saved_out)
		SetConsoleMode(out, t->saved_out | ENABLE_PROCESSED_OUTPUT |
					    ENABLE_VIRTUAL_TERMINAL_PROCESSING |
					    DISABLE_NEWLINE_AUTO_RETURN);
}

static int open_stdio(struct terminal *t, struct err *e)
{
	void *input = NULL;
	int rc = std_open(STD_OUTPUT_HANDLE, &t->out, &t->pump, e);

	if (!rc)
		rc = std_open(STD_INPUT_HANDLE, &t->in, &input, e);
	if (rc || !input)
		return rc;
	CloseHandle(input); /* it waits for a key, and goes with the process */
	t->escape = t->raw_wanted = true;
	terminal_raw(t);
	return 0;
}

int stream_copy(int fd)
{
	HANDLE copy;

	return DuplicateHandle(GetCurrentProcess(), fd_handle(fd), GetCurrentProcess(), &copy, 0,
			       TRUE, DUPLICATE_SAME_ACCESS)
		       ? handle_fd(copy)
		       : -1;
}

int terminal_open(struct terminal *t, const struct vm_config *c, struct err *e)
{
	*t = (struct terminal){.in = -1, .out = -1};
	switch (config_console(c)) {
	case CONSOLE_STDIO:
		return open_stdio(t, e);
	case CONSOLE_STDERR:
		return std_open(STD_ERROR_HANDLE, &t->out, &t->pump, e);
	case CONSOLE_NONE:
		t->out = open_path("NUL", GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
				   OPEN_EXISTING, 0);
		return t->out < 0 ? err_sys(e, t->out, "NUL") : 0;
	case CONSOLE_FILE:
		t->out = open_path(c->console_file, FILE_APPEND_DATA | FILE_READ_ATTRIBUTES,
				   FILE_SHARE_READ, OPEN_ALWAYS, 0);
		t->limit = c->console_limit;
		return t->out < 0 ? err_sys(e, t->out, "--console: %s", c->console_file) : 0;
	case CONSOLE_STREAM:
		t->out = stream_copy(c->console_out);
		t->in = c->console_in < 0 ? -1 : stream_copy(c->console_in);
		return t->out < 0 || (t->in < 0 && c->console_in >= 0)
			       ? err_set(e, -EIO, "console: no handle")
			       : 0;
	case CONSOLE_PTY:
		break;
	}
	return err_set(e, -EOPNOTSUPP, "--console: that kind is not on Windows");
}

void terminal_close(struct terminal *t)
{
	fd_close(&t->in);
	fd_close(&t->out);
	std_drain(&t->pump);
	if (t->raw) {
		SetConsoleMode(GetStdHandle(STD_INPUT_HANDLE), t->saved_in);
		if (t->saved_out)
			SetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), t->saved_out);
	}
	t->raw = false;
}
