/* SPDX-License-Identifier: BSD-2-Clause */
/* What a running VM uses: for the control socket. */
#ifndef SUPERVISOR_USAGE_H
#define SUPERVISOR_USAGE_H

#include <stdint.h>

#include <json-c/json.h>

struct child;
struct vm;

/* [{name, pid, state}] of the supervisor's children; the caller's. */
json_object *usage_processes(const struct vm *vm);
/* {run_ns, cpu_ns, rss_bytes, restarts, devices: [{name, restarts, helper}]} of the supervisor and
 * its children; the caller's. `helper` are the counters of result.h, as far as the helpers have told
 * them: each call asks them for the next one. */
json_object *usage_metrics(struct vm *vm);

/* ---- usage_linux.c, usage_win.c ---- */

struct usage {
	uint64_t cpu_ns, rss;
};

void usage_self(struct usage *u);
void usage_add(struct usage *u, const struct child *c);
/* 0: there is no process. */
int64_t usage_pid(const struct child *c);

#endif
