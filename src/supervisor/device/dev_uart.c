/* SPDX-License-Identifier: BSD-2-Clause */
/* The console as a device, a 16550 or virtio: the start message of insula-console, and the escape.
 */
#include <insula/base.h>
#include <insula/board.h>

#include "devices/console/console_start.h"
#include "devices/describe.h"

#include "dev_virtio.h"
#include "device.h"
#include "supervisor/vm_common.h"

static void uart_describe(const struct device_class *class, struct device_desc *d,
			  enum device_bus bus, unsigned nth, unsigned nqueues)
{
	(void)class;
	(void)bus;
	(void)nqueues;
	describe_16550(d, BOARD_COM1, BOARD_GSI_COM1);
	d->uid = nth;
}

/* A serial console has no business in guest memory: its class says so. */
static int console_start(struct device *d, struct device_start *s, struct err *e)
{
	const struct terminal *t = d->back.terminal;
	struct msg_start_uart m = {.limit = t->limit};

	(void)e;
	m.flags = (t->in >= 0 ? UART_HAS_INPUT : 0) | (t->escape ? UART_ESCAPE : 0) |
		  (t->stream ? UART_STREAM : 0) | (d->restored ? UART_RESTORED : 0);
	device_word(s, &m, sizeof(m));
	device_add(s, t->out);
	if (t->in >= 0)
		device_add(s, t->in);
	return 0;
}

static bool console_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			    size_t len)
{
	(void)body;
	if (t != MSG_QUIT || len || !d->back.terminal->escape)
		return false;
	vm_quit(vm);
	return true;
}

static uint64_t console_fsize(const struct device *d)
{
	return d->back.terminal->limit;
}

const struct device_class device_uart = {
	.program = "insula-console",
	.kind = "console",
	.tag = CONSOLE_START,
	.threads = 4, /* control, output, input */
	.nofile = 64,
	.describe = uart_describe,
	.fsize = console_fsize,
	.start = console_start,
	.message = console_message,
	.stats = &stats_uart,
};

const struct device_class device_vcon = {
	.program = "insula-console",
	.kind = "console",
	.tag = VCON_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_CONSOLE,
	.threads = 5, /* control, I/O, output, input */
	.nofile = 64,
	.describe = dev_virtio_describe,
	.fsize = console_fsize,
	.start = console_start,
	.message = console_message,
	.stats = &stats_vcon,
};
