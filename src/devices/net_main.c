/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-net: one virtio-net card, in a jail of its own.
 *
 * Stages: jail_enter(); MSG_START_NET; map the page and guest memory; the I/O thread; jail_seal();
 * take up what an earlier helper left; MSG_READY; serve. Nothing that the guest wrote is looked at
 * before jail_seal(). The network namespace is empty: all it has of a network are the descriptors.
 */
#include <errno.h>
#include <unistd.h>

#include "net.h"

static int receive(struct msg_start_net *m, int *fds, struct err *e)
{
	enum msg_type type;
	unsigned nfds;
	size_t len;
	int rc = msg_recv(MSG_CHANNEL_FD, &type, m, sizeof(*m), &len, fds, &nfds);

	if (rc)
		return err_sys(e, rc, "channel");
	if (type != MSG_START_NET || len != sizeof(*m))
		return err_set(e, -EPROTO, "message %d of %zu bytes", (int)type, len);
	rc = net_check_conf(m, e);
	if (rc)
		return rc;
	if (nfds != net_nfds(m))
		return err_set(e, -EPROTO, "%u descriptors, expected %u", nfds, net_nfds(m));
	return 0;
}

static const char *set_up(struct helper *h, struct net *n, struct err *e)
{
	struct rule_list rules = {.n = 0};
	struct msg_start_net m = {0};
	int fds[MSG_MAX_FDS];
	const char *step;

	if (receive(&m, fds, e))
		return "start";
	log_setup("", (enum log_level)m.log_level);
	if (net_open(n, h, &m, fds, &step, e))
		return step;
	helper_rules(h, &rules);
	net_rules(n, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	worker_resume(&n->w);
	if (helper_attach(h, &n->ops, &n->w, e))
		return "page";
	return NULL;
}

int main(void)
{
	static struct helper helper;
	static struct net net;
	const char *step;
	struct err e = {0};

	jail_enter();
	helper_signals();
	step = set_up(&helper, &net, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(helper_loop(&helper, MSG_CHANNEL_FD) ? 1 : 0);
}
