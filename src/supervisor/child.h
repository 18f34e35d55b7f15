/* SPDX-License-Identifier: BSD-2-Clause */
/* One child process: insula-vmm or a helper. Spawned in its jail, its log lines passed on, reaped.
 */
#ifndef SUPERVISOR_CHILD_H
#define SUPERVISOR_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/jail.h>
#include <insula/proto.h>

#include "child_state.h"

#define CHILD_LINE 512

struct child {
	const char *program; /* "insula-blk" */
	char name[24];       /* for messages: "insula-blk vda" */
	int exec_fd;         /* the binary; kept for restarts; owned */
	unsigned threads, nofile;
	uint64_t fsize;         /* see struct jail_plan */
	struct jail_child jail; /* descriptors are -1 when there is no process */
	enum child_state state;

	bool talkative; /* its lines are shown with -v alone; the last one is kept */
	char last[160];
	char line[CHILD_LINE]; /* a log line that is not complete yet */
	size_t nline;
	uint64_t window_ns; /* rate limit of log lines */
	unsigned lines, dropped;
};

/* There is nothing; child_free() does no harm. */
void child_none(struct child *c);
/* Open the binary LIBEXEC/PROGRAM: whatever is installed later, every process of this child is of
 * this one. */
int child_init(struct child *c, const char *libexec, const char *program, const char *device,
	       unsigned threads, unsigned nofile, struct err *e);
/* The binary LIBEXEC/PROGRAM, opened; the caller's. */
int child_program(const char *libexec, const char *program, struct err *e);
/* A child of a program that is open: `exec_fd` stays the caller's. */
int child_init_open(struct child *c, int exec_fd, const char *program, unsigned threads,
		    unsigned nofile, struct err *e);
int child_spawn(struct child *c, struct err *e);
/* Pass on what the child wrote to its log pipe, as clean lines with its name, at most CHILD_LINES a
 * second. */
void child_log(struct child *c);
/* After its pidfd became readable: reap, take the rest of its log, close. Returns the wait status.
 */
int child_reap(struct child *c);
/* Has it ended, reaped or not? */
bool child_ended(const struct child *c);
/* SIGKILL; it is still to be reaped. No-op without a process. */
void child_shoot(const struct child *c);
/* SIGKILL, reap, close; no-op without a process. */
void child_kill(struct child *c);
void child_free(struct child *c);
/* "exited with status 1", "was killed by signal 31 (a system call that its jail forbids)". */
void child_describe(int status, char *out, size_t size);

#endif
