/* SPDX-License-Identifier: BSD-2-Clause */
/* What a running VM uses, as usage.h on Linux: for the control pipe. */
#ifndef SUPERVISOR_USAGE_WIN_H
#define SUPERVISOR_USAGE_WIN_H

#include <json-c/json.h>

struct vm;

/* [{name, pid, state}] of the supervisor's children; the caller's. */
json_object *usage_processes(const struct vm *vm);
/* {run_ns, cpu_ns, rss_bytes, restarts, devices: [{name, restarts}]}; the caller's. */
json_object *usage_metrics(const struct vm *vm);

#endif
