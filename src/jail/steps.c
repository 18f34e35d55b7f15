/* SPDX-License-Identifier: BSD-2-Clause */
/* What both stages of a child do: run a list of steps, die with the parent. Apart from child.c, so
 * that jailed programs do not contain the stage before exec. See steps.h. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/proto.h>

#include "steps.h"

void jail_run_steps(const struct jail_step *steps, size_t n, struct jail_start *s)
{
	for (size_t i = 0; i < n; i++) {
		struct err e = {0};
		int rc = steps[i].run(s, &e);

		if (rc) {
			msg_fail(s->channel, steps[i].name, rc, e.text, 0);
			_exit(1);
		}
	}
}

int jail_tie_to_parent(int channel, struct err *e)
{
	struct pollfd p = {.fd = channel};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return err_sys(e, -errno, "PR_SET_PDEATHSIG");
	/* A parent that died before that line has closed its end. (A sibling that is being started
	 * at this moment may hold a copy for a little longer; then the first read from the channel
	 * says the same.) */
	if (poll(&p, 1, 0) < 0)
		return err_sys(e, -errno, "poll of the channel");
	if (p.revents & (POLLHUP | POLLERR | POLLNVAL))
		return err_set(e, -EPIPE, "the parent is gone");
	return 0;
}
