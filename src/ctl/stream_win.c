/* SPDX-License-Identifier: BSD-2-Clause */
/* A console on the standard streams. See ctl.h. */
#include <errno.h>

#include "ctl.h"

int stream_offer(json_object *params, int *peer, struct err *e)
{
	(void)params;
	*peer = -1;
	return err_set(e, -EINVAL,
		       "the console cannot be attached on Windows yet; expected -d, or "
		       "create and start");
}

/* For insulad to refuse. */
int stream_attach(struct conn *c, json_object *params, struct err *e)
{
	json_object *r = conn_call(c, "vm.console", params, e);

	json_object_put(r);
	return r ? err_set(e, -EPROTO, "insulad has sent no descriptor") : e->code;
}

int stream_console(int fd)
{
	(void)fd;
	return 0;
}
