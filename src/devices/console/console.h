/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A serial console: the UART between the device page and two descriptors.
 *
 *   control thread   registers; the only one that touches struct uart
 *   output thread    takes bytes from the output ring, writes them; may block for ever in write()
 *   input thread     reads, looks for the escape, fills the input ring; only if there is an input
 *
 * Both rings have one producer and one consumer, and wake-ups go through eventfds. The output ring
 * lies in the device page: a helper that is killed loses nothing that the guest has sent.
 */
#ifndef DEVICES_CONSOLE_H
#define DEVICES_CONSOLE_H

#include <stdatomic.h>

#include "console_start.h"
#include "devices/helper.h"
#include "uart.h"

#define CONSOLE_TAG 0x31545255u /* "URT1" */
#define CONSOLE_OUT_LEN 65536u  /* powers of two */
#define CONSOLE_IN_LEN 4096u
#define CONSOLE_BATCH 4096u            /* bytes worth a write of their own before the burst ends */
#define CONSOLE_DRAIN_NS 2000000000ull /* at the end: this long without progress is enough */
#define CONSOLE_FULL_MS 1000 /* a terminal's input is full for so long: look for the escape only */
#define CONSOLE_RETRY_MS 200 /* nobody has the other side of the pty open */
#define CONSOLE_DEAF_MS 1000 /* nobody reads from the pty */

/* In the device page. */
struct console_state {
	struct uart_state uart;
	alignas(64) _Atomic uint32_t out_head; /* control thread; free-running */
	alignas(64) _Atomic uint32_t out_tail; /* output thread */
	uint8_t out[CONSOLE_OUT_LEN];
};
_Static_assert(sizeof(struct console_state) <= PORT_DEV_STATE_SIZE, "the state fits the page");

enum console_flag { CONSOLE_QUIT = 1, CONSOLE_HELP = 2 };

struct console {
	struct helper *h;
	struct uart uart;
	struct console_state *st;
	int out_fd, in_fd; /* owned; in_fd -1: no input */
	bool out_pty, in_pty, escape;
	bool stream,
		line_open; /* input thread: the input is data with an end; its last line has none */

	uint32_t out_head;          /* control thread's own copy */
	int out_event;              /* control -> output thread: out_mark has moved */
	_Atomic uint32_t out_mark;  /* write up to here */
	_Atomic uint32_t want_room; /* control thread waits for room or for the end of the output */
	bool out_deaf;              /* output thread: nobody reads from the pty */
	bool out_told;              /* output thread: the first loss was reported */
	uint64_t out_left;          /* output thread, Windows: until the file's limit */
	_Atomic uint64_t out_bytes, out_writes, out_lost;

	int in_event; /* control -> input thread: there is room again */
	_Atomic uint32_t in_head, in_tail;
	_Atomic uint32_t in_waits; /* input thread waits for room */
	_Atomic uint32_t flags;    /* enum console_flag, from the input thread */
	_Atomic uint64_t in_bytes;
	uint8_t in[CONSOLE_IN_LEN];
	bool after_ctrl_a, in_stuck; /* input thread; stuck: read for the escape alone */
};

extern const struct helper_ops console_ops;

/* Take over the descriptors (closed by the end of the process) and start the threads. Registers
 * work after helper_attach(h, &console_ops, c). */
int console_open(struct console *c, struct helper *h, int out_fd, int in_fd,
		 const struct msg_start_uart *m, struct err *e);
void console_rules(const struct console *c, struct rule_list *l);

/* Output thread: n bytes are given up, because of a negative errno. */
void console_lose(struct console *c, uint32_t n, int error);

/* ---- console_linux.c, console_win.c: the two descriptors ---- */

/* See what they are, and make them fit. `limit` as in struct msg_start_uart. */
int console_ends(struct console *c, uint64_t limit, struct err *e);
/* Output thread: write some of [buf, buf + n); may block for ever. The number of bytes that are
 * dealt with: written, or lost because the other side is gone. */
uint32_t console_write(struct console *c, const uint8_t *buf, uint32_t n);
/* Input thread: bytes read, at least one; 0: the end; a negative errno. Blocks. */
int console_read(struct console *c, void *buf, size_t n);

#endif
