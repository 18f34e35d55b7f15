/* SPDX-License-Identifier: BSD-2-Clause */
/* No descriptor comes from anybody else. See closer.h. */
#include <stdlib.h>

#include <insula/base.h>

#include "closer.h"

struct closer {
	closed_fn *fn;
	void *ctx;
};

struct closer *closer_new(uv_loop_t *loop, closed_fn *fn, void *ctx)
{
	struct closer *c = calloc(1, sizeof(*c));

	(void)loop;
	if (c)
		*c = (struct closer){fn, ctx};
	return c;
}

void closer_give(struct closer *c, uint32_t uid, int fd, bool connection)
{
	(void)connection;
	fd_close(&fd);
	c->fn(c->ctx, uid);
}

void closer_free(struct closer *c)
{
	free(c);
}
