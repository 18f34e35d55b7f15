/* SPDX-License-Identifier: BSD-2-Clause */
/* What a running VM uses: for the control socket. */
#ifndef SUPERVISOR_USAGE_H
#define SUPERVISOR_USAGE_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

struct vm;

/* [{name, pid, state}] of the supervisor's children; the caller's. */
json_object *usage_processes(const struct vm *vm);
/* {run_ns, cpu_ns, rss_bytes, restarts, devices: [{name, restarts}]} of the supervisor and its
 * children; the caller's. */
json_object *usage_metrics(const struct vm *vm);

/* ---- usage_linux.c, usage_win.c ---- */

struct usage {
	uint64_t cpu_ns, rss;
};

struct usage_child {
	const char *name;
	int state;          /* enum child_state */
	int64_t pid;        /* 0: there is no process */
	void *process;      /* its handle on Windows */
	const char *device; /* NULL: it serves none */
	unsigned restarts;  /* of the device */
};

/* The i-th: insula-vmm, each device's helper, each command's. False: there is none. */
bool usage_child(const struct vm *vm, unsigned i, struct usage_child *out);
void usage_self(struct usage *u);
void usage_add(struct usage *u, const struct usage_child *c);

#endif
