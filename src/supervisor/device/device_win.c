/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on Windows. See device.h. */
#include "os/win/win.h"

#include <errno.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "device.h"

int device_page_renew(int page, struct err *e)
{
	(void)page;
	return err_set(e, -EOPNOTSUPP, "device page: nothing comes later on Windows");
}

int device_child_init(struct device *d, const char *libexec, struct err *e)
{
	(void)libexec; /* the programs lie beside insula-run.exe */
	(void)e;
	child_init_contained(&d->child, d->class->program, d->desc.name, CONTAIN_HELPER);
	return 0;
}

/* What the helper inherits is what its message names. */
int device_spawn(struct device *d, const struct device_start *s, struct err *e)
{
	int rc = child_spawn(&d->child, s->fds, s->nfds, e);

	if (rc)
		return rc;
	rc = child_send(&d->child, MSG_START, s->body, s->len, s->fds, s->nfds);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}
