/* SPDX-License-Identifier: BSD-2-Clause */
/* A serial console. See console.h. */
#include <string.h>

#include <insula/base.h>
#include <insula/stats.h>

#include "console.h"

static size_t uart_tx_room(void *ctx)
{
	struct console *c = ctx;
	uint32_t room = ends_room(&c->ends);

	if (room >= UART_TX_SLACK)
		return room;
	/* Full: ask to be told, then look once more. */
	ends_want_room(&c->ends);
	return ends_room(&c->ends);
}

static void uart_tx(void *ctx, uint8_t byte)
{
	struct console *c = ctx;
	uint32_t len;

	*ends_piece(&c->ends, &len) = byte;
	ends_put(&c->ends, 1);
	if (byte == '\n' || ends_batch(&c->ends))
		ends_flush(&c->ends);
}

static void uart_irq(void *ctx)
{
	struct console *c = ctx;

	helper_irq(c->h, 0);
}

static void pull_input(struct console *c)
{
	struct ends_rings *r = &c->st->rings;
	uint32_t tail = atomic_load_explicit(&r->in_tail, memory_order_relaxed);
	uint32_t head = atomic_load(&r->in_head);

	if (c->h->quiet)
		return;
	while (tail != head && uart_rx(&c->uart, &r->in[tail % CONSOLE_IN_LEN], 1))
		ends_took(&c->ends, ++tail);
}

static void uart_rx_back(void *ctx, const uint8_t *buf, size_t n)
{
	struct console *c = ctx;
	struct ends_rings *r = &c->st->rings;
	uint32_t tail = atomic_load_explicit(&r->in_tail, memory_order_relaxed);

	while (n)
		r->in[--tail % CONSOLE_IN_LEN] = buf[--n];
	ends_took(&c->ends, tail);
}

static const struct uart_ops console_uart_ops = {uart_tx_room, uart_tx, uart_rx_back, uart_irq};

static void console_settle(void *dev)
{
	struct console *c = dev;

	pull_input(c);
	uart_settle(&c->uart);
}

static void reg_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct console *c = dev;

	/* A wide access is as many narrow ones, as on the bus of a PC. */
	for (uint32_t i = 0; i < size; i++)
		uart_write(&c->uart, off + i, (uint8_t)(val >> (8 * i)));
}

static uint64_t reg_read(void *dev, uint32_t off, uint32_t size)
{
	struct console *c = dev;
	uint64_t v = 0;

	for (uint32_t i = 0; i < size; i++)
		v |= (uint64_t)uart_read(&c->uart, off + i) << (8 * i);
	return v;
}

static void idle(void *dev)
{
	struct console *c = dev;

	ends_flush(&c->ends);
}

static void console_event(void *dev)
{
	struct console *c = dev;

	ends_help(&c->ends);
	ends_quit(&c->ends, c->h->channel);
	console_settle(c);
}

static void console_resume(void *dev)
{
	struct console *c = dev;

	ends_go(&c->ends);
}

/* Input waits (pull_input()); the output is the host's already. */
static void console_quiet(void *dev)
{
	struct console *c = dev;

	helper_is_quiet(c->h);
}

static void console_stop_now(void *dev, struct msg_stats *s)
{
	struct console *c = dev;

	s->n[STAT_UART_OUT_LOST] = ends_drain(&c->ends);
	s->n[STAT_UART_OUT_BYTES] = c->ends.out_bytes;
	s->n[STAT_UART_OUT_WRITES] = c->ends.out_writes;
	s->n[STAT_UART_IN_BYTES] = c->ends.in_bytes;
	s->n[STAT_UART_OUT_DROPPED] = c->uart.dropped;
}

const struct helper_ops console_ops = {
	.regs = {.write = reg_write, .read = reg_read, .settle = console_settle},
	.resume = console_resume,
	.idle = idle,
	.event = console_event,
	.stop = console_stop_now,
	.quiet = console_quiet,
	.go_on = console_settle,
};

int console_open(struct console *c, struct helper *h, int out_fd, int in_fd,
		 const struct msg_start_uart *m, struct err *e)
{
	memset(c, 0, sizeof(*c));
	c->h = h;
	c->st = h->port.dev_state;
	if (!h->port.resumed)
		uart_reset_state(&c->st->uart);
	uart_init(&c->uart, &c->st->uart, h->port.shadow, &console_uart_ops, c);
	c->uart.hold = m->flags & UART_STREAM;
	return ends_open(&c->ends, &c->st->rings, h->port.resumed,
			 &(struct ends_conf){.out_fd = out_fd,
					     .in_fd = in_fd,
					     .flags = m->flags,
					     .limit = m->limit,
					     .wake_fd = h->event_fd,
					     .quit_fd = h->event_fd},
			 e);
}
