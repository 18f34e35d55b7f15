/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio-blk device over a file or a block device: which engine serves it. See blk.h. */
#include <errno.h>

#include "blk.h"

int blk_check_conf(const struct msg_start_blk *m, struct err *e)
{
	int rc = blk_check_disk(m, e);

	if (!rc && !blk_engine_find(m->engine))
		rc = err_set(e, -EINVAL, "unknown engine %u", m->engine);
	return rc;
}

int blk_open(struct blk *b, struct helper *h, const struct msg_start_blk *m,
	     const struct start_fds *f, const char **step, struct err *e)
{
	int rc = blk_begin_disk(b, h, m, f, blk_engine_find(m->engine), step, e);

	if (!rc)
		blk_describe(b);
	return rc;
}
