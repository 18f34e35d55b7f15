/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `insula-run --control FD`. Descriptors come with it, from FD on:
 *
 *   the listening socket (AF_UNIX, SOCK_SEQPACKET), which insulad has bound in its state directory
 *   the set-up and the result file: control.h
 *   if the set-up says "log_max": the second file of the log; the first is standard error (vmlog.h)
 *   if the set-up says "console": true, a stream to somebody who is attached from the first byte on;
 *   and if it says "errors": true, too, one for the errors of the command
 */
#ifndef SUPERVISOR_CONTROL_LINUX_H
#define SUPERVISOR_CONTROL_LINUX_H

#include <insula/err.h>

#include "spec/config.h"
#include "control.h"
#include "control_os.h"
#include "ctlconsole.h"

#define CONTROL_WATCHES (1 + CONTROL_CONNS + CTLCONSOLE_WATCHES)

/* Take the three descriptors over and read the set-up into `c`, whose console becomes the one that
 * clients attach to, unless the configuration names another. -EINVAL: the configuration is bad (the
 * result can and must be written all the same: *out is valid); other errors: *out is NULL. */
int control_open(struct control **out, int fd, struct vm_config *c, struct err *e);

#endif
