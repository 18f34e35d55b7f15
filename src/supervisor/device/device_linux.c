/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on Linux. See device.h. */
#include <errno.h>
#include <fcntl.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "device.h"

/* A hole where there was something: what is mapped there is zeros from now on. */
int device_page_renew(int page, struct err *e)
{
	if (fallocate(page, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, DP_SIZE))
		return err_sys(e, -errno, "device page");
	return device_page_head(page, e);
}

int device_child_init(struct device *d, const char *libexec, struct err *e)
{
	const struct device_class *c = d->class;
	unsigned more = d->nqueues ? d->nqueues - 1 : 0;

	child_none(&d->child);
	if (!c->program)
		return 0;
	return child_init(&d->child, libexec, c->program, d->desc.name,
			  c->threads + more * c->queue_threads, c->nofile, e);
}

int device_spawn(struct device *d, const struct device_start *s, struct err *e)
{
	int rc;

	d->child.os.fsize = d->class->fsize ? d->class->fsize(d) : 0;
	rc = child_spawn(&d->child, s->fds, s->nfds, e);
	if (rc)
		return rc;
	rc = child_send(&d->child, MSG_START, s->body, s->len, s->fds, s->nfds);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}
