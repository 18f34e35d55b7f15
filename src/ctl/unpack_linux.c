/* SPDX-License-Identifier: BSD-2-Clause */
/* Unpacking what a guest has sent. See unpack.h. */
#include "unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#define DEPTH 128 /* of directories */
#define MODES 100000
#define HOLE 4096 /* zeros in as large a piece are not written */

/* A name, taken apart: the last component is what it is about. */
struct place {
	char text[2 * TAR_NAME_MAX];
	const char *part[DEPTH];
	unsigned n;
	unsigned root; /* so many of them are what stands for the root of the copy */
};

struct unpack_mode {
	char *name; /* owned */
	unsigned mode;
};

/* 1: left out. */
static int leave_out(struct unpack *u, const struct tar_entry *n, const char *why)
{
	char line[300];

	u->skipped++;
	snprintf(line, sizeof(line), "left out: %.160s: %s", n->name, why);
	u->left_out(u->ctx, line);
	return 1;
}

/* ---- names ---- */

/* NULL, or why not. */
static const char *add_parts(struct place *p, char *text)
{
	for (char *next, *at = text; *at; at = next) {
		size_t n = strcspn(at, "/");

		next = at + n + (at[n] == '/');
		at[n] = 0;
		if (!n || !strcmp(at, "."))
			continue;
		if (!strcmp(at, ".."))
			return "\"..\" in its name";
		if (n > NAME_MAX)
			return "a name that is too long";
		if (p->n == DEPTH)
			return "too many directories";
		p->part[p->n++] = at;
	}
	return NULL;
}

/* The target, then the name without the base. */
static const char *place_of(const struct unpack *u, const char *name, struct place *p)
{
	size_t nt = strlen(u->target);
	char *rest = p->text + nt + 1;
	const char *why;

	p->n = 0;
	strcpy(p->text, u->target);
	strcpy(rest, name);
	if (nt)
		p->part[p->n++] = p->text;
	p->root = p->n;
	if (name[0] == '/')
		return "an absolute name";
	why = add_parts(p, rest);
	if (why || !u->base)
		return why;
	if (p->n == p->root || strcmp(p->part[p->root], u->base) != 0)
		return "nobody has asked for it";
	memmove(&p->part[p->root], &p->part[p->root + 1],
		(p->n - p->root - 1) * sizeof(p->part[0]));
	p->n--;
	return NULL;
}

/* The directory that the last component is in, made if it is not there; a negative errno. */
static int open_parent(const struct unpack *u, const struct place *p)
{
	int at = openat(u->top, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	for (unsigned i = 0; i + 1 < p->n && at >= 0; i++) {
		int next = openat(at, p->part[i], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (next < 0 && errno == ENOENT && !mkdirat(at, p->part[i], 0755))
			next = openat(at, p->part[i],
				      O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		fd_close(&at);
		at = next;
	}
	return at < 0 ? -errno : at;
}

/* A name that nobody else has in that directory, until it is renamed. */
static void own_name(char out[32])
{
	strcpy(out, ".insulactl-");
	random_hex(out + strlen(out), 16);
}

/* `own` becomes what it is to be called; else it is gone. */
static int settle_name(int at, const char *own, const char *name)
{
	int rc = renameat(at, own, at, name) ? -errno : 0;

	if (rc)
		unlinkat(at, own, 0);
	return rc;
}

/* An errno that is about this entry alone, in words; NULL: nothing else will work either. */
static const char *why_not(int rc)
{
	switch (-rc) {
	case EISDIR:
	case ENOTEMPTY:
	case EEXIST:
		return "something else of that name is there";
	case ENOTDIR:
	case ELOOP:
		return "a directory on its way is none here";
	case EACCES:
	case EPERM:
		return "not permitted";
	case ENAMETOOLONG:
		return "its name is too long";
	default:
		return NULL;
	}
}

/* 0, 1: left out, or the end. */
static int after(struct unpack *u, const struct tar_entry *n, int rc, struct err *e)
{
	const char *why = rc < 0 ? why_not(rc) : NULL;

	if (why)
		return leave_out(u, n, why);
	return rc < 0 ? err_sys(e, rc, "%.160s", n->name) : rc;
}

/* ---- files ---- */

/* Holes stay holes, if they come in pieces of HOLE from a boundary on. */
static int copy_data(int fd, struct tar_reader *t, struct err *e)
{
	char buf[16 * HOLE];
	uint64_t size = t->left, at = 0;
	size_t have = 0;
	int64_t n;

	while ((n = tar_data(t, buf + have, sizeof(buf) - have, e)) >= 0) {
		have += (size_t)n;
		if (n && have < sizeof(buf))
			continue;
		for (size_t i = 0; i < have; i += HOLE) {
			size_t len = have - i < HOLE ? have - i : HOLE;

			errno = 0;
			if (!mem_is_zero(buf + i, len) &&
			    pwrite(fd, buf + i, len, (off_t)(at + i)) != (ssize_t)len)
				return err_sys(e, errno ? -errno : -ENOSPC, "write");
		}
		at += have;
		have = 0;
		if (!n)
			break;
	}
	if (n < 0)
		return (int)n;
	return ftruncate(fd, (off_t)size) ? err_sys(e, -errno, "write") : 0;
}

static void set_time(int fd, int64_t mtime)
{
	const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = mtime}};

	(void)futimens(fd, t);
}

static int take_file(struct unpack *u, struct tar_reader *t, const struct tar_entry *n, int at,
		     const char *name, struct err *e)
{
	char own[32];
	int fd, rc;

	own_name(own);
	fd = openat(at, own, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return after(u, n, -errno, e);
	rc = copy_data(fd, t, e);
	if (!rc && fchmod(fd, n->mode & 0777))
		rc = err_sys(e, -errno, "%.160s", n->name);
	set_time(fd, n->mtime);
	fd_close(&fd);
	if (rc) {
		unlinkat(at, own, 0);
		return rc;
	}
	return after(u, n, settle_name(at, own, name), e);
}

/* ---- directories ---- */

/* We have to be able to write to it until everything is there. */
static void mode_later(struct unpack *u, const struct tar_entry *n)
{
	struct unpack_mode *more;

	if (u->nmodes == MODES)
		return;
	if (!(u->nmodes & 63)) {
		more = reallocarray(u->modes, u->nmodes + 64, sizeof(*more));
		if (!more)
			panic("out of memory");
		u->modes = more;
	}
	u->modes[u->nmodes] = (struct unpack_mode){strdup(n->name), n->mode};
	if (!u->modes[u->nmodes++].name)
		panic("out of memory");
}

/* One that is there keeps its mode: it was not ours. */
static int take_directory(struct unpack *u, const struct tar_entry *n, int at, const char *name,
			  struct err *e)
{
	bool made = !mkdirat(at, name, 0700);
	int fd, rc = 0;

	if (!made && errno != EEXIST)
		return after(u, n, -errno, e);
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return after(u, n, -errno, e);
	if (made && fchmod(fd, (n->mode & 0777) | 0700))
		rc = -errno;
	if (made && (n->mode & 0700) != 0700)
		mode_later(u, n);
	fd_close(&fd);
	return after(u, n, rc, e);
}

static void set_modes(struct unpack *u)
{
	static struct place p; /* one thread; too large for the stack */

	while (u->nmodes) {
		struct unpack_mode *m = &u->modes[--u->nmodes];
		int at, fd;

		if (!place_of(u, m->name, &p) && p.n && (at = open_parent(u, &p)) >= 0) {
			fd = openat(at, p.part[p.n - 1],
				    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (fd >= 0)
				(void)fchmod(fd, m->mode & 0777);
			fd_close(&fd);
			fd_close(&at);
		}
		free(m->name);
	}
	free(u->modes);
	u->modes = NULL;
}

/* ---- links ---- */

/* Does it stay in the copy? `depth`: so many directories is the link below its root. */
static bool link_stays(const char *target, unsigned depth)
{
	bool down = false;

	if (target[0] == '/')
		return false;
	while (*target) {
		size_t n = strcspn(target, "/");

		if (n == 2 && !memcmp(target, "..", 2)) {
			if (down || !depth--)
				return false;
		} else if (n && !(n == 1 && target[0] == '.')) {
			down = true;
		}
		target += n + (target[n] == '/');
	}
	return true;
}

static int take_link(struct unpack *u, const struct tar_entry *n, const struct place *p, int at,
		     const char *name, struct err *e)
{
	unsigned depth = p->n > p->root ? p->n - p->root - 1 : 0;
	char own[32];

	if (!link_stays(n->link, depth))
		return leave_out(u, n, "a symbolic link that leads out of the copy");
	own_name(own);
	if (symlinkat(n->link, at, own))
		return after(u, n, -errno, e);
	return after(u, n, settle_name(at, own, name), e);
}

static int take_hard_link(struct unpack *u, const struct tar_entry *n, int at, const char *name,
			  struct err *e)
{
	static struct place to; /* one thread; too large for the stack */
	const char *why = place_of(u, n->link, &to);
	char own[32];
	struct stat st;
	int from, rc;

	if (why || !to.n)
		return leave_out(u, n, "a hard link to what is not in the copy");
	from = open_parent(u, &to);
	if (from < 0)
		return after(u, n, from, e);
	own_name(own);
	if (fstatat(from, to.part[to.n - 1], &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		rc = leave_out(u, n, "a hard link to what is no file in the copy");
	else if (linkat(from, to.part[to.n - 1], at, own, 0))
		rc = after(u, n, -errno, e);
	else
		rc = after(u, n, settle_name(at, own, name), e);
	fd_close(&from);
	return rc;
}

/* ---- all ---- */

static int take_kind(struct unpack *u, struct tar_reader *t, const struct tar_entry *n,
		     const struct place *p, int at, struct err *e)
{
	const char *name = p->part[p->n - 1];
	char why[64];

	switch (n->type) {
	case TAR_FILE:
		return take_file(u, t, n, at, name, e);
	case TAR_DIRECTORY:
		return take_directory(u, n, at, name, e);
	case TAR_LINK:
		return take_link(u, n, p, at, name, e);
	case TAR_HARD_LINK:
		return take_hard_link(u, n, at, name, e);
	case '3':
	case '4':
		return leave_out(u, n, "a device");
	case '6':
		return leave_out(u, n, "a FIFO");
	default:
		snprintf(why, sizeof(why), "an entry of type %d", (unsigned char)n->type);
		return leave_out(u, n, why);
	}
}

/* What the user has said about the place where it goes. */
static int check_first(const struct unpack *u, const struct tar_entry *n, struct err *e)
{
	bool directory = n->type == TAR_DIRECTORY;

	if (u->entries || (!(u->need_directory && !directory) && !(u->need_file && directory)))
		return 0;
	return err_set(e, directory ? -EISDIR : -ENOTDIR, "%s",
		       directory ? "a directory does not go where a file is"
				 : "a file does not go where there is no directory");
}

static int take_entry(struct unpack *u, struct tar_reader *t, const struct tar_entry *n,
		      struct err *e)
{
	static struct place p; /* one thread; too large for the stack */
	const char *why = place_of(u, n->name, &p);
	int at, rc;

	if (why)
		return leave_out(u, n, why);
	rc = check_first(u, n, e);
	u->entries++;
	if (rc)
		return rc;
	if (!p.n) /* the directory itself, which is there */
		return n->type == TAR_DIRECTORY ? 0 : leave_out(u, n, "it has no name");
	at = open_parent(u, &p);
	if (at < 0)
		return after(u, n, at, e);
	rc = take_kind(u, t, n, &p, at, e);
	fd_close(&at);
	return rc;
}

int unpack_all(struct unpack *u, struct tar_reader *t, struct err *e)
{
	static struct tar_entry n; /* one thread; too large for the stack */
	int rc;

	u->skipped = u->entries = 0;
	u->modes = NULL;
	u->nmodes = 0;
	while ((rc = tar_next(t, &n, e)) > 0) {
		rc = take_entry(u, t, &n, e);
		if (rc < 0)
			break;
	}
	set_modes(u);
	return rc < 0 ? rc : 0;
}
