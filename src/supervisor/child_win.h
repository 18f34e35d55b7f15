/* SPDX-License-Identifier: BSD-2-Clause */
/* One child process on Windows: insula-vmm or a helper. Made in its container, its log lines passed
 * on, ended. One thread. */
#ifndef SUPERVISOR_CHILD_WIN_H
#define SUPERVISOR_CHILD_WIN_H

#include "base/win.h"
#include "jail/contain.h"

#define CHILD_LINE 512

enum child_state {
	CHILD_NONE,     /* no process */
	CHILD_STARTING, /* made; MSG_READY is not there yet */
	CHILD_READY,    /* contained, verified, at work */
	CHILD_STOPPING, /* MSG_STOP was sent */
	CHILD_DONE,     /* MSG_STOPPED or MSG_VM_EXIT came */
};

struct child {
	const char *program; /* "insula-blk" */
	char name[24];       /* for messages: "insula-blk vda" */
	enum contain_kind kind;
	enum child_state state;
	struct contained box;
	HANDLE pipe; /* our end of the channel; owned */
	struct channel channel;
	HANDLE log, log_event; /* our end of its standard error; owned */
	OVERLAPPED log_ov;
	bool log_reading;
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
/* Set while it has written something; NULL: it has no log any more. Then child_log(): pass it on as
 * clean lines with its name. */
HANDLE child_log_event(struct child *c);
void child_log(struct child *c);
/* It has ended: what it still said, its exit code; then it is as after child_init(). */
DWORD child_reap(struct child *c);
/* End it and reap; nothing without a process. */
void child_kill(struct child *c);

#endif
