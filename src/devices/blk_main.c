/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-blk: one virtio-blk disk, in a jail of its own.
 *
 * Stages: jail_enter(); MSG_START_BLK; map the page and guest memory; threads and ring;
 * jail_seal(); take up what an earlier helper left; MSG_READY; serve. Nothing that the guest wrote
 * is looked at before jail_seal().
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "blk.h"

#define FIXED_FDS 5 /* memory, page, call, irq, disk */

static int receive(struct msg_start_blk *m, int *fds, struct err *e)
{
	enum msg_type type;
	unsigned nfds;
	size_t len;
	int rc = msg_recv(MSG_CHANNEL_FD, &type, m, sizeof(*m), &len, fds, &nfds);

	if (rc)
		return err_sys(e, rc, "channel");
	if (type != MSG_START_BLK || len != sizeof(*m))
		return err_set(e, -EPROTO, "message %d of %zu bytes", (int)type, len);
	rc = blk_check_conf(m, e);
	if (rc)
		return rc;
	if (nfds != FIXED_FDS + m->nqueues)
		return err_set(e, -EPROTO, "%u descriptors for %u queues", nfds, m->nqueues);
	return 0;
}

static const char *set_up(struct helper *h, struct blk *b, struct err *e)
{
	struct rule_list rules = {.n = 0};
	struct msg_start_blk m = {0};
	int fds[MSG_MAX_FDS];
	const char *step;

	if (receive(&m, fds, e))
		return "start";
	log_setup("", (enum log_level)m.log_level);
	if (blk_open(b, h, &m, fds, &step, e))
		return step;
	helper_rules(h, &rules);
	blk_rules(b, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	worker_resume(&b->w);
	if (helper_attach(h, &worker_helper_ops, &b->w, e))
		return "page";
	return NULL;
}

int main(void)
{
	static struct helper helper;
	static struct blk blk;
	const char *step;
	struct err e = {0};

	jail_enter();
	helper_signals();
	step = set_up(&helper, &blk, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(helper_loop(&helper, MSG_CHANNEL_FD) ? 1 : 0);
}
