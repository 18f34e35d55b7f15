/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-rng: one virtio-rng device, in a jail of its own.
 *
 * Stages: jail_enter(); MSG_START_RNG; map the page and guest memory; thread; jail_seal(); take up
 * what an earlier helper left; MSG_READY; serve. Nothing that the guest wrote is looked at before
 * jail_seal().
 */
#include <unistd.h>

#include "rng.h"

#define NFDS 5 /* memory, page, call, irq, kick */

static const char *set_up(struct helper *h, struct rng *r, struct err *e)
{
	struct rule_list rules = {.n = 0};
	struct msg_start_rng m = {0};
	int fds[MSG_MAX_FDS];
	const char *step;

	if (msg_expect(MSG_CHANNEL_FD, MSG_START_RNG, &m, sizeof(m), fds, NFDS, e) ||
	    rng_check_conf(&m, e))
		return "start";
	log_setup("", (enum log_level)m.log_level);
	if (rng_open(r, h, &m, fds, &step, e))
		return step;
	helper_rules(h, &rules);
	rng_rules(r, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	worker_resume(&r->w);
	if (helper_attach(h, &worker_helper_ops, &r->w, e))
		return "page";
	return NULL;
}

int main(void)
{
	static struct helper helper;
	static struct rng rng;
	const char *step;
	struct err e = {0};

	jail_enter();
	helper_signals();
	step = set_up(&helper, &rng, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(helper_loop(&helper, MSG_CHANNEL_FD) ? 1 : 0);
}
