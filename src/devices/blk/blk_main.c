/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-blk: one virtio-blk disk, in a jail of its own. Its stages are in program.h. */
#include "blk.h"
#include "devices/program.h"

static int blk_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_blk *m = start;
	unsigned own = 1u + (m->flags & BLK_OTHER ? 1u : 0u) + (m->flags & BLK_OVERLAY ? 2u : 0u);
	int rc = blk_check_conf(m, e);

	if (!rc)
		rc = start_expect(f, START_KICK, m->nqueues, e);
	return rc ? rc : start_expect(f, START_OWN, own, e);
}

static int blk_main_open_device(void *dev, struct helper *h, const void *start,
				const struct start_fds *f, const char **step, struct err *e)
{
	return blk_open(dev, h, start, f, step, e);
}

static void blk_main_rules(const void *dev, struct rule_list *l)
{
	blk_rules(dev, l);
}

static int blk_main_attach(void *dev, struct helper *h, struct err *e)
{
	return blk_attach(dev, h, e);
}

int main(void)
{
	static struct blk blk;

	helper_main(&(struct helper_program){
		.tag = BLK_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_blk),
		.dev = &blk,
		.check = blk_main_check,
		.open = blk_main_open_device,
		.rules = blk_main_rules,
		.attach = blk_main_attach,
	});
}
