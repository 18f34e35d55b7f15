/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-balloon: one virtio-balloon device, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "balloon.h"

static int balloon_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	int rc = balloon_check_conf(start, e);

	if (!rc)
		rc = start_expect(f, START_KICK, BALLOON_QUEUES, e);
	return rc ? rc : start_expect(f, START_OWN, 0, e);
}

static int balloon_main_open_device(void *dev, struct helper *h, const void *start,
				    const struct start_fds *f, const char **step, struct err *e)
{
	return balloon_open(dev, h, start, f, step, e);
}

static void balloon_main_rules(const void *dev, struct rule_list *l)
{
	balloon_rules(dev, l);
}

static int balloon_main_attach(void *dev, struct helper *h, struct err *e)
{
	struct balloon *b = dev;

	return helper_attach(h, &b->ops, &b->w, e);
}

int main(void)
{
	static struct balloon balloon;

	helper_main(&(struct helper_program){
		.tag = BALLOON_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_balloon),
		.dev = &balloon,
		.check = balloon_main_check,
		.open = balloon_main_open_device,
		.rules = balloon_main_rules,
		.attach = balloon_main_attach,
	});
}
