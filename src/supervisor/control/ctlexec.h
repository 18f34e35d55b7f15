/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands that insulad asks for: from JSON to exec.h and back, and what is still known of those
 * that have ended, for an insulad that comes back later.
 *
 * Each function that can refuse returns NULL, or the stable name of the reason (static) with a line
 * in `e`. One thread: the supervisor's. Nothing here waits.
 */
#ifndef SUPERVISOR_CTLEXEC_H
#define SUPERVISOR_CTLEXEC_H

#include <json-c/json.h>

#include "supervisor/command/exec.h"

#define CTLEXEC_KEPT 128
#define CTLEXEC_FDS 3

struct ctlexec_one {
	uint32_t id;       /* 0: free */
	uint64_t ready_ns; /* the guest must be up by then; 0: it is */
	bool tied;         /* it ends with the connection `conn` */
	bool orphan;       /* that has ended */
	unsigned conn;
	bool ended;
	int status; /* like these valid once it has ended: what insula-run would have */
	const char *reason;
	char text[EXEC_TEXT_LEN]; /* clean */
};

struct ctlexec {
	struct ctlexec_one one[CTLEXEC_KEPT];
};

/* params: {config: {command, env, cwd, user, tty}, rows, cols, queue}, config as insula-run --json
 * takes it. fds: output and errors, or input before them; they stay the caller's. */
const char *ctlexec_start(struct ctlexec *x, struct vm *vm, json_object *params, const int *fds,
			  unsigned nfds, exec_done *done, uint32_t *id, struct err *e);
/* From now on it is given up when this connection ends, as if its terminal had hung up: once
 * ctlexec_hung_up() has said so, in ctlexec_overdue(). */
void ctlexec_tie(struct ctlexec *x, uint32_t id, unsigned conn);
void ctlexec_hung_up(struct ctlexec *x, unsigned conn);
/* SIGKILL also ends one that the guest has not begun. */
const char *ctlexec_signal(struct ctlexec *x, struct vm *vm, int64_t id, int64_t signo,
			   struct err *e);
const char *ctlexec_resize(struct ctlexec *x, struct vm *vm, int64_t id, int64_t rows, int64_t cols,
			   struct err *e);
/* Note how it ended; its description, or NULL if it is none of these. */
json_object *ctlexec_ended(struct ctlexec *x, uint32_t id, const struct msg_exec_exit *m);
/* {exec, ended} and, once it has ended, {status, reason, text}; the caller's. NULL: not known, or
 * not any more. */
json_object *ctlexec_result(const struct ctlexec *x, int64_t id);
/* When ctlexec_overdue() wants to be called (CLOCK_MONOTONIC), 0: not at all. */
uint64_t ctlexec_deadline(const struct ctlexec *x, const struct vm *vm);
/* Give up those that wait for a guest that does not come up, or does not take their signals. */
void ctlexec_overdue(struct ctlexec *x, struct vm *vm);

#endif
