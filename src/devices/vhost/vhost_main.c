/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vhost: a device that a vhost-user back end serves, in a jail of its own. Its stages are in
 * program.h. */
#include "devices/program.h"
#include "vhost.h"

static int vhost_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_vhost *m = start;
	int rc = vhost_check_conf(m, e);

	if (!rc)
		rc = start_expect(f, START_KICK, m->nqueues, e);
	return rc ? rc
		  : start_expect(f, START_OWN,
				 1u + !!(m->flags & VHOST_INFLIGHT) + !!(m->flags & VHOST_LOAD), e);
}

static int vhost_main_open(void *dev, struct helper *h, const void *start,
			   const struct start_fds *f, const char **step, struct err *e)
{
	return vhostdev_open(dev, h, MSG_CHANNEL_FD, start, f, step, e);
}

static void vhost_main_rules(const void *dev, struct rule_list *l)
{
	vhost_rules(dev, l);
}

static int vhost_main_attach(void *dev, struct helper *h, struct err *e)
{
	(void)h;
	return vhost_attach(dev, e);
}

int main(void)
{
	static struct vhost vhost;

	helper_main(&(struct helper_program){
		.tag = VHOST_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_vhost),
		.dev = &vhost,
		.check = vhost_main_check,
		.open = vhost_main_open,
		.rules = vhost_main_rules,
		.attach = vhost_main_attach,
	});
}
