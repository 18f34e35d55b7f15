/* SPDX-License-Identifier: BSD-2-Clause */
/* Networks: none on Windows yet. See config.h. */
#include <errno.h>

#include "config.h"

int config_net(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	(void)c;
	(void)v;
	return err_set(e, -EOPNOTSUPP, "%s: there is no network on Windows yet", where);
}
