/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-console: a 16550 on port-IO with an output and perhaps an input, in a jail of its own.
 *
 * Stages: jail_enter(); MSG_START_UART; map the page; threads; jail_seal(); MSG_READY; serve. Until
 * jail_seal() nothing that the guest wrote is looked at but the state of an earlier helper.
 */
#include <errno.h>
#include <unistd.h>

#include <insula/base.h>

#include "console.h"

#define FIXED_FDS 4 /* page, call, irq, output */

static int receive(struct msg_start_uart *m, int *fds, struct err *e)
{
	int got[MSG_MAX_FDS];
	enum msg_type type;
	unsigned nfds;
	size_t len;
	int rc = msg_recv(MSG_CHANNEL_FD, &type, m, sizeof(*m), &len, got, &nfds);

	if (rc)
		return err_sys(e, rc, "channel");
	if (type != MSG_START_UART || len != sizeof(*m) || m->log_level > LOG_LVL_DEBUG ||
	    (m->flags & ~(uint32_t)(UART_HAS_INPUT | UART_ESCAPE | UART_STREAM)) ||
	    nfds != FIXED_FDS + (m->flags & UART_HAS_INPUT ? 1u : 0u))
		return err_set(e, -EPROTO, "message %d of %zu bytes with %u descriptors", (int)type,
			       len, nfds);
	for (unsigned i = 0; i < nfds; i++)
		fds[i] = got[i];
	if (nfds == FIXED_FDS)
		fds[FIXED_FDS] = -1;
	return 0;
}

static const char *set_up(struct helper *h, struct console *c, struct err *e)
{
	struct rule_list rules = {.n = 0};
	struct msg_start_uart m = {0};
	int fds[FIXED_FDS + 1] = {-1, -1, -1, -1, -1};

	if (receive(&m, fds, e))
		return "start";
	log_setup("", (enum log_level)m.log_level);
	if (helper_open(h, fds[0], fds[1], fds[2], CONSOLE_TAG, e))
		return "page";
	if (console_open(c, h, fds[3], fds[4], m.flags, e))
		return "console";
	helper_rules(h, &rules);
	console_rules(c, &rules);
	if (jail_seal(rules.rule, rules.n, e))
		return "seccomp";
	if (helper_attach(h, &console_ops, c, e))
		return "page";
	return NULL;
}

int main(void)
{
	static struct helper helper;
	static struct console console;
	const char *step;
	struct err e = {0};

	jail_enter();
	helper_signals();
	step = set_up(&helper, &console, &e);
	if (step)
		helper_fail(MSG_CHANNEL_FD, step, &e);
	_exit(helper_loop(&helper, MSG_CHANNEL_FD) ? 1 : 0);
}
