/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: the mounts of a container, in their order, and its masked and read-only paths.
 *
 * A destination is resolved inside the root (path.c) to a descriptor, and mounted on through
 * /proc/self/fd. The new mount is then found by resolving once more: a descriptor stays with what
 * it was opened on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "container.h"

#ifndef ST_RELATIME
#define ST_RELATIME 4096
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#define K_ST_NOSYMFOLLOW 0x2000 /* linux/statfs.h */

/* Flags that belong to a mount and not to its file system: what a bind can change. */
#define OF_MOUNT                                                                      \
	(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOSYMFOLLOW | MS_NOATIME | \
	 MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME)
#define TIMES (MS_NOATIME | MS_RELATIME | MS_STRICTATIME)

static int mount_flags(int fd, unsigned long *flags)
{
	static const struct {
		unsigned long st, ms;
	} same[] = {{ST_RDONLY, MS_RDONLY},     {ST_NOSUID, MS_NOSUID},
		    {ST_NODEV, MS_NODEV},       {ST_NOEXEC, MS_NOEXEC},
		    {ST_NOATIME, MS_NOATIME},   {ST_NODIRATIME, MS_NODIRATIME},
		    {ST_RELATIME, MS_RELATIME}, {K_ST_NOSYMFOLLOW, MS_NOSYMFOLLOW}};
	struct statvfs st;

	if (fstatvfs(fd, &st) < 0)
		return -errno;
	*flags = 0;
	for (size_t i = 0; i < COUNT(same); i++)
		if (st.f_flag & same[i].st)
			*flags |= same[i].ms;
	return 0;
}

static int remount(int fd, unsigned long set, unsigned long clear, const char *what, struct err *e)
{
	unsigned long have = 0, want;
	char path[FD_PATH_MAX];
	int r = mount_flags(fd, &have);

	if (r)
		return err_sys(e, r, "flags of the mount %s", what);
	if (set & TIMES)
		clear |= TIMES;
	want = (have & ~clear) | (set & OF_MOUNT);
	if (want == have)
		return 0;
	if (mount(NULL, fd_path(fd, path), NULL, MS_REMOUNT | MS_BIND | want, NULL) < 0)
		return err_sys(e, -errno, "flags 0x%lx of the mount %s", want, what);
	return 0;
}

int mount_readonly(int fd, const char *what, struct err *e)
{
	return remount(fd, MS_RDONLY, 0, what, e);
}

/* ---- one mount ---- */

struct step {
	struct root *r;
	const struct mount_record *m;
	int source; /* of a bind */
	int dest;   /* what is mounted on */
	int top;    /* the new mount */
	unsigned long flags;
};

static int fail(const struct step *s, int code, const char *what, struct err *e)
{
	return err_sys(e, code, "mount %s: %s", s->m->dest, what);
}

static bool is_type(const struct step *s, const char *type)
{
	return s->m->type && strcmp(s->m->type, type) == 0;
}

/* proc and sysfs are mounted where their names are: a link there is an image's attempt to have
 * something else taken for them. */
static int open_dest(struct step *s, struct err *e)
{
	bool directory = true, plain = is_type(s, "proc") || is_type(s, "sysfs");
	struct stat st, root;

	if (s->source >= 0 && fstat(s->source, &st) < 0)
		return fail(s, -errno, "source", e);
	if (s->source >= 0)
		directory = S_ISDIR(st.st_mode);
	s->dest = plain ? root_open_plain(s->r->fd, s->m->dest, 0) : -ENOENT;
	if (s->dest < 0 && s->dest != -ENOENT)
		return fail(s, s->dest, "destination (no link is followed there)", e);
	if (s->dest < 0)
		s->dest = root_make(s->r->fd, s->m->dest, directory, e);
	if (s->dest < 0)
		return s->dest;
	if (fstat(s->dest, &st) < 0 || fstat(s->r->fd, &root) < 0)
		return fail(s, -errno, "destination", e);
	if (st.st_dev == root.st_dev && st.st_ino == root.st_ino)
		return fail(s, -EINVAL, "this is the root itself", e);
	return 0;
}

static int open_top(struct step *s, struct err *e)
{
	s->top = root_open(s->r->fd, s->m->dest, 0);
	return s->top < 0 ? fail(s, s->top, "the new mount", e) : 0;
}

static int bind_on(struct step *s, int from, unsigned long rec, struct err *e)
{
	char source[FD_PATH_MAX], dest[FD_PATH_MAX];

	if (mount(fd_path(from, source), fd_path(s->dest, dest), NULL, MS_BIND | rec, NULL) < 0)
		return fail(s, -errno, s->m->source ? s->m->source : s->m->type, e);
	return open_top(s, e);
}

static int do_bind(struct step *s, struct err *e)
{
	int r = bind_on(s, s->source, s->flags & MS_REC, e);

	return r ? r : remount(s->top, s->flags, s->m->clear, s->m->dest, e);
}

/* Something of the machine in the place of a file system that cannot be mounted here. */
static int bind_machine(struct step *s, const char *path, unsigned long rec, struct err *e)
{
	int fd = machine_open(path, e), r;

	if (fd < 0)
		return fd;
	r = bind_on(s, fd, rec, e);
	close(fd);
	return r ? r : remount(s->top, s->flags, 0, s->m->dest, e);
}

static int mount_fs(struct step *s, const char *type, unsigned long flags, struct err *e)
{
	char dest[FD_PATH_MAX];
	const char *source = s->m->source ? s->m->source : type;

	if (mount(source, fd_path(s->dest, dest), type, flags, s->m->data) < 0)
		return fail(s, -errno, type, e);
	return open_top(s, e);
}

/* Without a cgroup namespace a mount would show the machine's whole tree, and above the machine's
 * sysfs (do_sysfs()) it would be the same mount twice: the container gets its own part of it. */
static int do_cgroup(struct step *s, struct err *e)
{
	const struct ns *ns = &s->r->c->ns[NS_CGROUP];
	char path[CT_PATH_MAX];

	if ((ns->fresh || ns->of) && !s->r->userns)
		return mount_fs(s, "cgroup2", s->flags, e);
	cgroup_path(s->r->c->id, "", path);
	return bind_machine(s, path, 0, e);
}

/* A sysfs shows the devices of a network namespace, and belongs to that one's user namespace. */
static int do_sysfs(struct step *s, struct err *e)
{
	if (s->r->userns)
		return bind_machine(s, "/sys", MS_REC, e);
	return mount_fs(s, "sysfs", s->flags, e);
}

/* It looks as the directory did that it hides; tmpcopyup: and has what is in that. */
static int do_tmpfs(struct step *s, struct err *e)
{
	bool mode = s->m->data && strstr(s->m->data, "mode=");
	char path[FD_PATH_MAX];
	struct stat st;
	int r;

	if (fstat(s->dest, &st) < 0)
		return fail(s, -errno, "destination", e);
	r = mount_fs(s, "tmpfs", s->flags & ~(unsigned long)MS_RDONLY, e);
	if (!r && !mode && chmod(fd_path(s->top, path), st.st_mode & 07777) < 0)
		r = fail(s, -errno, "mode", e);
	if (!r && s->m->copyup)
		r = copy_tree(s->dest, s->top, 0, e);
	if (!r && s->flags & MS_RDONLY)
		r = remount(s->top, MS_RDONLY, 0, s->m->dest, e);
	return r;
}

static int do_remount(struct step *s, struct err *e)
{
	char path[FD_PATH_MAX];

	if (mount(NULL, fd_path(s->dest, path), NULL, s->flags, s->m->data) < 0)
		return fail(s, -errno, "remount", e);
	return open_top(s, e);
}

static int do_mount(struct step *s, struct err *e)
{
	if (s->flags & MS_REMOUNT)
		return do_remount(s, e);
	if (s->flags & MS_BIND)
		return do_bind(s, e);
	if (is_type(s, "tmpfs"))
		return do_tmpfs(s, e);
	if (is_type(s, "cgroup") || is_type(s, "cgroup2"))
		return do_cgroup(s, e);
	if (is_type(s, "sysfs"))
		return do_sysfs(s, e);
	return mount_fs(s, s->m->type, s->flags, e);
}

static int mount_one(struct root *r, size_t n, struct err *e)
{
	struct step s = {
		.r = r, .m = &r->c->mount[n], .source = r->source[n], .dest = -1, .top = -1};
	char path[FD_PATH_MAX];
	int rc;

	s.flags = s.m->flags;
	rc = open_dest(&s, e);
	if (!rc)
		rc = do_mount(&s, e);
	if (!rc && s.m->prop && mount(NULL, fd_path(s.top, path), NULL, s.m->prop, NULL) < 0)
		rc = fail(&s, -errno, "propagation", e);
	if (s.dest >= 0)
		close(s.dest);
	if (s.top >= 0)
		close(s.top);
	return rc;
}

int mounts_all(struct root *r, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < r->c->mounts && !rc; i++)
		rc = mount_one(r, i, e);
	return rc;
}

/* ---- paths ---- */

static int mask(int fd, const char *path, struct err *e)
{
	char to[FD_PATH_MAX];
	struct stat st;
	int rc = 0;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "mask %s", path);
	fd_path(fd, to);
	if (S_ISDIR(st.st_mode))
		rc = mount("tmpfs", to, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			   "size=4k,mode=755");
	else
		rc = mount("/dev/null", to, NULL, MS_BIND, NULL);
	return rc < 0 ? err_sys(e, -errno, "mask %s", path) : 0;
}

static int protect(struct root *r, int fd, const char *path, struct err *e)
{
	char to[FD_PATH_MAX];
	int top, rc;

	fd_path(fd, to);
	if (mount(to, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_sys(e, -errno, "make %s read-only", path);
	top = root_open(r->fd, path, 0);
	if (top < 0)
		return err_sys(e, top, "make %s read-only", path);
	rc = mount_readonly(top, path, e);
	close(top);
	return rc;
}

/* What is not there needs no protection. */
static int open_path(struct root *r, const char *path, struct err *e)
{
	int fd = root_open(r->fd, path, 0);

	if (fd >= 0 || fd == -ENOENT || fd == -ENOTDIR)
		return fd;
	return err_sys(e, fd, "open %s in the root", path);
}

int mounts_paths(struct root *r, struct err *e)
{
	const struct container *c = r->c;

	for (size_t i = 0; i < c->ro_path.n + c->masked.n; i++) {
		bool ro = i < c->ro_path.n;
		const char *path = ro ? c->ro_path.v[i] : c->masked.v[i - c->ro_path.n];
		int fd = open_path(r, path, e), rc;

		if (fd == -ENOENT || fd == -ENOTDIR)
			continue;
		if (fd < 0)
			return fd;
		rc = ro ? protect(r, fd, path, e) : mask(fd, path, e);
		close(fd);
		if (rc)
			return rc;
	}
	return 0;
}
