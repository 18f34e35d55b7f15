/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-blk: one virtio-blk disk, in a jail of its own. Its stages are in program.h. */
#include "blk.h"
#include "devices/program.h"

#define FIXED_FDS \
	5 /* memory, page, call, irq, disk; then perhaps another, and the queues' kicks \
	   */

static int check(const void *start, struct err *e)
{
	const struct msg_start_blk *m = start;
	int rc = blk_check_conf(m, e);

	return rc ? rc : FIXED_FDS + (m->flags & BLK_OTHER ? 1 : 0) + (int)m->nqueues;
}

static int open_device(void *dev, struct helper *h, const void *start, const int *fds,
		       const char **step, struct err *e)
{
	return blk_open(dev, h, start, fds, step, e);
}

static void rules(const void *dev, struct rule_list *l)
{
	blk_rules(dev, l);
}

static int attach(void *dev, struct helper *h, struct err *e)
{
	struct blk *b = dev;

	return helper_attach(h, &worker_helper_ops, &b->w, e);
}

int main(void)
{
	static struct blk blk;

	helper_main(&(struct helper_program){
		.start = MSG_START_BLK,
		.start_size = sizeof(struct msg_start_blk),
		.log_level = offsetof(struct msg_start_blk, log_level),
		.dev = &blk,
		.check = check,
		.open = open_device,
		.rules = rules,
		.attach = attach,
	});
}
