/* SPDX-License-Identifier: BSD-2-Clause */
/* The serial console as a device: the start message of insula-console, and the escape. */
#include <insula/base.h>
#include <insula/log.h>

#include "vm.h"

static int start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	const struct terminal *t = d->back.terminal;
	struct msg_start_uart m = {.log_level = log_most(), .limit = t->limit};
	int fds[] = {d->page, d->call, d->irq, t->out, t->in};
	int rc;

	(void)mem; /* a console has no business in guest memory */
	(void)map;
	m.flags = (t->in >= 0 ? UART_HAS_INPUT : 0) | (t->escape ? UART_ESCAPE : 0) |
		  (t->stream ? UART_STREAM : 0);
	rc = msg_send(d->child.jail.channel, MSG_START_UART, &m, sizeof(m), fds,
		      t->in >= 0 ? 5 : 4);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

static bool message(struct vm *vm, struct device *d, enum msg_type t, const void *body, size_t len)
{
	(void)body;
	if (t != MSG_QUIT || len || !d->back.terminal->escape)
		return false;
	vm_quit(vm);
	return true;
}

static uint64_t fsize(const struct device *d)
{
	return d->back.terminal->limit;
}

const struct device_class device_uart = {
	.program = "insula-console",
	.kind = DEV_UART,
	.threads = 4, /* control, output, input */
	.nofile = 64,
	.fsize = fsize,
	.start = start,
	.message = message,
	.stats = &stats_uart,
};
