/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-console is told: insula/start.h, and this. */
#ifndef DEVICES_CONSOLE_START_H
#define DEVICES_CONSOLE_START_H

#include <insula/proto.h>

#define CONSOLE_START START_TAG('c', 'o', 'n', '1') /* a 16550 */
#define VCON_START START_TAG('v', 'c', 'o', '1')    /* virtio-console */
#define VCON_QUEUES 2u

enum uart_flags {
	UART_HAS_INPUT = 1,
	UART_ESCAPE = 2,   /* Ctrl-A x ends the VM, Ctrl-A Ctrl-A is Ctrl-A */
	UART_STREAM = 4,   /* the input is a stream for insula-init: it waits until the guest says
			  * that its terminal is set up, by MCR.OUT1 or by its first output,
			  * and its end is given as Ctrl-D */
	UART_RESTORED = 8, /* the page is a snapshot's: what its rings hold was the other VM's */
};
/* START_OWN: output, then input if UART_HAS_INPUT. A 16550 gets no guest memory and no kick;
 * virtio-console all memory, and the kicks of receiveq and transmitq. */
struct msg_start_uart {
	struct start_head head;
	uint32_t flags; /* enum uart_flags */
	uint32_t pad;
	uint64_t limit; /* how long the output may get, if it is a file; 0: it is none. On Linux the
			   kernel sees to it (RLIMIT_FSIZE). */
};

#endif
