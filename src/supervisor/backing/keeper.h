/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that puts something of the host back when the supervisor has ended, however that came.
 *
 * It waits for the end of a pipe, which is the supervisor's. It has nothing else of the VM's: no
 * descriptor but one that it is given, no memory of the guest. It leaves the VM's control group, with which it might be
 * killed.
 */
#ifndef SUPERVISOR_KEEPER_H
#define SUPERVISOR_KEEPER_H

#include <stdbool.h>
#include <sys/types.h>

#include <insula/err.h>

struct keeper {
	pid_t pid; /* 0: there is none */
	int fd;    /* owned: our end of the pipe */
};

/* From now on `end` will be called with `arg`, in a copy of this process that has descriptors 0 to
 * 2 alone: system calls only, another thread may have held a lock. 0: it is done. `what` names it
 * in messages. */
int keeper_start(struct keeper *k, int (*end)(const void *arg), const void *arg, const char *what,
		 struct err *e);
/* The same, and it has a copy of this descriptor as KEEPER_HELD; -1: none. */
#define KEEPER_HELD 4
int keeper_start_with(struct keeper *k, int held, int (*end)(const void *arg), const void *arg,
		      const char *what, struct err *e);
/* Let it do that. False: it has not ended. Does not block; keeper_end() says what came of it. */
bool keeper_let(struct keeper *k);
/* It is not needed any more, and does nothing. No-op if there is none. */
void keeper_dismiss(struct keeper *k);
/* Let it do that, and wait `ms` milliseconds at most. 0: done, or there is none. -EAGAIN: not yet.
 * -EIO: it could not, or was killed; then it is the caller's to do. */
int keeper_end(struct keeper *k, unsigned ms);

#endif
