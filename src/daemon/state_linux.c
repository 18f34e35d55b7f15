/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state directory: STATE/lock, and for each VM STATE/vm/ID with
 *
 *   record.json   what insulad knows (record.h)
 *   control       the supervisor's socket
 *   result        how it ended; the supervisor holds it open and writes it
 *   log, log2     supervisor/control/vmlog.h; the supervisor holds them open and writes them
 *
 * and for each pool STATE/pool/ID/record.json (pool_record.c).
 *
 * All of that belongs to the daemon's user, mode 0700: supervisors of other users get descriptors.
 * STATE/cache-UID is theirs; so that they come to it, a root's STATE is made to be passed through
 * (0711). One that was there keeps its mode.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

#include "conf.h"
#include "process.h"
#include "record.h"
#include "state.h"

#define LOCK_NAP_MS 20
#define LOCK_NAPS 250

/* Whatever the umask, which is for what has no mode of its own. */
int make_dir(const char *path, unsigned mode)
{
	if (mkdir(path, (mode_t)mode))
		return errno == EEXIST ? 0 : -errno;
	return chmod(path, (mode_t)mode) ? -errno : 0;
}

static int make_dirs(const char *path, struct err *e)
{
	char copy[CONF_PATH_MAX + 8];
	int rc;

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		rc = make_dir(copy, 0755);
		if (rc)
			return err_sys(e, rc, "state_dir: %s", copy);
		*p = '/';
	}
	rc = make_dir(copy, geteuid() ? 0700 : 0711);
	return rc ? err_sys(e, rc, "state_dir: %s", copy) : 0;
}

/* Two daemons in one state directory would both believe that they own the VMs. A lock of the
 * process: one of the open file would live on in a child that insulad was killed over forking, and
 * keep the next one out. */
static int try_lock(int dir)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), rc;

	if (fd < 0)
		return -errno;
	if (!fcntl(fd, F_SETLK, &whole))
		return fd;
	rc = !fcntl(fd, F_GETLK, &whole) && whole.l_type != F_UNLCK &&
			     process_start_time(whole.l_pid)
		     ? -EBUSY
		     : -EAGAIN;
	close(fd);
	return rc;
}

/* One that was killed has its table of descriptors, and the lock with it, until a child that it was
 * about to make has left that, or until its last thread has closed what somebody else made
 * (closer_linux.c). The first is soon; the second may take as long as that somebody likes, but
 * nothing of that insulad runs any more: the file gives way to another one. */
static int take_lock(int dir, const char *path, struct err *e)
{
	const struct timespec nap = {0, LOCK_NAP_MS * 1000000};
	int fd = try_lock(dir);

	for (int i = 0; fd == -EAGAIN && i < LOCK_NAPS; i++) {
		nanosleep(&nap, NULL);
		fd = try_lock(dir);
	}
	if (fd == -EAGAIN && !unlinkat(dir, "lock", 0))
		fd = try_lock(dir);
	if (fd >= 0)
		return fd;
	return fd == -EBUSY || fd == -EAGAIN
		       ? err_set(e, -EBUSY, "state_dir: %s: another insulad uses it", path)
		       : err_sys(e, fd, "%s/lock", path);
}

int state_lock(const char *path, struct err *e)
{
	int rc = make_dirs(path, e), top;
	struct stat st;

	if (rc)
		return rc;
	top = open(path, O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || fstat(top, &st))
		rc = err_sys(e, -errno, "state_dir: %s", path);
	else if (st.st_uid != geteuid() || (st.st_mode & 022))
		rc = err_set(e, -EPERM,
			     "state_dir: %s: expected a directory of this user that nobody else "
			     "may write",
			     path);
	else
		rc = take_lock(top, path, e);
	fd_close(&top);
	return rc;
}

int state_open(const char *path, const char *name, struct err *e)
{
	int top = open(path, O_DIRECTORY | O_CLOEXEC), dir, rc = 0;

	if (top < 0)
		return err_sys(e, -errno, "state_dir: %s", path);
	if (mkdirat(top, name, 0700) && errno != EEXIST)
		rc = -errno;
	dir = openat(top, name, O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0 && !rc)
		rc = -errno;
	close(top);
	return dir < 0 ? err_sys(e, rc, "%s/%s", path, name) : dir;
}

int state_make(int dir, const char *id, struct err *e)
{
	if (mkdirat(dir, id, 0700) && errno != EEXIST)
		return err_sys(e, -errno, "state directory of %s", id);
	return 0;
}

int state_enter(int dir, const char *id)
{
	int fd = openat(dir, id, O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int write_file(int fd, const char *text, bool durable)
{
	int rc = write_full(fd, text, strlen(text));

	if (!rc && durable && fsync(fd))
		rc = -errno;
	return rc;
}

int state_write(int dir, const char *id, const char *name, const char *text, bool durable,
		struct err *e)
{
	int at = state_enter(dir, id), fd, rc;

	if (at < 0)
		return err_sys(e, at, "state directory of %s", id);
	fd = openat(at, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	rc = fd < 0 ? -errno : write_file(fd, text, durable);
	if (!rc && renameat(at, "new", at, name))
		rc = -errno;
	if (!rc && durable && (fsync(at) || fsync(dir)))
		rc = -errno;
	fd_close(&fd);
	close(at);
	return rc ? err_sys(e, rc, "%s of %s", name, id) : 0;
}

static int read_open(int fd, size_t max, char **text, size_t *len)
{
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
		return -EFBIG;
	*text = malloc((size_t)st.st_size + 1);
	if (!*text)
		return -ENOMEM;
	rc = read_full(fd, *text, (size_t)st.st_size, 0);
	(*text)[st.st_size] = 0;
	*len = (size_t)st.st_size;
	if (rc)
		free(*text);
	return rc;
}

int state_read(int dir, const char *id, const char *name, size_t max, char **text, size_t *len)
{
	int at = state_enter(dir, id), fd, rc;

	if (at < 0)
		return at;
	fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	rc = fd < 0 ? -errno : read_open(fd, max, text, len);
	fd_close(&fd);
	close(at);
	return rc;
}

int state_file_open(int dir, const char *id, const char *name)
{
	int at = state_enter(dir, id), fd;
	struct stat st;

	if (at < 0)
		return at;
	fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	close(at);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

/* The record goes first: a VM of which insulad was killed over removing the rest is none, and not
 * one that has lost its result. Nobody else puts anything there, so there are no directories below.
 */
void state_remove(int dir, const char *id)
{
	int at = state_enter(dir, id);
	struct dirent *entry;
	DIR *list;

	if (at < 0)
		return;
	list = !unlinkat(at, "record.json", 0) || errno == ENOENT ? fdopendir(at) : NULL;
	if (!list) {
		close(at);
		return;
	}
	while ((entry = readdir(list))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(at, entry->d_name, 0);
	}
	closedir(list);
	unlinkat(dir, id, AT_REMOVEDIR);
}

int state_list(int dir, void (*fn)(struct daemon *d, const char *id), struct daemon *d,
	       struct err *e)
{
	int fd = fcntl(dir, F_DUPFD_CLOEXEC, 3), rc;
	struct dirent *entry;
	DIR *list = fd < 0 ? NULL : fdopendir(fd);

	if (!list) {
		rc = err_sys(e, -errno, "state_dir");
		fd_close(&fd);
		return rc;
	}
	while ((entry = readdir(list))) {
		if (id_is_valid(entry->d_name))
			fn(d, entry->d_name);
	}
	closedir(list);
	return 0;
}
