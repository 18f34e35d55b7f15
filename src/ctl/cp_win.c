/* SPDX-License-Identifier: BSD-2-Clause */
/* There is no insulactl cp on Windows: `exec VM tar ...` with a pipe does it. See cp.h. */
#include <errno.h>

#include "cp.h"

int cp_out(struct cp *c, struct err *e)
{
	(void)c;
	return err_set(e, -EINVAL, "cp: not on Windows; expected exec VM -- tar ...");
}

int cp_in(struct cp *c, struct err *e)
{
	return cp_out(c, e);
}
