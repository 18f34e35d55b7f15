/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `insula-run --control PIPE,SETUP,RESULT,GO,LOG`. They are inherited handles:
 *
 *   the only instance of the control pipe (whole messages), which insulad has made
 *   the set-up and the result file: control.h. If the set-up says {console: {pipe, owner}}, that
 *   is the pipe of somebody who is attached from the first byte on
 *   a pipe with one byte, which comes when insulad has written its record; its end means: go away
 *   the second file of the log; the first is standard error (vmlog.h)
 *
 * There is one connection at a time; when it ends, the next is waited for. Nothing here waits but
 * control_open() for its byte, and control_finish() for the last words.
 */
#ifndef SUPERVISOR_CONTROL_WIN_H
#define SUPERVISOR_CONTROL_WIN_H

#include "spec/config.h"
#include "control.h"
#include "ctlconsole_win.h"

#define CONTROL_WATCHES (2 + CTLCONSOLE_WATCHES)

/* Read the set-up into `c`. -EINVAL: the configuration is bad (the result can and must be written
 * all the same: *out is valid); other errors: *out may be NULL. */
int control_open(struct control **out, const char *text, struct vm_config *c, struct err *e);
#endif
