/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes by number and start time, so that a number which was given again is not taken for the
 * one that had it. */
#ifndef OCI_PROC_H
#define OCI_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <insula/err.h>

struct proc {
	pid_t pid; /* 0: none */
	uint64_t start;
};

/* Our own, or a child that is still there. Negative: *p is taken for gone by all below. */
int proc_of(pid_t pid, struct proc *p);
/* Ours, right after fork(): `pid` is what it has returned. A child that nobody could find again is
 * killed and reaped: the text says so of `what`, and *p is none. */
int proc_child(pid_t pid, const char *what, struct proc *p, struct err *e);
/* Neither gone nor a zombie. Where that cannot be looked up (EMFILE), whoever has its number counts. */
bool proc_alive(const struct proc *p);
/* A pidfd, the caller's. -ESRCH: it is gone; else (EMFILE) it is not known. */
int proc_open(const struct proc *p);
/* As proc_open(). */
int proc_kill(const struct proc *p, int signo);
/* Wait until it is gone; -ETIMEDOUT. */
int proc_wait(const struct proc *p, int ms);

/* For poll(): milliseconds to this time of clock_ns(), rounded up; 0: it has passed. */
int ms_until(uint64_t limit_ns);

#endif
