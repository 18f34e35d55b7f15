/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-console: a 16550 on port-IO with an output and perhaps an input, in a jail of its own. Its
 * stages are in program.h.
 */
#include <errno.h>

#include "console.h"
#include "devices/program.h"

static int check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_uart *m = start;
	int rc;

	if (m->flags & ~(uint32_t)(UART_HAS_INPUT | UART_ESCAPE | UART_STREAM))
		return err_set(e, -EINVAL, "unknown flags %#x", m->flags);
	rc = start_expect(f, START_KICK, 0, e);
	return rc ? rc : start_expect(f, START_OWN, m->flags & UART_HAS_INPUT ? 2 : 1, e);
}

static int open_device(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		       const char **step, struct err *e)
{
	const struct msg_start_uart *m = start;
	int rc;

	*step = "page";
	rc = helper_open(h, f->fd[START_PAGE][0], f->fd[START_CALL][0], f->fd[START_IRQ][0],
			 CONSOLE_TAG, e);
	if (rc)
		return rc;
	*step = "console";
	return console_open(dev, h, f->fd[START_OWN][0],
			    f->n[START_OWN] > 1 ? f->fd[START_OWN][1] : -1, m, e);
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
		.tag = CONSOLE_START,
		.start_size = sizeof(struct msg_start_uart),
		.dev = &console,
		.check = check,
		.open = open_device,
		.rules = rules,
		.attach = attach,
	});
}
