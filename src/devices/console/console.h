/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A serial console: the UART between the device page and the host's ends (ends.h, which has
 * the other two threads). Registers are the control thread's; it is the only one that touches
 * struct uart, and it is the "device's thread" of the ends.
 */
#ifndef DEVICES_CONSOLE_H
#define DEVICES_CONSOLE_H

#include "ends.h"
#include "uart.h"

#define CONSOLE_TAG 0x32545255u /* "URT2" */

/* In the device page. */
struct console_state {
	struct uart_state uart;
	struct ends_rings rings;
};
_Static_assert(sizeof(struct console_state) <= PORT_DEV_STATE_SIZE, "the state fits the page");

struct console {
	struct helper *h;
	struct uart uart;
	struct console_state *st;
	struct ends ends;
};

extern const struct helper_ops console_ops;

/* Take over the descriptors (closed by the end of the process) and start the threads. Registers
 * work after helper_attach(h, &console_ops, c). */
int console_open(struct console *c, struct helper *h, int out_fd, int in_fd,
		 const struct msg_start_uart *m, struct err *e);

#endif
