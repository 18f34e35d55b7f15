/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-net: one virtio-net card, in a jail of its own. Its stages are in program.h.
 *
 * The network namespace is empty: all it has of a network are the descriptors.
 */
#include "net.h"
#include "devices/program.h"

static int net_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_net *m = start;
	int rc = net_check_conf(m, e);

	if (!rc)
		rc = start_expect(f, START_KICK, 2 * m->npairs + 1, e);
	return rc ? rc
		  : start_expect(f, START_OWN,
				 (m->kind == NET_TAP ? m->npairs : 1) +
					 (m->flags & NET_VHOST ? m->npairs : 0) +
					 !!(m->flags & NET_METADATA),
				 e);
}

static int net_main_open_device(void *dev, struct helper *h, const void *start,
				const struct start_fds *f, const char **step, struct err *e)
{
	return net_open(dev, h, start, f, step, e);
}

static void net_main_rules(const void *dev, struct rule_list *l)
{
	net_rules(dev, l);
}

static int net_main_attach(void *dev, struct helper *h, struct err *e)
{
	struct net *n = dev;

	return helper_attach(h, &n->ops, &n->w, e);
}

int main(void)
{
	static struct net net;

	helper_main(&(struct helper_program){
		.tag = NET_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_net),
		.dev = &net,
		.check = net_main_check,
		.open = net_main_open_device,
		.rules = net_main_rules,
		.attach = net_main_attach,
	});
}
