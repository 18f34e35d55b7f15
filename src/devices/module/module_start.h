/* SPDX-License-Identifier: BSD-2-Clause */
/* What a storage module is told: insula/start.h, and this. */
#ifndef DEVICES_MODULE_START_H
#define DEVICES_MODULE_START_H

#include <insula/module_calls.h>
#include <insula/proto.h>

#define MODULE_START START_TAG('m', 'o', 'd', '1')
#define MODULE_TEXT_MAX 3072u

enum module_start_flags {
	MODULE_START_RO = 1,
	MODULE_START_CONN = 2,     /* START_OWN: a connection */
	MODULE_START_CONNECTS = 4, /* the supervisor connects for it */
	/* The server that the last process of the module spoke to has lived since then, and has
	 * finished with what that process sent: nothing is lost with it. */
	MODULE_START_SAME = 8,
	MODULE_START_FILES = 16, /* START_OWN, the last: what the files of its settings hold */
};

struct msg_start_module {
	struct start_head head;
	uint32_t nqueues; /* 1..BLK_MAX_QUEUES: kicks */
	uint32_t flags;   /* enum module_start_flags */
	uint32_t calls;   /* enum module_calls */
	uint32_t text_len;
	struct msg_limit limit;
	char serial[20];
	uint32_t pad;
	/* The target, then "KEY=VALUE" each, all with a NUL. The value of a file is "OFFSET:LENGTH"
	 * in what MODULE_START_FILES is; a NUL follows it there. */
	char text[MODULE_TEXT_MAX];
};

/* MSG_MODULE_NEED, from the module; MSG_MODULE_PEER, to it, with a descriptor. */
struct msg_module_lane {
	uint32_t lane;
};

#endif
