/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-net: one virtio-net card, in a jail of its own. Its stages are in program.h.
 *
 * The network namespace is empty: all it has of a network are the descriptors.
 */
#include "net.h"
#include "devices/program.h"

static int check(const void *start, struct err *e)
{
	int rc = net_check_conf(start, e);

	return rc ? rc : (int)net_nfds(start);
}

static int open_device(void *dev, struct helper *h, const void *start, const int *fds,
		       const char **step, struct err *e)
{
	return net_open(dev, h, start, fds, step, e);
}

static void rules(const void *dev, struct rule_list *l)
{
	net_rules(dev, l);
}

static int attach(void *dev, struct helper *h, struct err *e)
{
	struct net *n = dev;

	return helper_attach(h, &n->ops, &n->w, e);
}

int main(void)
{
	static struct net net;

	helper_main(&(struct helper_program){
		.start = MSG_START_NET,
		.start_size = sizeof(struct msg_start_net),
		.log_level = offsetof(struct msg_start_net, log_level),
		.dev = &net,
		.check = check,
		.open = open_device,
		.rules = rules,
		.attach = attach,
	});
}
