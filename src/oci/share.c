/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The directory that a VM shares with the host. See share.h.
 *
 * It is a small tmpfs: what a guest fills is that, and not the file system of the runtime's state.
 * A source is opened once; its type is looked at, and a copy of the mounts on it is made by that
 * descriptor, with its flags (never a device, never set-user-id, read-only where the configuration
 * says so) and cut off from the host's propagation, before anything is visible to the guest. Then it
 * is put onto a directory that is opened by descriptor, too: a guest may replace any name in the
 * share by a link at any moment. For the same reason nothing is removed by its path.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "bundle.h"
#include "field.h"
#include "oci/share.h"
#include "resolve.h"
#include "share_source.h"
#include "spec/json.h"

#define SIZE "size=64m,nr_inodes=16k,mode=0700"
#define NAME_MAX_PATH 64  /* of /proc/self/fd/N */
#define STACKED_MAX 64    /* mounts on one name */
#define DEPTH_MAX 24      /* of what a guest has left */
#define ENTRIES_MAX 65536 /* the same; it may make them as fast as they go */

static int open_in(int at, const char *name, uint64_t flags, uint64_t resolve)
{
	return open_resolved(at, name, flags,
			     resolve | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
				     RESOLVE_NO_MAGICLINKS);
}

static const char *fd_name(int fd, char out[NAME_MAX_PATH])
{
	snprintf(out, NAME_MAX_PATH, "/proc/self/fd/%d", fd);
	return out;
}

/* ---- the whole ---- */

int share_make(const char *dir, struct err *e)
{
	int rc;

	if (mkdir(dir, 0700))
		return err_sys(e, -errno, "%.160s", dir);
	if (!mount("insula-share", dir, "tmpfs", MS_NOSUID | MS_NODEV, SIZE)) {
		if (!mount(NULL, dir, NULL, MS_SHARED, NULL))
			return 0;
		rc = err_sys(e, -errno, "%.160s: shared propagation", dir);
		umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW);
	} else {
		rc = err_sys(e, -errno, "%.160s: tmpfs", dir);
	}
	rmdir(dir);
	return rc;
}

/* One call takes away all that is mounted beneath it, and follows no name in it. */
int share_remove(const char *dir, struct err *e)
{
	int n = 0;

	while (n < STACKED_MAX && !umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW))
		n++;
	if (!rmdir(dir) || errno == ENOENT)
		return 0;
	return err_sys(e, -errno, "%.160s", dir);
}

/* ---- one container ---- */

static int make_target(int at, const char *name, bool directory)
{
	int fd;

	if (directory) {
		if (mkdirat(at, name, 0700))
			return -errno;
		return open_in(at, name, O_PATH | O_DIRECTORY, RESOLVE_NO_XDEV);
	}
	fd = openat(at, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return open_in(at, name, O_PATH, RESOLVE_NO_XDEV);
}

/* A copy of the mounts on `fd`, which nobody sees yet. A mount that comes along later has the flags
 * that the host gave it: what is read-only does not follow, or the guest could write in that one. */
static int copy_tree(int fd, const struct mountopt *o)
{
	bool ro = o->flags & MS_RDONLY, rro = ro || o->attr & MOUNT_ATTR_RDONLY,
	     follows = o->prop & (MS_SLAVE | MS_SHARED) && !rro;
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
					      (ro ? MOUNT_ATTR_RDONLY : 0) |
					      (o->attr & MOUNT_ATTR_RDONLY),
				  .attr_clr = ro ? 0 : o->attr_clear & MOUNT_ATTR_RDONLY,
				  .propagation = follows ? MS_SLAVE : MS_PRIVATE};
	unsigned deep = o->flags & MS_REC ? AT_RECURSIVE : 0;
	int tree = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | deep);

	if (tree < 0)
		return -errno;
	if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr))) {
		int rc = -errno;

		close(tree);
		return rc;
	}
	return tree;
}

static int put_tree(int fd, const struct mountopt *o, int target)
{
	int tree = copy_tree(fd, o), rc;

	if (tree < 0)
		return tree;
	rc = move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
		     ? -errno
		     : 0;
	close(tree);
	return rc;
}

/* The file system of an engine's own volume, on top of an image's directory. */
static int put_overlay(const struct share_source *s, int target)
{
	const unsigned long known = MS_RDONLY | MS_NOATIME | MS_NODIRATIME | MS_RELATIME;
	char name[NAME_MAX_PATH];

	return mount("overlay", fd_name(target, name), "overlay",
		     (s->opt.flags & known) | MS_NOSUID | MS_NODEV, s->opt.data)
		       ? -errno
		       : 0;
}

static void tell_private(const struct mountopt *o, const char *where)
{
	static bool told;

	if (told || !(o->prop & (MS_SLAVE | MS_SHARED)) ||
	    !(o->flags & MS_RDONLY || o->attr & MOUNT_ATTR_RDONLY))
		return;
	told = true;
	log_warn("%s: read-only: later mounts of the host are not seen in it, whatever its "
		 "propagation",
		 where);
}

static int put_source(const struct share_source *s, int at, const char *name, const char *where,
		      struct err *e)
{
	int target = make_target(at, name, s->directory), rc = target;

	tell_private(&s->opt, where);
	if (target >= 0)
		rc = s->kind == SOURCE_OVERLAY ? put_overlay(s, target)
					       : put_tree(s->fd, &s->opt, target);
	fd_close(&target);
	return rc < 0 ? err_sys(e, rc, "%s: share of it", where) : 0;
}

static int put_root(const struct bundle *b, int at, bool readonly, struct err *e)
{
	struct mountopt o = {.flags = MS_REC | (readonly ? MS_RDONLY : 0)};
	int fd = open(b->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC), target, rc;
	const char *path;

	if (fd < 0)
		return err_sys(e, -errno, "root.path: %.160s", b->rootfs);
	if (readonly || bundle_namespace(b, "user", &path))
		share_mountpoints(b, fd);
	target = make_target(at, "rootfs", true);
	rc = target < 0 ? target : put_tree(fd, &o, target);
	fd_close(&target);
	close(fd);
	return rc ? err_sys(e, rc, "root.path: %.120s: share of it", b->rootfs) : 0;
}

static int one_mount(const struct bundle *b, size_t i, const char *id, int m, char **out,
		     struct err *e)
{
	char where[FIELD_WHERE_MAX], name[24];
	struct share_source s;
	json_object *one;
	int rc = field_object_at(b->mounts, "mounts", i, where, &one, e);

	if (!rc)
		rc = share_source_open(&s, b, one, where, e);
	if (rc)
		return rc;
	snprintf(name, sizeof(name), "%zu", i);
	if (s.kind == SOURCE_NONE)
		*out = strdup("");
	else if (s.kind == SOURCE_GUEST)
		*out = strdup(s.guest);
	else if (!(rc = put_source(&s, m, name, where, e)) &&
		 asprintf(out, "%s/%s/m/%zu", CT_SHARE, id, i) < 0)
		*out = NULL;
	share_source_close(&s);
	if (!rc && !*out)
		rc = err_set(e, -ENOMEM, "out of memory");
	return rc;
}

static int put_all(const struct bundle *b, const char *id, int at, char **source, size_t n,
		   struct err *e)
{
	bool readonly = false;
	json_object *root;
	int m = -1, rc = field_object(b->spec, "", "root", &root, e);

	if (!rc)
		rc = field_bool(root, "root", "readonly", &readonly, e);
	if (rc >= 0)
		rc = put_root(b, at, readonly, e);
	if (rc)
		return rc;
	m = make_target(at, "m", true);
	if (m < 0)
		return err_sys(e, m, "share of %s: m", id);
	for (size_t i = 0; i < n && !rc; i++)
		rc = one_mount(b, i, id, m, &source[i], e);
	close(m);
	return rc;
}

static void free_sources(char **source, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(source[i]);
	free(source);
}

int share_container(const char *dir, const char *id, const struct bundle *b, char ***source,
		    unsigned *nsources, struct err *e)
{
	size_t n = field_count(b->mounts);
	char **list = calloc(n + 1, sizeof(*list));
	int top = open(dir, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), at = -1, rc;
	struct err later;

	if (!list)
		rc = err_set(e, -ENOMEM, "out of memory");
	else if (top < 0)
		rc = err_sys(e, -errno, "%.160s", dir);
	else if (!share_is_mount(top))
		rc = err_set(e, -EXDEV,
			     "%.160s: nothing is mounted there; expected the mount namespace "
			     "that its sandbox was made in",
			     dir);
	else if ((at = make_target(top, id, true)) < 0)
		rc = err_sys(e, at, "share of container %s", id);
	else
		rc = put_all(b, id, at, list, n, e);
	if (rc && at >= 0)
		(void)share_drop(dir, id, &later);
	fd_close(&at);
	fd_close(&top);
	if (rc) {
		free_sources(list, list ? n : 0);
		return rc;
	}
	*source = list;
	*nsources = (unsigned)n;
	return 0;
}

/* ---- removal ---- */

/* Whatever is mounted on that name, as often as it is. */
static int detach(int at, const char *name)
{
	for (int i = 0; i < STACKED_MAX; i++) {
		char path[NAME_MAX_PATH];
		int fd = open_in(at, name, O_PATH | O_NOFOLLOW, 0), rc = 0;

		if (fd < 0) /* gone; or a link, on which nothing is mounted */
			return fd == -ENOENT || fd == -ELOOP ? 0 : fd;
		if (!share_is_mount(fd)) {
			close(fd);
			return 0;
		}
		if (umount2(fd_name(fd, path), MNT_DETACH))
			rc = -errno;
		close(fd);
		if (rc)
			return rc;
	}
	return -EBUSY;
}

static unsigned entries; /* that share_drop() has met */

static int drop_name(int at, const char *name, unsigned depth);

/* No mount is entered, whatever happens meanwhile: what is behind it is the user's. */
static int drop_below(int at, const char *name, unsigned depth)
{
	int fd = depth < DEPTH_MAX ? open_in(at, name, O_DIRECTORY | O_RDONLY, RESOLVE_NO_XDEV)
				   : -ELOOP,
	    rc = 0;
	struct dirent *entry;
	DIR *d;

	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		rc = -errno;
		close(fd);
		return rc;
	}
	while (entries < ENTRIES_MAX && (entry = readdir(d))) {
		int one = 0;

		entries++;
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			one = drop_name(fd, entry->d_name, depth + 1);
		rc = rc ? rc : one;
	}
	closedir(d);
	return rc;
}

static int drop_name(int at, const char *name, unsigned depth)
{
	int rc = detach(at, name);

	if (rc || !unlinkat(at, name, 0) || errno == ENOENT)
		return rc;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	rc = drop_below(at, name, depth);
	if (!rc && unlinkat(at, name, AT_REMOVEDIR) && errno != ENOENT)
		rc = -errno;
	return rc;
}

/* m/N. */
static int detach_each(int m)
{
	DIR *d = fdopendir(m);
	const struct dirent *entry;
	int rc = 0;

	if (!d) {
		rc = -errno;
		close(m);
		return rc;
	}
	for (unsigned i = 0; i < ENTRIES_MAX && (entry = readdir(d)); i++) {
		int one = 0;

		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			one = detach(m, entry->d_name);
		rc = rc ? rc : one;
	}
	closedir(d);
	return rc;
}

static int detach_known(int top, const char *id)
{
	int at = open_in(top, id, O_DIRECTORY | O_RDONLY, RESOLVE_NO_XDEV), rc, m;

	if (at < 0)
		return 0; /* gone, or moved away */
	rc = detach(at, "rootfs");
	m = open_in(at, "m", O_DIRECTORY | O_RDONLY, RESOLVE_NO_XDEV);
	if (m >= 0) {
		int one = detach_each(m);

		rc = rc ? rc : one;
	}
	close(at);
	return rc;
}

/* What is the user's goes first: a guest cannot hold that by what it has put beside. What it has put
 * there so that it cannot be removed (deeper than anybody needs) ends with the VM's tmpfs. */
int share_drop(const char *dir, const char *id, struct err *e)
{
	int top = open(dir, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc, left;

	if (top < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%.160s", dir);
	rc = detach_known(top, id);
	entries = 0;
	left = drop_name(top, id, 0);
	close(top);
	if (rc)
		return err_sys(e, rc, "share of container %s", id);
	if (left)
		log_warn("share of container %s: left to the end of its VM: %s", id,
			 strerror(-left));
	return 0;
}

/* ---- what the guest writes ---- */

int share_enter(int top, const char *id, struct err *e)
{
	int fd = open_in(top, id, O_DIRECTORY | O_RDONLY, RESOLVE_NO_XDEV);

	return fd < 0 ? err_sys(e, fd, "share of container %s", id) : fd;
}

int share_status(int at, const char *name, char line[CT_STATUS_MAX + 1], struct err *e)
{
	/* A pipe in its place would wait for a writer. */
	int fd = open_in(at, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, RESOLVE_NO_XDEV);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return err_sys(e, fd, "%s", name);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > CT_STATUS_MAX) {
		close(fd);
		return err_set(e, -EINVAL, "%s: expected a file of at most %u bytes", name,
			       CT_STATUS_MAX);
	}
	n = read(fd, line, CT_STATUS_MAX);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return err_sys(e, (int)n, "%s", name);
	for (ssize_t i = 0; i < n; i++) {
		if (!line[i])
			line[i] = '?';
	}
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	err_clean(line);
	return 0;
}
