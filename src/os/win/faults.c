/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that somebody else fills: Windows has none. See insula/base.h. */
#include <errno.h>

#include <insula/base.h>

int faults_catch(int dev, void *at, size_t len, struct err *e)
{
	(void)dev, (void)at, (void)len;
	return err_set(e, -EOPNOTSUPP, "faults of memory cannot be caught");
}
