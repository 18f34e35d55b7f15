/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-rng: one virtio-rng device, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "rng.h"

static int rng_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	int rc = rng_check_conf(start, e);

	if (!rc)
		rc = start_expect(f, START_KICK, 1, e);
	return rc ? rc : start_expect(f, START_OWN, 0, e);
}

static int rng_main_open_device(void *dev, struct helper *h, const void *start,
				const struct start_fds *f, const char **step, struct err *e)
{
	return rng_open(dev, h, start, f, step, e);
}

static void rng_main_rules(const void *dev, struct rule_list *l)
{
	rng_rules(dev, l);
}

static int rng_main_attach(void *dev, struct helper *h, struct err *e)
{
	struct rng *r = dev;

	return helper_attach(h, &worker_helper_ops, &r->w, e);
}

int main(void)
{
	static struct rng rng;

	helper_main(&(struct helper_program){
		.tag = RNG_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_rng),
		.dev = &rng,
		.check = rng_main_check,
		.open = rng_main_open_device,
		.rules = rng_main_rules,
		.attach = rng_main_attach,
	});
}
