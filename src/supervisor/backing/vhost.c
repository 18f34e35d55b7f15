/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections to the back ends of vhost-user devices. See vhost.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/child.h"
#include "vhost.h"

#define BACKOFF_FIRST_MS 10u
#define SERVER_PATIENCE_MS 100u /* somebody who has connected waits no longer than this */
#define STEADY_NS 5000000000ull /* a connection that lasts so long ends a row of failures */
#define MS_NS 1000000ull
#define BACKLOG 4

void vhost_init(struct vhost_back *b)
{
	b->listener = b->inflight = b->had = -1;
	b->region = (struct vhost_inflight){0};
	b->ino = 0;
	b->away = false;
	b->backoff_ms = 0;
	b->due_ns = b->up_ns = 0;
	if (!b->patience_ms)
		b->patience_ms = VHOST_PATIENCE_MS;
}

/* ---- the socket of --device ---- */

static int vhost_socket(const char *path, struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	strcpy(a->sun_path, path); /* its length was checked with the setting */
	return fd < 0 ? -errno : fd;
}

static int vhost_connect_path(struct vhost_back *b, struct err *e)
{
	struct sockaddr_un a;
	int fd = vhost_socket(b->conf->socket, &a), rc;

	if (fd < 0)
		return err_sys(e, fd, "--device: socket");
	if (!connect(fd, (const struct sockaddr *)&a, sizeof(a)))
		return fd;
	rc = err_sys(e, -errno, "--device: socket %s", b->conf->socket);
	close(fd);
	return rc;
}

static int vhost_accept(struct vhost_back *b, struct err *e)
{
	int fd = accept4(b->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	return fd < 0 ? err_sys(e, -errno, "--device: socket %s", b->conf->socket) : fd;
}

/* What a VM leaves behind that was killed: a socket on which nobody listens. */
static int vhost_remove_dead(const char *path, bool check_only, struct err *e)
{
	struct sockaddr_un a;
	struct stat st;
	int fd, rc;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : err_sys(e, -errno, "--device: socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(
			e, -EINVAL,
			"--device: socket %s: something else is there; expected a path where "
			"nothing is",
			path);
	fd = vhost_socket(path, &a);
	if (fd < 0)
		return err_sys(e, fd, "--device: socket");
	rc = connect(fd, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	close(fd);
	if (rc != -ECONNREFUSED)
		return err_set(e, -EADDRINUSE,
			       "--device: socket %s: in use; expected a path where nothing is",
			       path);
	if (!check_only && unlink(path))
		return err_sys(e, -errno, "--device: socket %s", path);
	return 0;
}

static int vhost_listen(struct vhost_back *b, struct err *e)
{
	const char *path = b->conf->socket;
	struct sockaddr_un a;
	struct stat st;
	mode_t old;
	int rc = 0;

	b->listener = vhost_socket(path, &a);
	if (b->listener < 0)
		return err_sys(e, b->listener, "--device: socket");
	/* Whoever connects gets the guest's memory: the mode is right from the first moment on. */
	old = umask(0177);
	if (bind(b->listener, (const struct sockaddr *)&a, sizeof(a)))
		rc = -errno;
	umask(old);
	if (!rc && (lstat(path, &st) || listen(b->listener, BACKLOG)))
		rc = -errno;
	if (rc)
		return err_sys(e, rc, "--device: socket %s", path);
	b->dev = st.st_dev;
	b->ino = st.st_ino;
	return 0;
}

static int vhost_check_path(const char *path, struct err *e)
{
	struct stat st;

	if (stat(path, &st))
		return err_sys(e, -errno, "--device: socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EINVAL, "--device: socket %s: not a socket", path);
	return 0;
}

int vhost_open(struct vhost_back *b, const struct vhost_config *c, bool check_only, struct err *e)
{
	int rc;

	*b = (struct vhost_back){.device_id = c->device_id,
				 .nqueues = c->nqueues,
				 .config_len = c->config_len,
				 .where = c->socket,
				 .patience_ms = c->server ? SERVER_PATIENCE_MS : 0,
				 .connect = c->server ? vhost_accept : vhost_connect_path,
				 .conf = c,
				 .waits = c->server};
	memcpy(b->mac, c->mac, sizeof(b->mac));
	snprintf(b->tag, sizeof(b->tag), "%s", c->tag);
	vhost_init(b);
	if (!c->server)
		return vhost_check_path(c->socket, e);
	rc = vhost_remove_dead(c->socket, check_only, e);
	if (!rc && !check_only)
		rc = vhost_listen(b, e);
	if (rc)
		vhost_close(b);
	return rc;
}

void vhost_close(struct vhost_back *b)
{
	struct stat st;

	if (b->ino && !lstat(b->conf->socket, &st) && st.st_dev == b->dev && st.st_ino == b->ino)
		unlink(b->conf->socket);
	b->ino = 0;
	fd_close(&b->listener);
	fd_close(&b->inflight);
	fd_close(&b->had);
}

/* ---- connections ---- */

static bool nobody_now(int code)
{
	return code == -ECONNREFUSED || code == -EAGAIN;
}

/* Twice as long as the last time, less a part of chance. */
static void vhost_try_later(struct vhost_back *b)
{
	uint32_t chance;

	b->backoff_ms = !b->backoff_ms                       ? BACKOFF_FIRST_MS
			: b->backoff_ms > b->patience_ms / 2 ? b->patience_ms
							     : 2 * b->backoff_ms;
	random_bytes(&chance, sizeof(chance));
	b->due_ns = clock_ns() + (b->backoff_ms - chance % (b->backoff_ms / 2)) * MS_NS;
	b->away = true;
}

static int vhost_connected(struct vhost_back *b, int fd)
{
	b->away = false;
	b->up_ns = clock_ns();
	fd_close(&b->had);
	if (!b->peer) /* a program of ours ends with its connection */
		b->had = fd_copy(fd);
	return fd;
}

static void vhost_gone(struct vhost_back *b)
{
	fd_close(&b->had);
	if (clock_ns() - b->up_ns >= STEADY_NS)
		b->backoff_ms = 0;
	vhost_try_later(b);
}

bool vhost_lost(struct vhost_back *b)
{
	if (b->away)
		return false;
	vhost_gone(b);
	/* One that is not about to end, but has closed its connection. */
	if (b->peer)
		child_shoot(b->peer);
	return true;
}

uint64_t vhost_due(const struct vhost_back *b)
{
	/* A program that has not ended yet has still to say why. */
	return b->away && (!b->peer || b->peer->state == CHILD_NONE) ? b->due_ns : 0;
}

int vhost_retry(struct vhost_back *b, struct err *e)
{
	int fd = b->connect(b, e);

	if (fd >= 0)
		return vhost_connected(b, fd);
	vhost_try_later(b);
	return fd;
}

/* A connection without its other end. */
static int vhost_dead_stream(struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "socketpair");
	close(pair[1]);
	return pair[0];
}

int vhost_stream(struct vhost_back *b, bool *had, struct err *e)
{
	bool first = !b->up_ns && !b->away;
	int fd = b->had;

	*had = fd >= 0;
	if (*had) {
		b->had = -1;
		vhost_gone(b);
		return fd;
	}
	if (b->away && clock_ns() < b->due_ns)
		return vhost_dead_stream(e);
	fd = b->connect(b, e);
	if (fd >= 0)
		return vhost_connected(b, fd);
	/* A path that cannot be, or a back end that was not started: the user's to mend. */
	if (first && !(b->waits && nobody_now(fd)))
		return fd;
	vhost_try_later(b);
	return vhost_dead_stream(e);
}

bool vhost_keep(struct vhost_back *b, const struct vhost_inflight *region, int fd)
{
	if ((fd >= 0) != (region->size != 0)) {
		fd_close(&fd);
		return false;
	}
	fd_close(&b->inflight);
	b->inflight = fd;
	b->region = *region;
	return true;
}
