/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-console: a 16550 on port-IO with an output and perhaps an input, in a jail of its own. Its
 * stages are in program.h.
 */
#include <errno.h>

#include "console.h"
#include "devices/program.h"

enum { FD_PAGE, FD_CALL, FD_IRQ, FD_OUT, FD_IN };

static int check(const void *start, struct err *e)
{
	const struct msg_start_uart *m = start;

	if (m->flags & ~(uint32_t)(UART_HAS_INPUT | UART_ESCAPE | UART_STREAM))
		return err_set(e, -EINVAL, "unknown flags %#x", m->flags);
	return FD_IN + (m->flags & UART_HAS_INPUT ? 1 : 0);
}

static int open_device(void *dev, struct helper *h, const void *start, const int *fds,
		       const char **step, struct err *e)
{
	const struct msg_start_uart *m = start;
	int rc;

	*step = "page";
	rc = helper_open(h, fds[FD_PAGE], fds[FD_CALL], fds[FD_IRQ], CONSOLE_TAG, e);
	if (rc)
		return rc;
	*step = "console";
	return console_open(dev, h, fds[FD_OUT], fds[FD_IN], m, e);
}

static void rules(const void *dev, struct rule_list *l)
{
	console_rules(dev, l);
}

static int attach(void *dev, struct helper *h, struct err *e)
{
	return helper_attach(h, &console_ops, dev, e);
}

int main(void)
{
	static struct console console;

	helper_main(&(struct helper_program){
		.start = MSG_START_UART,
		.start_size = sizeof(struct msg_start_uart),
		.log_level = offsetof(struct msg_start_uart, log_level),
		.dev = &console,
		.check = check,
		.open = open_device,
		.rules = rules,
		.attach = attach,
	});
}
