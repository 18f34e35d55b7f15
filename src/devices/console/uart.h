/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A 16550A as a pure state machine: registers in, bytes and interrupts out. No descriptor, no
 * thread.
 *
 * Reads of RBR/DLL (0) and IIR (2) have side effects and come here as calls; every other register
 * is read from the shadow page, where register i is byte i. That is why nothing changes when LSR or
 * MSR is read: there are no error and no delta bits that a read would have to clear. The input
 * waits until there is room (no overrun), and the modem lines of a console never change.
 *
 * Received bytes are a window onto an input that can wait. Whoever sends them obeys RTS, once the
 * guest has ever touched MCR: a kernel that probes and starts the port clears its FIFOs and throws
 * away what it reads, long before anybody wants to type; so what is in the FIFO then goes back to
 * where it came from.
 *
 * The transmitter is as fast as the console takes the bytes: THRE and TEMT say that the output has
 * room for what may be under way in the posted ring. A driver that looks at THRE loses nothing.
 *
 * The interrupt line is edge-triggered. An event is signalled when it becomes pending, and again
 * whenever a cause was served and another one is left, so that a driver that handles one cause per
 * interrupt never gets stuck.
 *
 * National Semiconductor PC16550D, section 8.
 */
#ifndef DEVICES_UART_H
#define DEVICES_UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/devpage.h>

#define UART_PORTS 8
#define UART_FIFO 16
/* The transmitter says "full" when less than this is free: everything in the posted ring, and as
 * much again for what a driver may send after it last saw THRE (one FIFO each, from several
 * processors). */
#define UART_TX_SLACK (2 * DP_RING_LEN)

/* Everything that a restart has to know. In the device page, so what is read from it is masked. */
struct uart_state {
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	uint8_t fifo_on;  /* FCR bit 0 */
	uint8_t trigger;  /* bytes */
	uint8_t thri;     /* "transmitter empty" is pending */
	uint8_t tx_dirty; /* THR was written since the last settle */
	uint8_t mcr_seen; /* the guest drives RTS */
	uint8_t rx_head;
	uint8_t rx_count;
	uint8_t rx[UART_FIFO]; /* in loopback: what the guest has sent to itself */
};

struct uart_ops {
	size_t (*tx_room)(void *ctx); /* bytes that the output takes now */
	void (*tx)(void *ctx, uint8_t byte);
	void (*rx_back)(void *ctx, const uint8_t *buf,
			size_t n); /* give back; uart_rx() brings them again */
	void (*irq)(void *ctx);
};

struct uart {
	struct uart_state *st;
	volatile uint8_t *shadow;
	const struct uart_ops *ops;
	void *ctx;
	bool hold;        /* nothing is received before the guest sets MCR.OUT1; set by the owner */
	bool line;        /* an interrupt is pending and was signalled by this process */
	bool again;       /* a cause was served: signal once more if one is left */
	uint64_t dropped; /* bytes that did not fit: the driver did not look at THRE */
};

/* A state after reset, or one to carry on from. */
void uart_reset_state(struct uart_state *st);
void uart_init(struct uart *u, struct uart_state *st, uint8_t *shadow, const struct uart_ops *ops,
	       void *ctx);

void uart_write(struct uart *u, uint32_t off, uint8_t val);
uint8_t uart_read(struct uart *u, uint32_t off);
/* How many received bytes fit, and put some in: the number taken. 0 without RTS and in loopback
 * mode. */
size_t uart_rx_room(const struct uart *u);
size_t uart_rx(struct uart *u, const uint8_t *buf, size_t n);
/* Bring shadow registers and the interrupt line up to date. After every batch of the above, and
 * when the output has room again. */
void uart_settle(struct uart *u);

#endif
