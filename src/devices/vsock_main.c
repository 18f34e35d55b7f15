/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-vsock: one virtio-vsock device, in a jail of its own.
 *
 * Stages: jail_enter(); MSG_START_VSOCK; map the page and guest memory; epoll set, rings, thread;
 * jail_seal(); take up what an earlier helper left; MSG_READY; serve. Nothing that the guest or a
 * client wrote is looked at before jail_seal().
 */
#include <errno.h>
#include <unistd.h>

#include "vsock.h"

#define MIN_FDS (4 + VSOCK_QUEUES)

static int receive(struct msg_start_vsock *m, int *fds, struct err *e)
{
	enum msg_type type;
	unsigned nfds;
	size_t len;
	int rc = msg_recv(MSG_CHANNEL_FD, &type, m, sizeof(*m), &len, fds, &nfds);

	if (rc)
		return err_sys(e, rc, "channel");
	if (type != MSG_START_VSOCK || len != sizeof(*m))
		return err_set(e, -EPROTO, "message %d of %zu bytes", (int)type, len);
	rc = vsock_check_conf(m, e);
	if (!rc && nfds != MIN_FDS + (m->flags & VSOCK_LISTENS ? 1u : 0u))
		rc = err_set(e, -EPROTO, "%u descriptors", nfds);
	return rc;
}

static const char *set_up(struct helper *h, struct vsockdev *d, struct err *e)
{
	struct rule_list rules = {.n = 0};
	struct msg_start_vsock m = {0};
	int fds[MSG_MAX_FDS];
	const char *step;

	if (receive(&m, fds, e))
		return "start";
	log_setup("", (enum log_level)m.log_level);
	if (vsockdev_open(d, h, &m, fds, &step, e))
		return step;
	helper_rules(h, &rules);
	vsock_rules(d, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	worker_resume(&d->w);
	if (helper_attach(h, &d->ops, &d->w, e))
		return "page";
	return NULL;
}

int main(void)
{
	static struct helper helper;
	static struct vsockdev dev;
	const char *step;
	struct err e = {0};

	jail_enter();
	helper_signals();
	step = set_up(&helper, &dev, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(helper_loop(&helper, MSG_CHANNEL_FD) ? 1 : 0);
}
