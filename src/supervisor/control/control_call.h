/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An operation that somebody asks for: what control.c, which finds it by its name, and the files
 * that do it have in common. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_CONTROL_CALL_H
#define SUPERVISOR_CONTROL_CALL_H

#include "control_os.h"

#define CALL_MAX_WAIT_MS 3600000 /* that one may ask for */

struct call {
	struct control *k;
	struct vm *vm;
	unsigned conn;
	int64_t id;
	json_object *params; /* an object or NULL */
	int fd[CTLEXEC_FDS]; /* what came along; closed when the operation returns */
	unsigned nfds;
	bool more_fds; /* than may be */
};

/* A number of the parameters. */
int64_t call_number(const struct call *c, const char *key, int64_t otherwise);

/* To connection `i`, if somebody is there. Takes `result` over; NULL: an empty one. */
void control_answer(struct control *k, unsigned i, int64_t id, json_object *result);
void control_refuse(struct control *k, unsigned i, int64_t id, const char *reason,
		    const char *text);
/* To everybody who has said hello. Takes `data` over. */
void control_emit(struct control *k, const char *event, json_object *data);

/* ---- control_machine.c ---- */
void op_device_add(struct call *c);
void op_device_remove(struct call *c);
void op_devices(struct call *c);
void op_balloon(struct call *c);
void op_resize(struct call *c);
void op_metadata(struct call *c);
/* ---- control_net.c, control_net_win.c ---- */
void op_net_policy(struct call *c);
/* ---- control_limits.c ---- */
void op_limits(struct call *c);
/* The device that the parameters name, of a guest that runs; NULL: it was refused. */
struct device *call_device(struct call *c);

/* ---- control_machine.c ---- */
/* Who waits for a new size is answered when it is reached, or in time. */
void control_resize_turn(struct control *k, struct vm *vm, uint64_t now);

#endif
