/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's side of a console, the same for the 16550 (console.h) and for virtio (vcon.h): an
 * output and perhaps an input, which may be anything, and a ring for each of them.
 *
 *   device's thread  puts bytes into the output ring, takes them from the input ring; never blocks
 *   output thread    takes bytes from the output ring, writes them; may block for ever in write()
 *   input thread     reads, looks for the escape, fills the input ring; only if there is an input
 *
 * Each ring has one producer and one consumer, and wake-ups go through events. Both rings lie in
 * the device page. So a helper that is killed loses nothing that the guest has sent, and nothing
 * that was read for it. What a killed output thread was writing may be written again.
 */
#ifndef DEVICES_ENDS_H
#define DEVICES_ENDS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "console_start.h"
#include "devices/helper.h"

#define CONSOLE_OUT_LEN 65536u /* powers of two */
#define CONSOLE_IN_LEN 4096u
#define CONSOLE_BATCH 4096u /* bytes worth a write of their own before the burst ends */
#define CONSOLE_PIECE 4096u /* of one write: a pipe's slow reader is seen to make progress */
#define CONSOLE_DRAIN_NS 2000000000ull /* at the end: this long without progress is enough */
#define CONSOLE_FULL_MS 1000 /* a terminal's input is full for so long: look for the escape only */
#define CONSOLE_RETRY_MS 200 /* nobody has the other side of the pty open */
#define CONSOLE_DEAF_MS 1000 /* nobody reads from the pty */

/* In the device page. The indices run freely. */
struct ends_rings {
	alignas(64) _Atomic uint32_t out_head; /* device's thread */
	alignas(64) _Atomic uint32_t out_tail; /* output thread */
	alignas(64) _Atomic uint32_t in_head;  /* input thread */
	_Atomic uint32_t in_open;              /* input thread: the last line read has no end */
	_Atomic uint32_t in_ended;            /* input thread: the end of a stream is in the ring */
	alignas(64) _Atomic uint32_t in_tail; /* device's thread */
	uint8_t in[CONSOLE_IN_LEN];
	uint8_t out[CONSOLE_OUT_LEN];
};

struct ends_conf {
	int out_fd, in_fd; /* taken over; in_fd -1: no input */
	uint32_t flags;    /* enum uart_flags */
	uint64_t limit;    /* as in struct msg_start_uart */
	int wake_fd;       /* of the device's thread: there is input, or room, or help is wanted */
	int quit_fd;       /* of the control thread: ends_quit() has something to say */
};

enum ends_flag { ENDS_QUIT = 1, ENDS_HELP = 2 };

struct ends {
	struct ends_rings *r;
	int out_fd, in_fd;
	int wake_fd, quit_fd;
	bool out_pty, in_pty, escape;
	bool stream;     /* the input is data with an end */
	_Atomic bool go; /* ends_go() was called */

	uint32_t out_head;          /* device's thread: its own copy */
	int out_event;              /* device's -> output thread: out_mark has moved */
	_Atomic uint32_t out_mark;  /* write up to here */
	_Atomic uint32_t want_room; /* somebody waits for room or for the end of the output */
	bool out_deaf;              /* output thread: nobody reads from the pty */
	_Atomic bool out_told;      /* the first loss was reported */
	uint64_t out_left;          /* output thread, Windows: until the file's limit */
	_Atomic uint64_t out_bytes, out_writes, out_lost;

	int in_event;              /* device's -> input thread: there is room again */
	_Atomic uint32_t in_waits; /* input thread waits for room */
	_Atomic uint32_t flags;    /* enum ends_flag, from the input thread */
	_Atomic uint64_t in_bytes;
	bool after_ctrl_a, in_stuck; /* input thread; stuck: read for the escape alone */
};

/* All zeros, but for the rings: those of `resumed`, or empty ones. Without descriptors and threads:
 * for ends_open(), and for tests. */
void ends_rings(struct ends *c, struct ends_rings *r, bool resumed);
/* Take over the two descriptors (closed by the end of the process), carry on with the rings or
 * begin with empty ones, and start the threads, which touch nothing before ends_go(). `r` stays the
 * caller's. */
int ends_open(struct ends *c, struct ends_rings *r, bool resumed, const struct ends_conf *conf,
	      struct err *e);
/* The jail is sealed: read and write. */
void ends_go(struct ends *c);
void ends_rules(const struct ends *c, struct rule_list *l);

/* ---- device's thread ---- */

/* Bytes that the output ring takes now. */
uint32_t ends_room(const struct ends *c);
/* There is not enough: wake_fd when there is more. Hands on what is there; look at ends_room()
 * once more afterwards. */
void ends_want_room(struct ends *c);
/* Where the next bytes go: the piece before the ring's end, not longer than the room. */
uint8_t *ends_piece(struct ends *c, uint32_t *len);
/* `n` bytes were put there. */
void ends_put(struct ends *c, uint32_t n);
/* Bytes that are worth a write of their own wait for ends_flush(). */
bool ends_batch(const struct ends *c);
/* Hand everything so far to the output thread. */
void ends_flush(struct ends *c);
/* If it was asked for, and if there is room. */
void ends_help(struct ends *c);
/* Bytes of input before `tail` were taken (or, if it is smaller, given back). */
void ends_took(struct ends *c, uint32_t tail);

/* ---- control thread ---- */

/* MSG_QUIT, if the user wants it. */
void ends_quit(struct ends *c, int channel);
/* At the end, when nothing is put any more: wait for the output, bounded in time. How many bytes
 * were lost. */
uint64_t ends_drain(struct ends *c);

/* ---- output thread, device's thread ---- */

/* n bytes are given up, because of a negative errno; -EAGAIN: nobody reads. */
void ends_lose(struct ends *c, uint32_t n, int error);

/* ---- ends_linux.c, ends_win.c: the two descriptors ---- */

/* See what they are, and make them fit. */
int ends_look(struct ends *c, uint64_t limit, struct err *e);
/* Output thread: write some of [buf, buf + n); may block for ever. The number of bytes that are
 * dealt with: written, or lost because the other side is gone. */
uint32_t ends_write(struct ends *c, const uint8_t *buf, uint32_t n);
/* Input thread: bytes read, at least one; 0: the end; a negative errno. Blocks. */
int ends_read(struct ends *c, void *buf, size_t n);

#endif
