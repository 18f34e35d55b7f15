/* SPDX-License-Identifier: BSD-2-Clause */
/* Live shares. See share.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "confine.h"
#include "share.h"

#define SHARE_DEVICE_ID 26 /* virtio 1.2, 5.11 */
#define SHARE_QUEUES 2     /* high priority, requests; the C virtiofsd has no more */

static int share_spawn(void *share, int listener, struct err *e)
{
	struct share *s = share;

	s->back.peers++;
	return virtiofsd_spawn(s, listener, e);
}

/* Another virtiofsd, in place of the one before, and a connection to it. What goes wrong in it
 * later shows in its log and its end. */
static int share_connect(struct vhost_back *b, struct err *e)
{
	return confine_replace(b->peer, share_spawn, b->ctx, e);
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
