/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's part of a vsock device. See vsock.h. */
#include <errno.h>
#include <limits.h>
#include <linux/vhost.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "vhost_node.h"
#include "vsock.h"
#include "vsock_os.h"

#define BACKLOG 4096 /* the kernel takes less: net.core.somaxconn */
#define PORT_DIGITS 10
#define TELL_NS 1000000000ull /* a log line about a refusal, at most so often */

static int stream_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

/* An address that goes through a descriptor: "/proc/self/fd/DIR/NAME", or without a name the
 * object itself. Names of any length of a path fit, and no directory is looked up again. */
static int address(struct sockaddr_un *a, int fd, const char *name)
{
	int n;

	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	n = snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d%s%s", fd, *name ? "/" : "",
		     name);
	return n < 0 || (size_t)n >= sizeof(a->sun_path) ? -ENAMETOOLONG : 0;
}

static bool trusted(uid_t owner)
{
	return owner == geteuid() || owner == 0;
}

/* Connect to a socket in `dir`, and to nothing but a socket: it is looked at through the descriptor
 * that is then connected to, and a symbolic link is not followed. With `owner` it must belong to
 * our user or to root; *owner is whose it is. */
static int connect_at(int dir, const char *name, uid_t *owner)
{
	struct sockaddr_un a;
	struct stat st;
	int s = -1, rc = 0, at = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (at < 0)
		return -errno;
	if (fstat(at, &st))
		rc = -errno;
	else if (!S_ISSOCK(st.st_mode))
		rc = -ENOTSOCK;
	else if (owner && !trusted(*owner = st.st_uid))
		rc = -EPERM;
	if (!rc)
		rc = s = stream_socket();
	if (rc >= 0)
		rc = address(&a, at, "");
	if (!rc && connect(s, (const struct sockaddr *)&a, sizeof(a)))
		rc = -errno;
	if (rc < 0)
		fd_close(&s);
	close(at);
	return rc < 0 ? rc : s;
}

static void tell_refusal(struct vsock *v, const char *name, const char *what, uid_t owner)
{
	uint64_t now = clock_ns();

	if (v->told_ns && now - v->told_ns < TELL_NS)
		return;
	v->told_ns = now;
	log_warn("vsock: %s%s belongs to uid %u; expected uid %u or root: the guest is refused",
		 name, what, (unsigned)owner, (unsigned)geteuid());
}

/* Where others may make files, one of them could stand in for the program that the guest means.
 * Whoever owns the directory can put there what he likes. */
int vsock_connect(struct vsock *v, uint32_t port)
{
	char name[sizeof(v->name) + PORT_DIGITS + 1];
	uid_t owner = 0;
	struct stat st;
	int rc;

	if (v->dir < 0)
		return -ENETUNREACH;
	snprintf(name, sizeof(name), "%s_%u", v->name, port);
	if (fstat(v->dir, &st))
		return -errno;
	if (!trusted(st.st_uid)) {
		tell_refusal(v, name, "'s directory", st.st_uid);
		return -EPERM;
	}
	rc = connect_at(v->dir, name, &owner);
	if (rc == -EPERM && !trusted(owner))
		tell_refusal(v, name, "", owner);
	return rc;
}

/* ---- the listening socket ---- */

/* P's directory, once, and its last component. */
static int open_dir(struct vsock *v, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char dir[PATH_MAX];
	struct sockaddr_un a;
	size_t len = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;

	if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || len >= sizeof(dir))
		return err_set(e, -EINVAL, "--vsock: path %.100s; expected the path of a socket",
			       path);
	memcpy(dir, path, len);
	dir[len] = 0;
	v->dir = open(len ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (v->dir < 0)
		return err_sys(e, -errno, "--vsock: %.200s", len ? dir : ".");
	/* Room for the port as well: P_<port>. */
	if (strlen(name) + 1 + PORT_DIGITS > NAME_MAX || address(&a, v->dir, name))
		return err_set(e, -ENAMETOOLONG,
			       "--vsock: %.100s: the name of the socket is too long", name);
	strcpy(v->name, name);
	return 0;
}

/* What a VM leaves behind that was killed: a socket on which nobody listens. */
static int remove_dead(const struct vsock *v, const char *path, bool check_only, struct err *e)
{
	int fd = connect_at(v->dir, v->name, NULL);

	if (fd >= 0)
		close(fd);
	if (fd == -ENOENT)
		return 0;
	if (fd != -ECONNREFUSED)
		return err_set(e, -EADDRINUSE,
			       "--vsock: %.150s: %s; expected a path where nothing is", path,
			       fd == -ENOTSOCK ? "something else is there already"
					       : "a socket is in use there");
	if (!check_only && unlinkat(v->dir, v->name, 0))
		return err_sys(e, -errno, "--vsock: %.200s", path);
	return 0;
}

/* For check_only: could it be bound? */
static int check_dir(const struct vsock *v, const char *path, struct err *e)
{
	return faccessat(v->dir, ".", W_OK | X_OK, AT_EACCESS)
		       ? err_sys(e, -errno, "--vsock: %.200s", path)
		       : 0;
}

static int bind_listener(struct vsock *v, const char *path, struct err *e)
{
	struct sockaddr_un a;
	struct stat st;
	mode_t old;
	int rc = v->listener = stream_socket();

	if (rc >= 0)
		rc = address(&a, v->dir, v->name);
	if (rc)
		return err_sys(e, rc, "--vsock: socket");
	/* The mode is right from the first moment on: whoever connects, reaches the guest. */
	old = umask(0177);
	if (bind(v->listener, (const struct sockaddr *)&a, sizeof(a)))
		rc = -errno;
	umask(old);
	if (!rc &&
	    (fstatat(v->dir, v->name, &st, AT_SYMLINK_NOFOLLOW) || listen(v->listener, BACKLOG)))
		rc = -errno;
	if (rc)
		return err_sys(e, rc, "--vsock: %.200s", path);
	v->dev = st.st_dev;
	v->ino = st.st_ino;
	return 0;
}

/* ---- vhost ---- */

/* The CID is ours until it is closed. */
static int vsock_kernels(uint32_t number, struct err *e)
{
	uint64_t cid = number;
	int fd = vhost_node_open("vsock", e), rc;

	if (fd < 0 || !ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &cid))
		return fd;
	rc = errno == EADDRINUSE
		     ? err_set(e, -EADDRINUSE,
			       "--vsock: cid '%u': another machine of this host has it; expected "
			       "one that none has",
			       number)
		     : err_sys(e, -errno, "--vsock: cid '%u'", number);
	close(fd);
	return rc;
}

static int open_vhost(struct vsock *v, bool check_only, struct err *e)
{
	v->vhost = true;
	v->reserved = vsock_kernels(v->cid, e);
	if (v->reserved < 0)
		return v->reserved;
	if (check_only)
		fd_close(&v->reserved);
	return 0;
}

/* ---- all of it ---- */

int vsock_open(struct vsock *v, const struct vsock_config *c, bool check_only, struct err *e)
{
	int rc;

	*v = (struct vsock){.dir = -1, .listener = -1, .reserved = -1, .cid = c->cid};
	if (c->vhost)
		return open_vhost(v, check_only, e);
	if (!c->path)
		return 0;
	rc = open_dir(v, c->path, e);
	if (!rc)
		rc = remove_dead(v, c->path, check_only, e);
	if (!rc)
		rc = check_only ? check_dir(v, c->path, e) : bind_listener(v, c->path, e);
	if (rc)
		vsock_close(v);
	return rc;
}

void vsock_close(struct vsock *v)
{
	struct stat st;

	if (v->ino && !fstatat(v->dir, v->name, &st, AT_SYMLINK_NOFOLLOW) && st.st_dev == v->dev &&
	    st.st_ino == v->ino)
		unlinkat(v->dir, v->name, 0);
	v->ino = 0;
	fd_close(&v->listener);
	fd_close(&v->reserved);
	fd_close(&v->dir);
}

/* ---- messages ---- */

int vsock_stream(struct device *d, uint32_t port, int fd, struct err *e)
{
	const struct msg_vsock_stream m = {.port = port};
	int rc, flags = fcntl(fd, F_GETFL);

	if (d->child.state == CHILD_NONE)
		return err_set(e, -ENOTCONN, "%s: no process serves it now", d->desc.name);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return err_sys(e, -errno, "stream for %s", d->desc.name);
	rc = child_send(&d->child, MSG_VSOCK_STREAM, &m, sizeof(m), &fd, 1);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

/* ---- for dev_vsock.c ---- */

unsigned vsock_nofile(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_max > VSOCK_MAX_CONNS + VSOCK_OTHER_FDS)
		return VSOCK_MAX_CONNS + VSOCK_OTHER_FDS;
	return (unsigned)l.rlim_max;
}

int vsock_reach(struct vsock *v, int *own, int *once, struct err *e)
{
	if (v->vhost) {
		*own = *once = v->reserved >= 0 ? v->reserved : vsock_kernels(v->cid, e);
		v->reserved = -1;
		return *own < 0 ? *own : VSOCK_VHOST;
	}
	*own = v->listener;
	return v->listener >= 0 ? VSOCK_LISTENS : 0;
}

uint32_t vsock_conns(const struct device *d)
{
	return d->child.os.nofile > VSOCK_OTHER_FDS ? d->child.os.nofile - VSOCK_OTHER_FDS : 1;
}

bool vsock_wanted(struct device *d, const struct msg_vsock_connect *q)
{
	struct msg_vsock_connected a = {.id = q->id};
	int fd = vsock_connect(d->back.vsock, q->port), rc;

	a.error = fd < 0 ? fd : 0;
	if (fd < 0)
		log_debug("%s: port %u: %s", d->desc.name, q->port, strerror(-fd));
	rc = child_send(&d->child, MSG_VSOCK_CONNECTED, &a, sizeof(a), &fd, fd < 0 ? 0 : 1);
	fd_close(&fd);
	/* It asks no more than it may if it reads the answers. One that has died has not. */
	return rc == 0 || rc == -EPIPE || rc == -ECONNRESET;
}

/* The helper accepts its clients by itself, and is answered at once. */
void vsock_serves(struct device *d, struct loop *l, bool serves)
{
	(void)d;
	(void)l;
	(void)serves;
}

uint64_t vsock_due(const struct device *d)
{
	(void)d;
	return 0;
}

void vsock_tend(struct device *d)
{
	(void)d;
}
