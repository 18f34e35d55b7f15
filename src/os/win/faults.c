/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that somebody else fills or guards: Windows has none. See insula/base.h. */
#include <errno.h>

#include <insula/base.h>

int faults_open(int dev, bool *guards, struct err *e)
{
	(void)dev, (void)guards;
	return err_set(e, -EOPNOTSUPP, "faults of memory cannot be caught");
}

int faults_catch(int fd, void *at, size_t len, struct err *e)
{
	(void)fd, (void)at, (void)len;
	return err_set(e, -EOPNOTSUPP, "faults of memory cannot be caught");
}
