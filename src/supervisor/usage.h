/* SPDX-License-Identifier: BSD-2-Clause */
/* What a running VM uses, from /proc: for the control socket. */
#ifndef SUPERVISOR_USAGE_H
#define SUPERVISOR_USAGE_H

#include <json-c/json.h>

struct vm;

/* [{name, pid, state}] of the supervisor and its children; the caller's. */
json_object *usage_processes(const struct vm *vm);
/* {run_ns, cpu_ns, rss_bytes, restarts, devices: [{name, restarts}]}; the caller's. */
json_object *usage_metrics(const struct vm *vm);

#endif
