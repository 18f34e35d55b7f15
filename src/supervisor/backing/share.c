/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Live shares. See share.h.
 *
 * virtiofsd wants a socket to accept its one client from. It has a name for the moment between
 * bind() and unlink(), in a directory that is only ours: nobody else can be the first to connect.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "share.h"

#define SHARE_DEVICE_ID 26 /* virtio 1.2, 5.11 */
#define SHARE_QUEUES 2     /* high priority, requests; the C virtiofsd has no more */
#define MEET_NAME "/s"

/* Listen at `path`, and connect to it: pair[0] is the connected end, pair[1] listens. */
static int meet_at(const char *path, int pair[2])
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strcpy(a.sun_path, path);
	pair[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	pair[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pair[0] < 0 || pair[1] < 0 || bind(pair[1], (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	if (listen(pair[1], 1) || connect(pair[0], (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	return 0;
}

static int meet(int pair[2], struct err *e)
{
	char dir[] = "/tmp/insula-share.XXXXXX", path[sizeof(dir) + sizeof(MEET_NAME)];
	int rc;

	pair[0] = pair[1] = -1;
	if (!mkdtemp(dir)) /* mode 0700 */
		return err_sys(e, -errno, "%s", dir);
	snprintf(path, sizeof(path), "%s" MEET_NAME, dir);
	rc = meet_at(path, pair);
	unlink(path);
	rmdir(dir);
	if (!rc)
		return 0;
	fd_close(&pair[0]);
	fd_close(&pair[1]);
	return err_sys(e, rc, "%s", path);
}

/* Another virtiofsd, in place of the one before, and a connection to it. What goes wrong in it
 * later shows in its log and its end. */
static int share_connect(struct vhost_back *b, struct err *e)
{
	struct share *s = b->ctx;
	int pair[2], rc = meet(pair, e);

	if (rc)
		return rc;
	child_kill(&s->virtiofsd); /* the one before has lost its connection */
	b->peers++;
	rc = virtiofsd_spawn(s, pair[1], e);
	close(pair[1]);
	if (!rc)
		return pair[0];
	close(pair[0]);
	return rc;
}

/* ---- for open_linux.c ---- */

static int share_find(struct share *s, struct err *e)
{
	const char *dir = s->conf->dir;
	struct stat st;

	if (stat(dir, &st))
		return err_sys(e, -errno, "--share: %s", dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "--share: %s; expected a directory", dir);
	if (faccessat(AT_FDCWD, dir, X_OK, AT_EACCESS))
		return err_sys(e, -errno, "--share: %s", dir);
	s->program = virtiofsd_find(&s->kind);
	if (!s->program)
		return err_set(e, -ENOENT,
			       "--share needs the program virtiofsd (Debian 12: apt-get install "
			       "qemu-system-common; later: virtiofsd), or ,packed for a copy");
	s->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return s->dir < 0 ? err_sys(e, -errno, "--share: %s", dir) : 0;
}

int share_open(struct share *s, const struct share_config *conf, unsigned nth, struct err *e)
{
	*s = (struct share){.conf = conf,
			    .dir = -1,
			    .back = {.device_id = SHARE_DEVICE_ID,
				     .nqueues = SHARE_QUEUES,
				     .where = "virtiofsd",
				     .connect = share_connect,
				     .ctx = s,
				     .peer = &s->virtiofsd}};
	snprintf(s->back.tag, sizeof(s->back.tag), "insula%u", nth);
	vhost_init(&s->back);
	child_none(&s->virtiofsd);
	return share_find(s, e);
}

void share_close(struct share *s)
{
	child_free(&s->virtiofsd);
	vhost_close(&s->back);
	fd_close(&s->dir);
}
