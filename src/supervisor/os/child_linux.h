/* SPDX-License-Identifier: BSD-2-Clause */
/* The system's part of struct child (child.h, which includes this): a pidfd, a socket, a pipe. */
#ifndef SUPERVISOR_CHILD_LINUX_H
#define SUPERVISOR_CHILD_LINUX_H

#include <insula/jail.h>

struct child;

struct child_os {
	int exec_fd; /* the binary; kept for restarts; owned */
	unsigned threads, nofile;
	uint64_t fsize, memlock, as; /* see struct jail_plan */
	bool gives;                  /* its messages may bring one descriptor: */
	int came; /* that of the message under way, whoever takes it sets -1; else -1 */
	struct jail_child jail; /* descriptors are -1 when there is no process */
	struct watch channel, log, end;
};

/* The binary LIBEXEC/PROGRAM, opened; the caller's. */
int child_program(const char *libexec, const char *program, struct err *e);
/* Open the binary LIBEXEC/PROGRAM: whatever is installed later, every process of this child is of
 * this one. */
int child_init(struct child *c, const char *libexec, const char *program, const char *device,
	       unsigned threads, unsigned nofile, struct err *e);
/* A child of a program that is open: `exec_fd` stays the caller's. `device`: "" if it has none. */
int child_init_open(struct child *c, int exec_fd, const char *program, const char *device,
		    unsigned threads, unsigned nofile, struct err *e);
/* A program of the host that runs already, without a channel. Its log's descriptor is taken over,
 * and on errors the process is killed. */
int child_adopt(struct child *c, const char *program, pid_t pid, int log, struct err *e);

#endif
