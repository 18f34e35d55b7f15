/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request of the guest as a SCSI command of libiscsi.
 *
 * Thread: the lane's. Nothing blocks. The answer comes inside session_serve() or session_end(): it
 * takes the request out of `flying`, and puts it into `answered` with its outcome.
 */
#ifndef MODULES_ISCSI_TASK_H
#define MODULES_ISCSI_TASK_H

#include <insula/module.h>

struct iscsi_lane;

/* What became of a command, besides 0 and a negative errno: its session has ended; it is to be sent
 * once more; a piece is done and the rest is to be sent. */
enum task_outcome { TASK_ENDED = 1, TASK_AGAIN, TASK_REST };

/* Send what there is to send of it next; it is in `flying` already. A negative errno: it was not
 * sent. A read or a write may have become shorter. */
int task_send(struct iscsi_lane *l, struct module_req *r);
/* Of one in `answered`. */
int task_outcome(const struct module_req *r);
/* Forget the command of one that libiscsi has dropped without an answer. */
void task_drop(struct module_req *r);

#endif
