/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands in a VM. See ctl.h. */
#include <errno.h>

#include "ctl.h"

int ctl_exec(struct ctl *c, int argc, char **argv, int *status, struct err *e)
{
	(void)c;
	(void)argc;
	(void)argv;
	*status = CTL_FAILED;
	return err_set(e, -EINVAL, "exec: not on Windows yet");
}
