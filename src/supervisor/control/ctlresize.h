/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `resize`: a guest gets more of something, or gives it back, while it runs. What can be resized is
 * a table in ctlresize.c, a row for each; an order may name several.
 *
 * The guest does it, when it can: whoever asked is answered when it has, or at the deadline, with
 * what has been reached. One order at a time.
 */
#ifndef SUPERVISOR_CTLRESIZE_H
#define SUPERVISOR_CTLRESIZE_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

struct vm;

struct ctlresize {
	unsigned conn;
	int64_t id;
	uint64_t deadline_ns; /* 0: nobody waits */
	uint64_t most;        /* bytes of memory that insulad has heard of: requested, or there */
};

/* Do what `params` say: all of it, or nothing. NULL, and z waits; else the reason, stable, of a
 * refusal, and a line. */
const char *ctlresize_begin(struct ctlresize *z, struct vm *vm, json_object *params, struct err *e);
/* Has the guest done it, or has it had the time for it? */
bool ctlresize_over(const struct ctlresize *z, struct vm *vm, uint64_t now);
/* The guest has less, after whoever has asked for that had his answer, and that was the last time
 * that the VM was described so. */
bool ctlresize_shrunk(struct ctlresize *z, const struct vm *vm);
/* What of this VM can be resized, and how far that is, into `o`. */
void ctlresize_describe(const struct vm *vm, json_object *o);

#endif
