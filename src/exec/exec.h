/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-exec: one command in the guest, between the stream to insula-init and the user's three
 * descriptors. It parses what the guest wrote, so that insula-run does not have to.
 *
 *   main thread     the stream and the channel; never blocks on the user's descriptors
 *   writer threads  one each for output and errors: ring -> descriptor; may block for ever
 *   reader thread   descriptor -> ring; only if there is an input
 *
 * The user's descriptors are open elsewhere too, so their flags stay as they are, blocking or not;
 * that is what the threads are for. On Windows they are pipes and files, never a console window.
 * Each ring has one producer and one consumer, is as large as the window of its stream, and
 * wake-ups go through eventfds: a stream that nobody reads fills its ring, uses up its credit and
 * stops, alone.
 *
 * When the stream ends before the command does (insula-vsock has died), the supervisor is told and
 * sends another one, over which the two sides go on where they were, or says that none will come.
 *
 * insula/guestproto.h has the protocol, docs/guest-protocol.md the explanation.
 */
#ifndef DEVICES_EXEC_H
#define DEVICES_EXEC_H

#include <stdatomic.h>
#include <sys/types.h>

#include <insula/guestproto.h>

#include "devices/helper.h"

#define EXEC_ESCAPE_KEY 0x1d /* Ctrl-] */
#define EXEC_ESCAPE_TIMES 3u
#define EXEC_ESCAPE_NS 1000000000ull

struct exec_ring {
	_Atomic uint32_t head, tail; /* free-running */
	uint32_t size;               /* a power of two */
	uint8_t *buf;
};

/* One of the two outputs. */
struct exec_out {
	struct exec *x;
	int fd, wake; /* owned; wake: main -> writer */
	struct exec_ring ring;
	uint32_t credited; /* main: ring.tail up to which credit was given back */
	uint32_t unsaid;   /* writer: written since it last woke the main thread */
	_Atomic int error; /* writer: errno of the write that ended it */
	bool closed;       /* main: the guest has been told */
	uint8_t buf[GP_WINDOW_OUT];
};

struct exec {
	int channel, stream;    /* channel borrowed, stream owned; -1: none now */
	int place;              /* the number of every stream's descriptor: the filter names it */
	int event;              /* the threads -> main */
	struct exec_host *host; /* what the system keeps of the stream (Windows) */
	uint32_t id;            /* the command's */
	struct gp_in rx;
	struct gp_out tx;
	struct exec_out out[2];
	bool hello, done, reported; /* main: the guest's hello was seen on this stream; nothing more
				     * will come */
	bool met, again, mute;      /* main: a hello was seen; not the first stream; it takes no
				     * more */
	struct msg_exec_exit exit;  /* valid when done */

	int in_fd, in_wake; /* owned; -1: no input */
	struct exec_ring in;
	uint32_t in_credit;   /* main */
	bool in_ended;        /* main: GP_STDIN_END was sent, or the guest does not want more */
	_Atomic bool in_eof;  /* reader */
	_Atomic bool in_stop; /* main -> reader */
	_Atomic bool quit;    /* reader: the escape was typed */
	bool escape;
	bool tells_time; /* main: the frame has a clock, which is set when the guest has answered */
	unsigned escapes; /* reader */
	uint64_t escape_ns;

	uint32_t start_len, start_sent; /* of the frame */
	uint8_t in_buf[GP_WINDOW_IN];
	uint8_t body[GP_DATA_MAX];
	uint8_t start[GP_HDR_LEN + GP_START_MAX]; /* the whole frame */
};

/* Take over the descriptors (in -1: no input). The stream's number is the lowest free one once it
 * is closed: so the next one gets the same. `start_len` bytes of the GP_START body (by the flags: of
 * GP_POWEROFF or GP_RESUMED) are read from `spec`, which is closed. No thread yet: exec_threads()
 * starts them. */
int exec_open(struct exec *x, const struct msg_start_exec *m, int channel, int stream, int spec,
	      int out, int err_out, int in, struct err *e);
int exec_threads(struct exec *x, struct err *e);
void exec_rules(const struct exec *x, struct rule_list *l);
/* Serve until the supervisor ends it: 0, or a negative errno when the channel is gone. */
int exec_loop(struct exec *x);

/* ---- exec_linux.c, exec_win.c: the system's part ---- */

/* All `len` bytes of the description. */
int exec_spec_read(int spec, void *buf, size_t len);
/* May these be the user's descriptors? Before the threads. */
int exec_user_check(const struct exec *x, struct err *e);
/* Blocks. Bytes, 0 for the end of what is read, or a negative errno; -EAGAIN: try again. */
ssize_t exec_user_write(int fd, const void *buf, size_t n);
ssize_t exec_user_read(int fd, void *buf, size_t n);
/* `fd`, which is open for this alone, becomes x->stream. -EPROTO: it is not where the next stream
 * has to be. */
int exec_stream_open(struct exec *x, int fd);
void exec_stream_close(struct exec *x);
/* Do not block: -EAGAIN. */
ssize_t exec_stream_read(struct exec *x, void *buf, size_t n);
ssize_t exec_stream_write(struct exec *x, const void *buf, size_t n);
/* Sleep until there is news; `room`: also until the stream takes something. x->event is drained. */
enum exec_news { EXEC_ON_CHANNEL = 1, EXEC_ON_STREAM = 2 };
unsigned exec_wait(struct exec *x, bool room);

/* ---- for exec_loop(), tests and the fuzzer ---- */

/* One frame from the guest: header and body in x->rx. -EPROTO. */
int exec_frame(struct exec *x);
/* The stream has ended or is not to be believed: x->exit says so, unless the command had ended. */
void exec_lost(struct exec *x, const char *why);

#endif
