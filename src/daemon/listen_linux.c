/* SPDX-License-Identifier: BSD-2-Clause */
/* Where clients come in: Unix sockets, our own or systemd's. The kernel says who they are. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "conf.h"
#include "daemon.h"
#include "dlog.h"
#include "foreign.h"
#include "link.h"
#include "listen.h"
#include "notify.h"
#include "process.h"
#include "record.h"
#include "state.h"
#include "watch.h"

#define ACCEPTS 16 /* per wake-up */
#define BACKLOG 128
#define PAUSE_MS 200 /* where the system has no descriptors left */

struct door {
	int listen, metrics; /* owned; -1: none */
	int spare;           /* given up to tell a client that there is no other; -1: just now */
	struct watch *watch, *watch_metrics;
	struct timer *again; /* nobody is let in until then */
	bool full;           /* whoever comes in now has the last descriptor */
};

static int identify(int fd, struct owner *who)
{
	struct ucred u;
	socklen_t len = sizeof(u), groups = sizeof(who->groups);

	*who = (struct owner){0};
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len))
		return -errno;
	who->uid = u.uid;
	who->gid = u.gid;
	/* Linux 4.13; without it a VM has none. */
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, who->groups, &groups))
		who->ngroups = (unsigned)(groups / sizeof(gid_t));
	else if (errno != ENOPROTOOPT)
		return -errno;
	return 0;
}

static void listen_take(struct daemon *d, int fd, void (*serve)(struct client *c))
{
	struct owner who;
	struct link *l = link_new(&d->loop, fd, false);
	int rc = identify(fd, &who);

	if (rc == -ERANGE)
		dlog(LOG_LVL_WARN, NULL, "client of uid %u: in more than %u groups; closed",
		     (unsigned)who.uid, MAX_GROUPS);
	if (l && !rc) {
		client_take(d, l, &who, serve);
		return;
	}
	foreign_hang_up(d, who.uid, l);
	d->n.refused_clients++;
}

bool clients_full(const struct daemon *d)
{
	return d->door && d->door->full;
}

static void let_in(struct daemon *d, bool in)
{
	struct door *k = d->door;

	watch_set(k->watch, in ? UV_READABLE : 0);
	if (k->watch_metrics)
		watch_set(k->watch_metrics, in ? UV_READABLE : 0);
}

static void listen_on_again(void *ctx)
{
	struct daemon *d = ctx;
	struct door *k = d->door;

	k->again = NULL;
	if (k->spare < 0)
		k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	let_in(d, true);
}

/* Whoever waits is told so. A listener that stays readable would keep the loop busy: it rests. */
static void no_descriptor(struct daemon *d, int listener, int error,
			  void (*serve)(struct client *c))
{
	struct door *k = d->door;
	int fd = -1;

	fd_close(&k->spare);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	k->full = true;
	if (fd >= 0)
		listen_take(d, fd, serve);
	k->full = false;
	dlog(LOG_LVL_WARN, NULL, "a client cannot be let in: %s", strerror(error));
	k->again = timer_after(&d->loop, PAUSE_MS, listen_on_again, d);
	let_in(d, !k->again);
}

static void accept_all(struct daemon *d, int listener, void (*serve)(struct client *c))
{
	for (int i = 0; i < ACCEPTS && !d->door->again; i++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			listen_take(d, fd, serve);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			   errno == ENOBUFS) {
			no_descriptor(d, listener, errno, serve);
		} else if (errno != ECONNABORTED && errno != EINTR) {
			return;
		}
	}
}

static void on_listen(void *ctx, int events)
{
	struct daemon *d = ctx;

	(void)events;
	accept_all(d, d->door->listen, NULL);
}

static void on_listen_metrics(void *ctx, int events)
{
	struct daemon *d = ctx;

	(void)events;
	accept_all(d, d->door->metrics, http_serve);
}

int clients_check(const struct conf *c, struct err *e)
{
	return !c->socket_group[0] || getgrnam(c->socket_group)
		       ? 0
		       : err_set(e, -EINVAL, "socket_group: '%s': no such group", c->socket_group);
}

/* Its mode it has from the start. Where others may write in the directory, the name may stand for
 * something else by now: it is looked at before it is given to a group. */
static int own_socket(const struct conf *c, const char *path)
{
	struct group *g = c->socket_group[0] ? getgrnam(c->socket_group) : NULL;
	struct stat st;
	int fd, rc = 0;

	if (!c->socket_group[0])
		return 0;
	if (!g)
		return -ENOENT;
	fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		rc = -errno;
	else if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		rc = -EPERM;
	else if (fchownat(fd, "", (uid_t)-1, g->gr_gid, AT_EMPTY_PATH))
		rc = -errno;
	fd_close(&fd);
	return rc;
}

/* A process that is dead may still have its descriptors: see take_lock(). */
static bool is_dead(int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) && u.pid > 0 &&
	       !process_start_time(u.pid);
}

/* -EADDRINUSE: somebody serves there. */
static int try_socket(const char *name, const struct sockaddr_un *a, struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served = fd >= 0 && (!connect(fd, (const struct sockaddr *)a, sizeof(*a))
					  ? !is_dead(fd)
					  : errno == EAGAIN || errno == EINPROGRESS);

	fd_close(&fd);
	return served ? err_set(e, -EADDRINUSE,
				"%s: %s: another program serves there; expected a path of its own",
				name, a->sun_path)
		      : 0;
}

/* Of the setting `name`. What nobody serves is left over. */
static int make_socket(const struct conf *c, const char *name, const char *path, unsigned mode,
		       struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char dir[CONF_PATH_MAX];
	struct stat st;
	int fd, rc;
	mode_t mask;

	snprintf(dir, sizeof(dir), "%s", path);
	*strrchr(dir, '/') = 0;
	rc = dir[0] ? make_dir(dir, 0755) : 0;
	if (rc)
		return err_sys(e, rc, "%s: %s", name, dir);
	if (!lstat(path, &st) && !S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "%s: %s: exists and is no socket", name, path);
	strcpy(a.sun_path, path);
	rc = try_socket(name, &a, e);
	if (rc)
		return rc;
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0);
	/* bind() makes the file with the mode of the socket. */
	if (fd < 0 || fchmod(fd, (mode_t)mode) || bind(fd, (struct sockaddr *)&a, sizeof(a)))
		rc = -errno;
	umask(mask);
	if (!rc)
		rc = own_socket(c, path);
	if (!rc && listen(fd, BACKLOG))
		rc = -errno;
	if (rc)
		fd_close(&fd);
	return rc ? err_sys(e, rc, "%s: %s", name, path) : fd;
}

static int open_sockets(struct daemon *d, struct door *k, struct err *e)
{
	int given[2] = {-1, -1}, n = notify_sockets(given, 2);
	const struct conf *c = &d->conf;

	if (n > 0 && c->socket_rights)
		dlog(LOG_LVL_WARN, NULL,
		     "socket_mode, socket_group and metrics_mode are not for sockets that systemd "
		     "hands over: use SocketMode and SocketGroup in insulad.socket");
	k->listen = n > 0 ? given[0] : make_socket(c, "socket", c->socket, c->socket_mode, e);
	if (k->listen < 0)
		return k->listen;
	k->metrics = n > 1                  ? given[1]
		     : c->metrics_socket[0] ? make_socket(c, "metrics_socket", c->metrics_socket,
							  c->metrics_mode, e)
					    : -1;
	return c->metrics_socket[0] && k->metrics < 0 ? k->metrics : 0;
}

int clients_listen(struct daemon *d, struct err *e)
{
	struct door *k = calloc(1, sizeof(*k));
	int rc;

	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	d->door = k;
	k->listen = k->metrics = -1;
	k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	rc = open_sockets(d, k, e);
	if (rc)
		return rc;
	k->watch = watch_new(&d->loop, k->listen, on_listen, d);
	if (k->metrics >= 0)
		k->watch_metrics = watch_new(&d->loop, k->metrics, on_listen_metrics, d);
	if (!k->watch || (k->metrics >= 0 && !k->watch_metrics))
		return err_set(e, -ENOTSOCK, "the sockets cannot be watched");
	let_in(d, true);
	return 0;
}

void clients_unlisten(struct daemon *d)
{
	struct door *k = d->door;

	if (!k)
		return;
	watch_free(k->watch);
	watch_free(k->watch_metrics);
	fd_close(&k->listen);
	fd_close(&k->metrics);
	fd_close(&k->spare);
	timer_cancel(k->again);
	free(k);
	d->door = NULL;
}

int owner_found_again(struct daemon *d, struct owner *who, struct err *e)
{
	(void)d;
	(void)who;
	(void)e;
	return 0;
}
