/* SPDX-License-Identifier: BSD-2-Clause */
/* How a VM ended and what it cost: the metrics file, and what insulad is told. */
#ifndef SUPERVISOR_RESULT_H
#define SUPERVISOR_RESULT_H

#include <stdbool.h>

#include <json-c/json.h>

#include <insula/proto.h>

#include "stats.h"

/* All borrowed. */
struct result_device {
	const char *name;   /* NULL: nothing is there */
	const char *engine; /* how it is served; NULL: one way only */
	const char *bus;    /* "pci"; NULL: another one */
	unsigned restarts;
	const struct msg_stats *stats; /* of all helpers that stopped in order */
	const struct stat_names *names;
};

struct result {
	const char *reason; /* a stable name, if `exit` does not tell it; else NULL */
	bool command_ended; /* the status is the command's */
	bool have_exit;
	int status;      /* of insula-run */
	const char *why; /* "": nothing to say */
	uint64_t started_ns;
	const struct msg_vm_exit *exit; /* all zero without */
	unsigned ndevices;
	struct result_device device[VM_MAX_DEVICES];
};

/* The caller's. */
json_object *result_object(const struct result *r);
/* As --metrics has it; owned by the object. */
const char *result_text(json_object *o);
/* The same into a file; what prevents it is logged. Takes `o` over. */
void result_write(const char *path, json_object *o);

#endif
