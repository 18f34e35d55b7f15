/* SPDX-License-Identifier: BSD-2-Clause */
/* There are no overlays on Windows: insula-run refuses them, and so does this. See blk_overlay.h.
 */
#include <errno.h>

#include "blk.h"

int blk_overlay_open(struct blk_overlay *o, uint64_t capacity, bool thrown_away, int fd,
		     int base_fd, int memory_fd, struct err *e)
{
	(void)o;
	(void)capacity;
	(void)thrown_away;
	(void)fd;
	(void)base_fd;
	(void)memory_fd;
	return err_set(e, -EOPNOTSUPP, "overlay: not on Windows");
}

void blk_overlay_rules(const struct blk_overlay *o, struct rule_list *l)
{
	(void)o;
	(void)l;
}

void blk_overlay_finish(struct blk_overlay *o)
{
	(void)o;
}
