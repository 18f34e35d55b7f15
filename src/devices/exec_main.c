/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-exec: a command in the guest and the user's standard streams, in a jail of its own.
 *
 * Stages: jail_enter(); MSG_START_EXEC; threads; jail_seal(); MSG_READY; serve. The supervisor
 * connects the other end of the stream to the guest after it has verified the jail: until then no
 * byte of the guest's can be here.
 */
#include <errno.h>
#include <unistd.h>

#include <insula/base.h>

#include "exec.h"

enum { FD_STREAM, FD_SPEC, FD_OUT, FD_ERR, FD_IN, FD_MAX };

static int receive(struct msg_start_exec *m, int *fds, struct err *e)
{
	int got[MSG_MAX_FDS];
	enum msg_type type;
	unsigned nfds;
	size_t len;
	int rc = msg_recv(MSG_CHANNEL_FD, &type, m, sizeof(*m), &len, got, &nfds);

	if (rc)
		return err_sys(e, rc, "channel");
	if (type != MSG_START_EXEC || len != sizeof(*m) || m->log_level > LOG_LVL_DEBUG ||
	    (m->flags & ~(uint32_t)(EXEC_STDIN | EXEC_ESCAPE | EXEC_POWEROFF)) ||
	    nfds != FD_IN + (m->flags & EXEC_STDIN ? 1u : 0u))
		return err_set(e, -EPROTO, "message %d of %zu bytes with %u descriptors", (int)type,
			       len, nfds);
	for (unsigned i = 0; i < FD_MAX; i++)
		fds[i] = i < nfds ? got[i] : -1;
	return 0;
}

static const char *set_up(struct exec *x, struct err *e)
{
	struct rule_list rules = {.n = 0};
	struct msg_start_exec m = {0};
	int fds[FD_MAX] = {-1, -1, -1, -1, -1};

	if (receive(&m, fds, e))
		return "start";
	log_setup("", (enum log_level)m.log_level);
	if (exec_open(x, &m, MSG_CHANNEL_FD, fds[FD_STREAM], fds[FD_SPEC], fds[FD_OUT], fds[FD_ERR],
		      fds[FD_IN], e))
		return "streams";
	if (exec_threads(x, e))
		return "threads";
	exec_rules(x, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	return NULL;
}

int main(void)
{
	static struct exec exec;
	const char *step;
	struct err e = {0};

	jail_enter();
	helper_signals();
	step = set_up(&exec, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	if (msg_send(MSG_CHANNEL_FD, MSG_READY, NULL, 0, NULL, 0))
		_exit(1);
	_exit(exec_loop(&exec) ? 1 : 0);
}
