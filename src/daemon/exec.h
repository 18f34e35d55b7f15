/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands in VMs (exec.c): the methods are in methods.h. */
#ifndef DAEMON_EXEC_H
#define DAEMON_EXEC_H

#include <json-c/json.h>

struct machine;

/* The VM's supervisor says that a command has ended: {exec, status, reason, text}. */
void exec_ended(struct machine *m, json_object *data);

#endif
