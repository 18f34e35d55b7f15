/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor as a service on Windows: `insula-run --control PIPE,SETUP,RESULT,GO`, started by
 * insulad and by nobody else. The four are inherited handles:
 *
 *   the only instance of the control pipe (whole messages), which insulad has made
 *   the set-up, a file with a JSON object {id, token, config}
 *   the result file, empty; at the end the supervisor writes one JSON line there, with one write
 *   a pipe with one byte, which comes when insulad has written its record; its end means: go away
 *
 * Messages are those of control.h: {id, op, params}, {id, result} or {id, error}, {event, data}.
 * There is one connection at a time; when it ends, the next is waited for. Attaching to the console
 * and commands are not there yet.
 *
 * One thread, the supervisor's; nothing here waits but control_open() for its byte.
 */
#ifndef SUPERVISOR_CONTROL_WIN_H
#define SUPERVISOR_CONTROL_WIN_H

#include "base/win.h"
#include "config.h"

struct control;
struct vm;

#define CONTROL_SLOTS 2
#define CONTROL_TOKEN_LEN 64

/* Read the set-up into `c`. -EINVAL: the configuration is bad (the result can and must be written
 * all the same: *out is valid); other errors: *out is NULL. */
int control_open(struct control **out, const char *text, struct vm_config *c, struct err *e);
/* All of these do nothing without a control (NULL): insula-run on its own. */
/* What to wait for: how many, at most CONTROL_SLOTS. */
DWORD control_slots(struct control *k, HANDLE *h);
void control_serve(struct control *k, struct vm *vm);
/* When control_serve() wants to be called at the latest (clock_ns()), 0: not at all. */
uint64_t control_deadline(const struct control *k);
/* Tell the peer: "running", "helper-died" ... `name` and `text` may be NULL. */
void control_event(struct control *k, const char *event, const char *name, const char *text);
/* insula-vmm says MSG_PAUSED. */
void control_paused(struct control *k, struct vm *vm, bool paused);
/* The VM has ended, or could not begin: write the result, say so, close everything, free. */
void control_finish(struct control *k, const struct vm *vm);

#endif
