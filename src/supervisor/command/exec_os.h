/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system's part of exec.c: the process of an insula-exec and the streams between it and
 * insula-vsock. exec_linux.c, exec_win.c. Nothing here blocks.
 */
#ifndef SUPERVISOR_EXEC_OS_H
#define SUPERVISOR_EXEC_OS_H

#include "exec.h"

struct exec_order { /* what an insula-exec gets */
	struct msg_start_exec msg;
	int spec, in, out, err; /* borrowed; `in` counts with EXEC_STDIN alone */
};

/* The description of a command in a descriptor that insula-exec reads it from, and nobody changes.
 * The caller closes it. */
int exec_os_seal(const void *body, size_t len, struct err *e);
/* For an output that nobody wants; the caller closes it. */
int exec_os_null(void);

/* Make the process and a stream, whose other end is p->stream then. On error exec_os_free(). */
int exec_os_launch(struct vm *vm, struct exec_proc *p, const struct exec_order *o, struct err *e);
/* Another stream: one end to insula-exec (MSG_EXEC_STREAM), the other one is p->stream. If
 * insula-exec is dying p->stream is -1: its end is seen elsewhere. */
int exec_os_another(struct exec_proc *p);
/* p->stream to insula-vsock: MSG_VSOCK_STREAM to the port of insula-init. Whether it is taken shows
 * at insula-exec's end. Afterwards p->stream is -1, or the caller closes it. */
void exec_os_connect(struct vm *vm, struct exec_proc *p);
/* A message without descriptors. */
int exec_os_send(struct exec_proc *p, enum msg_type t, const void *body, size_t len);
/* End the process; it is still to be reaped. No-op without one. */
void exec_os_kill(struct exec_proc *p);
/* The same, reaped as well. */
void exec_os_free(struct exec_proc *p);

#endif
