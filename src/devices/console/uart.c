/* SPDX-License-Identifier: BSD-2-Clause */
/* A 16550A. See uart.h. */
#include <linux/serial_reg.h>
#include <string.h>

#include "uart.h"

#define IER_MASK 0x0f
#define MCR_MASK 0x1f
#define IIR_FIFOS_ON 0xc0
#define MSR_READY (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

void uart_reset_state(struct uart_state *st)
{
	memset(st, 0, sizeof(*st));
	st->trigger = 1;
}

static bool tx_ready(const struct uart *u)
{
	return u->ops->tx_room(u->ctx) >= UART_TX_SLACK;
}

static unsigned rx_depth(const struct uart *u)
{
	return u->st->fifo_on ? UART_FIFO : 1;
}

static bool loopback(const struct uart *u)
{
	return u->st->mcr & UART_MCR_LOOP;
}

static void rx_push(struct uart *u, uint8_t byte)
{
	struct uart_state *s = u->st;

	if (s->rx_count >= rx_depth(u))
		return;
	s->rx[(s->rx_head + s->rx_count) % UART_FIFO] = byte;
	s->rx_count++;
}

static uint8_t rx_pop(struct uart *u)
{
	struct uart_state *s = u->st;
	uint8_t byte = s->rx[s->rx_head % UART_FIFO];

	if (s->rx_count) {
		s->rx_head = (uint8_t)((s->rx_head + 1) % UART_FIFO);
		s->rx_count--;
		u->again = true;
	}
	return byte;
}

static bool rx_open(const struct uart *u)
{
	if (u->hold && !(u->st->mcr & UART_MCR_OUT1))
		return false;
	return !loopback(u) && (!u->st->mcr_seen || (u->st->mcr & UART_MCR_RTS));
}

/* The FIFO is cleared, or the other side may not send any more. */
static void rx_clear(struct uart *u)
{
	struct uart_state *s = u->st;
	uint8_t buf[UART_FIFO];

	for (unsigned i = 0; i < s->rx_count; i++)
		buf[i] = s->rx[(s->rx_head + i) % UART_FIFO];
	if (s->rx_count && !loopback(u))
		u->ops->rx_back(u->ctx, buf, s->rx_count);
	s->rx_count = 0;
}

size_t uart_rx_room(const struct uart *u)
{
	if (!rx_open(u))
		return 0;
	return u->st->rx_count < rx_depth(u) ? rx_depth(u) - u->st->rx_count : 0;
}

size_t uart_rx(struct uart *u, const uint8_t *buf, size_t n)
{
	size_t room = uart_rx_room(u), i;

	for (i = 0; i < n && i < room; i++)
		rx_push(u, buf[i]);
	return i;
}

/* The cause with the highest priority, as IIR shows it. */
static uint8_t cause(const struct uart *u)
{
	const struct uart_state *s = u->st;

	if ((s->ier & UART_IER_RDI) && s->rx_count)
		/* Below the trigger level it is the time-out of the FIFO, which here has passed
		 * already. */
		return s->fifo_on && s->rx_count < s->trigger ? UART_IIR_RX_TIMEOUT : UART_IIR_RDI;
	if ((s->ier & UART_IER_THRI) && s->thri)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t c = cause(u);

	if (c == UART_IIR_THRI) {
		u->st->thri = 0;
		u->again = true;
	}
	return (uint8_t)(c | (u->st->fifo_on ? IIR_FIFOS_ON : 0));
}

static void write_thr(struct uart *u, uint8_t val)
{
	u->st->thri = 0;
	u->st->tx_dirty = 1;
	u->again = true;
	if (loopback(u))
		rx_push(u, val);
	else if (u->ops->tx_room(u->ctx))
		u->ops->tx(u->ctx, val);
	else
		u->dropped++;
}

static void write_ier(struct uart *u, uint8_t val)
{
	uint8_t old = u->st->ier;

	u->st->ier = val & IER_MASK;
	/* Enabling the interrupt of an empty transmitter raises it: drivers start sending that way.
	 */
	if ((u->st->ier & ~old & UART_IER_THRI) && tx_ready(u))
		u->st->thri = 1;
	u->again = true;
}

static void write_fcr(struct uart *u, uint8_t val)
{
	static const uint8_t level[] = {1, 4, 8, 14};
	bool on = val & UART_FCR_ENABLE_FIFO;

	if (on != (bool)u->st->fifo_on || (on && (val & UART_FCR_CLEAR_RCVR)))
		rx_clear(u);
	u->st->fifo_on = on;
	u->st->trigger = on ? level[val >> 6] : 1;
}

static void write_mcr(struct uart *u, uint8_t val)
{
	struct uart_state *s = u->st;
	uint8_t changed = (s->mcr ^ val) & UART_MCR_LOOP;

	/* Under the old mode: it says whose bytes they are. */
	if (changed || !(val & UART_MCR_RTS))
		rx_clear(u);
	s->mcr = val & MCR_MASK;
	s->mcr_seen = 1;
}

void uart_write(struct uart *u, uint32_t off, uint8_t val)
{
	struct uart_state *s = u->st;
	bool dlab = s->lcr & UART_LCR_DLAB;

	switch (off) {
	case UART_TX:
		if (dlab)
			s->dll = val;
		else
			write_thr(u, val);
		break;
	case UART_IER:
		if (dlab)
			s->dlm = val;
		else
			write_ier(u, val);
		break;
	case UART_FCR:
		write_fcr(u, val);
		break;
	case UART_LCR:
		s->lcr = val;
		break;
	case UART_MCR:
		write_mcr(u, val);
		break;
	case UART_SCR:
		s->scr = val;
		break;
	default: /* LSR and MSR are read-only; what is beyond the window does not exist */
		break;
	}
}

uint8_t uart_read(struct uart *u, uint32_t off)
{
	switch (off) {
	case UART_RX:
		return u->st->lcr & UART_LCR_DLAB ? u->st->dll : rx_pop(u);
	case UART_IIR:
		return read_iir(u);
	default:
		return off < UART_PORTS ? u->shadow[off] : 0xff;
	}
}

/* In loopback the modem outputs come back as its inputs; drivers probe for that. */
static uint8_t msr(const struct uart *u)
{
	uint8_t m = u->st->mcr, v = 0;

	if (!loopback(u))
		return MSR_READY;
	if (m & UART_MCR_DTR)
		v |= UART_MSR_DSR;
	if (m & UART_MCR_RTS)
		v |= UART_MSR_CTS;
	if (m & UART_MCR_OUT1)
		v |= UART_MSR_RI;
	if (m & UART_MCR_OUT2)
		v |= UART_MSR_DCD;
	return v;
}

static void update_shadow(struct uart *u, bool ready)
{
	const struct uart_state *s = u->st;

	u->shadow[UART_IER] = s->lcr & UART_LCR_DLAB ? s->dlm : s->ier;
	u->shadow[UART_LCR] = s->lcr;
	u->shadow[UART_MCR] = s->mcr;
	u->shadow[UART_LSR] = (uint8_t)((s->rx_count ? UART_LSR_DR : 0) |
					(ready ? UART_LSR_THRE | UART_LSR_TEMT : 0));
	u->shadow[UART_MSR] = msr(u);
	u->shadow[UART_SCR] = s->scr;
}

void uart_settle(struct uart *u)
{
	bool ready = tx_ready(u), pending;

	if (ready && u->st->tx_dirty) {
		u->st->tx_dirty = 0;
		u->st->thri = 1;
	}
	update_shadow(u, ready);
	pending = cause(u) != UART_IIR_NO_INT;
	if (pending && (!u->line || u->again))
		u->ops->irq(u->ctx);
	u->line = pending;
	u->again = false;
}

void uart_init(struct uart *u, struct uart_state *st, uint8_t *shadow, const struct uart_ops *ops,
	       void *ctx)
{
	memset(u, 0, sizeof(*u));
	u->st = st;
	u->shadow = shadow;
	u->ops = ops;
	u->ctx = ctx;
	/* The state may be another process's: keep the indices inside. */
	if (st->rx_count > UART_FIFO)
		st->rx_count = 0;
	st->rx_head %= UART_FIFO;
}
