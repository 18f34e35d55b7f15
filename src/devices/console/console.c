/* SPDX-License-Identifier: BSD-2-Clause */
/* A serial console. See console.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/stats.h>

#include "console.h"

#define CTRL_A 0x01
#define CTRL_D 4

static const char help_text[] =
	"\r\nCtrl-A x: end the VM   Ctrl-A Ctrl-A: one Ctrl-A   Ctrl-A h: this help\r\n";

/* ---- output: control thread ---- */

static uint32_t out_room(const struct console *c)
{
	uint32_t used = c->out_head - atomic_load(&c->st->out_tail);

	/* More than the ring holds: another process's state was wrong; the output thread is about
	 * to mend it. */
	return used > CONSOLE_OUT_LEN ? 0 : CONSOLE_OUT_LEN - used;
}

static void out_put(struct console *c, uint8_t byte)
{
	c->st->out[c->out_head % CONSOLE_OUT_LEN] = byte;
	atomic_store_explicit(&c->st->out_head, ++c->out_head, memory_order_release);
}

/* Hand everything so far to the output thread. */
static void out_flush(struct console *c)
{
	if (atomic_load_explicit(&c->out_mark, memory_order_relaxed) == c->out_head)
		return;
	atomic_store(&c->out_mark, c->out_head);
	event_signal(c->out_event);
}

static size_t uart_tx_room(void *ctx)
{
	struct console *c = ctx;
	uint32_t room = out_room(c);

	if (room >= UART_TX_SLACK)
		return room;
	/* Full: ask to be told, then look once more. */
	atomic_store(&c->want_room, 1);
	out_flush(c);
	return out_room(c);
}

static void uart_tx(void *ctx, uint8_t byte)
{
	struct console *c = ctx;

	out_put(c, byte);
	if (byte == '\n' ||
	    c->out_head - atomic_load_explicit(&c->out_mark, memory_order_relaxed) >= CONSOLE_BATCH)
		out_flush(c);
}

static void uart_irq(void *ctx)
{
	struct console *c = ctx;

	helper_irq(c->h);
}

/* ---- output thread ---- */

static void out_progress(struct console *c, uint32_t tail)
{
	atomic_store(&c->st->out_tail, tail);
	if (!atomic_load(&c->want_room))
		return;
	/* Half of the ring at once, not one interrupt per byte, unless it is all there is. */
	if (atomic_load(&c->st->out_head) - tail <= CONSOLE_OUT_LEN / 2 ||
	    tail == atomic_load(&c->out_mark)) {
		atomic_store(&c->want_room, 0);
		event_signal(c->h->event_fd);
	}
}

/* Once; how much it was is said at the end. That nobody reads from a pty is no error. */
void console_lose(struct console *c, uint32_t n, int error)
{
	struct err e = {0};

	c->out_lost += n;
	if (c->out_told || c->out_pty)
		return;
	c->out_told = true;
	if (error == -EFBIG)
		log_warn("the console's file has reached its limit; more output is dropped");
	else
		log_warn("%s", (err_sys(&e, error, "output is dropped"), e.text));
}

static void *output_main(void *arg)
{
	struct console *c = arg;
	uint32_t tail = atomic_load(&c->st->out_tail);

	for (;;) {
		uint32_t mark = atomic_load(&c->out_mark), at = tail % CONSOLE_OUT_LEN;
		uint32_t n = mark - tail;

		if (n == 0) {
			events_wait(&c->out_event, 1, -1, -1);
			continue;
		}
		if (n > CONSOLE_OUT_LEN - at)
			n = CONSOLE_OUT_LEN - at;
		tail += console_write(c, c->st->out + at, n);
		out_progress(c, tail);
	}
	return NULL;
}

/* ---- input thread ---- */

static uint32_t in_room(const struct console *c)
{
	/* Some room is kept for what the UART gives back; it may be in use. */
	uint32_t used = atomic_load(&c->in_head) - atomic_load(&c->in_tail);

	return used < CONSOLE_IN_LEN - UART_FIFO ? CONSOLE_IN_LEN - UART_FIFO - used : 0;
}

static void in_put(struct console *c, uint8_t byte)
{
	uint32_t head = atomic_load_explicit(&c->in_head, memory_order_relaxed);

	if (!in_room(c))
		return; /* only if in_stuck, see wait_room() */
	c->in[head % CONSOLE_IN_LEN] = byte;
	atomic_store(&c->in_head, head + 1);
}

static void after_ctrl_a(struct console *c, uint8_t byte)
{
	switch (byte) {
	case 'x':
		atomic_fetch_or(&c->flags, CONSOLE_QUIT);
		break;
	case 'h':
		atomic_fetch_or(&c->flags, CONSOLE_HELP);
		break;
	case CTRL_A:
		in_put(c, byte);
		break;
	default:
		in_put(c, CTRL_A);
		in_put(c, byte);
	}
}

static void take_input(struct console *c, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (c->after_ctrl_a) {
			c->after_ctrl_a = false;
			after_ctrl_a(c, buf[i]);
		} else if (c->escape && buf[i] == CTRL_A) {
			c->after_ctrl_a = true;
		} else {
			in_put(c, buf[i]);
		}
	}
	c->in_bytes += n;
	c->line_open = buf[n - 1] != '\n';
	event_signal(c->h->event_fd);
}

/* A guest that does not read must not keep the user from leaving: a terminal is read on after a
 * while, for the escape alone. */
static void wait_room(struct console *c)
{
	uint64_t start = clock_ns();

	while (in_room(c) < 2 && !c->in_stuck) {
		atomic_store(&c->in_waits, 1);
		if (in_room(c) < 2)
			events_wait(&c->in_event, 1, -1, c->escape ? CONSOLE_FULL_MS : -1);
		c->in_stuck = c->escape && clock_ns() - start >= CONSOLE_FULL_MS * 1000000ull;
	}
	atomic_store(&c->in_waits, 0);
	c->in_stuck = c->in_stuck && in_room(c) < 2;
}

/* How many bytes to ask for: with an escape one byte read can become two. */
static size_t in_want(const struct console *c, size_t size)
{
	size_t n = in_room(c) / 2;

	if (c->in_stuck)
		return size;
	return n < 1 ? 1 : n < size ? n : size;
}

/* A serial line has no end: what the guest's terminal takes for one goes over it. After an
 * unfinished line it takes two, the first ends the line. */
static void end_of_stream(struct console *c)
{
	unsigned n = c->line_open ? 2 : 1;

	c->stream = false;
	while (n--)
		in_put(c, CTRL_D);
	event_signal(c->h->event_fd);
}

static void *input_main(void *arg)
{
	struct console *c = arg;
	uint8_t buf[512];

	for (;;) {
		int n;

		wait_room(c);
		n = console_read(c, buf, in_want(c, sizeof(buf)));
		if (n > 0)
			take_input(c, buf, (size_t)n);
		else if (n == 0 && c->stream)
			end_of_stream(c);
		else
			(void)events_wait(NULL, 0, -1, -1); /* the end of the input; of the thread
							       too, but for its stack */
	}
	return NULL;
}

/* ---- control thread ---- */

static void pull_input(struct console *c)
{
	uint32_t tail = atomic_load_explicit(&c->in_tail, memory_order_relaxed);
	uint32_t head = atomic_load(&c->in_head);

	while (tail != head && uart_rx(&c->uart, &c->in[tail % CONSOLE_IN_LEN], 1))
		tail++;
	atomic_store(&c->in_tail, tail);
	if (atomic_load(&c->in_waits) && in_room(c) >= CONSOLE_IN_LEN / 2)
		event_signal(c->in_event);
}

static void uart_rx_back(void *ctx, const uint8_t *buf, size_t n)
{
	struct console *c = ctx;
	uint32_t tail = atomic_load_explicit(&c->in_tail, memory_order_relaxed);

	while (n)
		c->in[--tail % CONSOLE_IN_LEN] = buf[--n];
	atomic_store(&c->in_tail, tail);
}

static const struct uart_ops console_uart_ops = {uart_tx_room, uart_tx, uart_rx_back, uart_irq};

static void settle(void *dev)
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
	out_flush(dev);
}

static void show_help(struct console *c)
{
	for (const char *p = help_text; *p && out_room(c) > UART_TX_SLACK; p++)
		out_put(c, (uint8_t)*p);
	out_flush(c);
}

static void event(void *dev)
{
	struct console *c = dev;
	uint32_t flags = atomic_exchange(&c->flags, 0);

	if (flags & CONSOLE_HELP)
		show_help(c);
	if (flags & CONSOLE_QUIT)
		(void)msg_send(c->h->channel, MSG_QUIT, NULL, 0, NULL, 0);
	settle(c);
}

/* The last words of a guest matter most. */
static void stop(void *dev, struct msg_stats *s)
{
	struct console *c = dev;
	uint32_t tail = atomic_load(&c->st->out_tail);
	uint64_t since = clock_ns();

	out_flush(c);
	while (tail != c->out_head && clock_ns() - since < CONSOLE_DRAIN_NS) {
		uint32_t now;

		atomic_store(&c->want_room, 1);
		events_wait(&c->h->event_fd, 1, -1, 10);
		now = atomic_load(&c->st->out_tail);
		if (now != tail)
			since = clock_ns();
		tail = now;
	}
	s->n[STAT_UART_OUT_BYTES] = c->out_bytes;
	s->n[STAT_UART_OUT_WRITES] = c->out_writes;
	s->n[STAT_UART_IN_BYTES] = c->in_bytes;
	s->n[STAT_UART_OUT_DROPPED] = c->uart.dropped;
	s->n[STAT_UART_OUT_LOST] = c->out_lost + (c->out_head - tail);
	if (s->n[STAT_UART_OUT_LOST] && !c->out_pty)
		log_warn("%llu bytes of output were dropped",
			 (unsigned long long)s->n[STAT_UART_OUT_LOST]);
}

const struct helper_ops console_ops = {
	.regs = {.write = reg_write, .read = reg_read, .settle = settle},
	.idle = idle,
	.event = event,
	.stop = stop,
};

static void init_state(struct console *c)
{
	struct console_state *st = c->st;

	if (!c->h->port.resumed) {
		uart_reset_state(&st->uart);
		atomic_store(&st->out_head, 0);
		atomic_store(&st->out_tail, 0);
	}
	c->out_head = atomic_load(&st->out_head);
	/* Another process's indices: if they make no sense, nothing is pending. */
	if (c->out_head - atomic_load(&st->out_tail) > CONSOLE_OUT_LEN)
		atomic_store(&st->out_tail, c->out_head);
	atomic_store(&c->out_mark, c->out_head);
}

int console_open(struct console *c, struct helper *h, int out_fd, int in_fd,
		 const struct msg_start_uart *m, struct err *e)
{
	unsigned flags = m->flags;
	pthread_t t;
	int rc;

	memset(c, 0, sizeof(*c));
	c->h = h;
	c->st = h->port.dev_state;
	c->out_fd = out_fd;
	c->in_fd = in_fd;
	rc = console_ends(c, m->limit, e);
	if (rc)
		return rc;
	c->escape = flags & UART_ESCAPE;
	c->stream = flags & UART_STREAM;
	c->out_event = event_create();
	c->in_event = event_create();
	if (c->out_event < 0 || c->in_event < 0)
		return err_set(e, -EMFILE, "eventfd");
	init_state(c);
	uart_init(&c->uart, &c->st->uart, h->port.shadow, &console_uart_ops, c);
	c->uart.hold = flags & UART_STREAM;
	rc = helper_thread(&t, output_main, c);
	if (!rc && in_fd >= 0)
		rc = helper_thread(&t, input_main, c);
	return rc ? err_sys(e, rc, "thread") : 0;
}
