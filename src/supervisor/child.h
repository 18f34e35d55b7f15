/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One child process: insula-vmm, a helper, an insula-exec, passt.
 *
 * It is started in its jail, and from then on the loop serves it. What it says is checked here: it
 * is believed to be ready if the system agrees that it is in its jail (MSG_READY), it may say once
 * what kept it from that (MSG_FAILED), and has nothing else to say before. Every other message is
 * its owner's. A child that breaks the protocol, or closes its channel, is killed and not heard any
 * more. Its log lines are passed on, clean, with its name and at most CHILD_LINES a second. When it
 * has ended, what it still said is dealt with, it is reaped, and its owner is told.
 *
 * The same on every system; what is the system's is in child_linux.c and child_win.c. Thread: the
 * supervisor's. Nothing here waits but child_kill().
 */
#ifndef SUPERVISOR_CHILD_H
#define SUPERVISOR_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/proto.h>

#include "child_state.h"
#include "loop.h"

#define CHILD_LINE 512
#define CHILD_LINES 10 /* log lines a second that one child may print */

/* What it was when it ended, and how that came. */
struct child_end {
	enum child_state before;
	int status;   /* of its exit; -1: it was killed */
	char how[96]; /* "exited with status 1": follows its name in a line */
};

/* The step of a failure that the system tells, not the child. */
#define CHILD_UNFIT "not in its jail"

/* What its owner does. `ctx` is the owner's. False: the child has broken the protocol. */
struct child_ops {
	/* It is at work, in its jail. */
	void (*ready)(void *ctx);
	/* It could not set itself up, or is not in its jail (CHILD_UNFIT); nothing else is heard of
	 * it, and its end will follow. */
	bool (*failed)(void *ctx, const struct msg_failed *f);
	/* Whatever else it says, and never before it was ready: `body` has `len` bytes and is
	 * aligned for any message. */
	bool (*message)(void *ctx, enum msg_type t, const void *body, size_t len);
	/* MSG_FAULTS, before it is ready, with its descriptor, which is the owner's from now on.
	 * NULL: it breaks the protocol. */
	bool (*faults)(void *ctx, const struct msg_faults *m, int fd);
	/* It has ended and there is no process any more; another may be started. */
	void (*gone)(void *ctx, const struct child_end *end);
};

struct child_log {
	char line[CHILD_LINE]; /* one that is not complete yet */
	size_t nline;
	bool goes_on;       /* a line that was too long: `line` has the next piece of it */
	uint64_t window_ns; /* rate limit */
	unsigned lines, dropped;
};

#ifdef _WIN32
#include "supervisor/os/child_win.h"
#else
#include "supervisor/os/child_linux.h"
#endif

struct child {
	const char *program; /* "insula-blk" */
	char name[24];       /* for messages: "insula-blk vda" */
	enum child_state state;
	bool deaf;      /* nothing more that it says is heard */
	bool talkative; /* its lines are shown with -v alone; the last one is kept */
	char last[160];
	struct child_log log;
	const struct child_ops *ops;
	void *ctx;
	struct loop *loop; /* NULL: nobody watches it */
	struct child_os os;
};

/* There is nothing; child_free() does no harm. */
void child_none(struct child *c);
/* Whose it is, from its next process on. Kept by what sets up a child anew. */
void child_own(struct child *c, struct loop *loop, const struct child_ops *ops, void *ctx);
/* Start it. Where descriptors cannot travel with a message (Windows) it inherits these, and those
 * of child_send() are among them; elsewhere they are not looked at. */
int child_spawn(struct child *c, const int *fds, unsigned nfds, struct err *e);
/* A message to it. */
int child_send(struct child *c, enum msg_type type, const void *body, size_t len, const int *fds,
	       unsigned nfds);
/* One without a body, with descriptors that it has not inherited. */
int child_send_new(struct child *c, enum msg_type type, const int *fds, unsigned nfds);
/* MSG_STOP. True: it will say MSG_STOPPED, or end. */
bool child_stop(struct child *c);
/* Has it ended, or is there none? */
bool child_ended(const struct child *c);
/* End it; it is still to be reaped. No-op without a process. */
void child_shoot(const struct child *c);
/* End it, reap, close, and tell nobody; no-op without a process. */
void child_kill(struct child *c);
/* The same, and close its binary. */
void child_free(struct child *c);

/* ---- child.c, for child_linux.c and child_win.c ---- */

/* Set up but for what is the system's; the owner stays. */
void child_name(struct child *c, const char *program, const char *device);
/* What it wrote to its log. */
void child_log_add(struct child *c, const char *text, size_t len);
/* Its log has ended: a line without its end is one, too. */
void child_log_finish(struct child *c);
/* Its channel has something: one message. */
void child_hear(struct child *c);
/* The process has ended. */
void child_died(struct child *c);

/* ---- child_linux.c, child_win.c, for child.c ---- */

/* One message, without waiting. -EAGAIN: there is none, -EPIPE: its end has come; other errors
 * break the protocol. */
int child_os_receive(struct child *c, enum msg_type *type, void *body, size_t size, size_t *len);
/* The descriptor that came with it, the caller's; -1: none. */
int child_os_came(struct child *c);
/* What the system says of its jail. -ESRCH: it has ended. */
int child_os_verify(const struct child *c, struct err *e);
/* It is not heard any more: stop to watch its channel. */
void child_os_deaf(struct child *c);
/* It has ended: take the rest of its log, reap, close everything; status and how of `end`. */
void child_os_reap(struct child *c, struct child_end *end);
/* Wait for its end a while. */
bool child_os_wait(struct child *c);
/* Close everything of the process. */
void child_os_close(struct child *c);
void child_os_free(struct child *c);

#endif
