/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl exec: exec.c has the flags and the requests, exec_linux.c and exec_win.c the streams,
 * the terminal and the waiting. One thread but where it says so.
 */
#ifndef CTL_EXEC_H
#define CTL_EXEC_H

#include "ctl.h"

#define GUEST_SIGINT 2 /* Linux's numbers: the guest's, whatever this host is */
#define GUEST_SIGKILL 9
#define GUEST_SIGTERM 15
#define GUEST_SIGWINCH 28

struct session {
	struct ctl *ctl;
	const char *vm;
	bool input, tty, help;
	bool raw;            /* the terminal is the command's; exec_os_raw() has made it so */
	json_object *params; /* of vm.exec; owned until it is sent */
	int64_t exec;        /* 0: not known yet */
	int64_t want;        /* the id of the answer that we wait for */
	int status;          /* -1: it still runs */
	uint64_t interrupted_ns;
	struct exec_os *os; /* exec_linux.c's, exec_win.c's */
};

/* ---- exec.c ---- */

/* Something came for us, with a signal's number: to the command, or the end of waiting for it. */
void session_signal(struct session *s, int signo);
/* Answers can be read; blocks if none are there. */
int session_receive(struct session *s, struct err *e);

/* ---- exec_linux.c, exec_win.c ---- */

/* Make it raw, and say so in `s`. */
void exec_os_raw(struct session *s);
/* Catch what signals there are from now on. Our standard streams for the request: descriptors, or
 * names in s->params. The number of descriptors, at most 3; they stay ours. */
int exec_os_open(struct session *s, int fd[3], struct err *e);
/* Wait, and deal with what comes by the two functions above, until s->status is known. */
int exec_os_serve(struct session *s, struct err *e);
void exec_os_sleep(unsigned ms);
/* The terminal is as it was; what the command wrote has arrived. Also without exec_os_open(). */
void exec_os_end(struct session *s);

#endif
