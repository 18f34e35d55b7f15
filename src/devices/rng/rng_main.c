/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-rng: one virtio-rng device, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "rng.h"

#define NFDS 5 /* memory, page, call, irq, kick */

static int check(const void *start, struct err *e)
{
	int rc = rng_check_conf(start, e);

	return rc ? rc : NFDS;
}

static int open_device(void *dev, struct helper *h, const void *start, const int *fds,
		       const char **step, struct err *e)
{
	return rng_open(dev, h, start, fds, step, e);
}

static void rules(const void *dev, struct rule_list *l)
{
	rng_rules(dev, l);
}

static int attach(void *dev, struct helper *h, struct err *e)
{
	struct rng *r = dev;

	return helper_attach(h, &worker_helper_ops, &r->w, e);
}

int main(void)
{
	static struct rng rng;

	helper_main(&(struct helper_program){
		.start = MSG_START_RNG,
		.start_size = sizeof(struct msg_start_rng),
		.log_level = offsetof(struct msg_start_rng, log_level),
		.dev = &rng,
		.check = check,
		.open = open_device,
		.rules = rules,
		.attach = attach,
	});
}
