/* SPDX-License-Identifier: BSD-2-Clause */
/* One child process on Windows: insula-vmm or a helper. Made in its container, its log lines passed
 * on, ended. One thread. */
#ifndef SUPERVISOR_CHILD_WIN_H
#define SUPERVISOR_CHILD_WIN_H

#include "base/win.h"
#include "jail/contain.h"
#include "child_state.h"

#define CHILD_LINE 512

struct child {
	const char *program; /* "insula-blk" */
	char name[24];       /* for messages: "insula-blk vda" */
	enum contain_kind kind;
	enum child_state state;
	struct contained box;
	HANDLE pipe; /* our end of the channel; owned */
	struct channel channel;
	bool gone;  /* the channel has ended: only its end is waited for now */
	HANDLE log; /* our end of its standard error; owned; NULL: it has none any more */
	OVERLAPPED log_ov;
	bool log_busy; /* the system writes into log_buf */
	DWORD log_error, log_n;
	char log_buf[1024];
	char line[CHILD_LINE]; /* a log line that is not complete yet */
	size_t nline;
	uint64_t window_ns; /* rate limit of log lines */
	unsigned lines, dropped;
};

void child_init(struct child *c, const char *program, const char *device, enum contain_kind kind);
/* Start it, with these descriptors besides its channel and its log. */
int child_spawn(struct child *c, const int *fds, unsigned nfds, struct err *e);
/* Message to it; fds are among those that it was started with, or came from child_give(). */
int child_send(struct child *c, enum msg_type type, const void *body, size_t len, const int *fds,
	       unsigned nfds);
/* A handle of its own for what `h` stands for, with `access`; its value, which means nothing in
 * this process, or a negative errno. `h` is closed in any case. */
int child_give(struct child *c, HANDLE h, DWORD access);
/* What to wait for: a message or the end of its channel, then (`gone`) the end of the process. NULL
 * without a process. */
HANDLE child_event(struct child *c);
/* Pass on what it has written to its log, as clean lines with its name. That it has written ends
 * an alertable wait. */
void child_log(struct child *c);
/* It has ended: what it still said, its exit code; then it is as after child_init(). */
DWORD child_reap(struct child *c);
/* End it; it is still to be reaped. Nothing without a process. */
void child_shoot(const struct child *c);
/* End it and reap; nothing without a process. */
void child_kill(struct child *c);
void child_free(struct child *c); /* the same: it owns nothing else */

#endif
