/* SPDX-License-Identifier: BSD-2-Clause */
/* What the end of a guest means: the status of insula-run and one line for people. */
#ifndef SPEC_ENDING_H
#define SPEC_ENDING_H

#include <stdbool.h>

#include <insula/proto.h>

/* Exit statuses of insula-run; docs/man/insula-run.1 */
enum run_status {
	RUN_BAD_INPUT = 2,
	RUN_GUEST_PANIC = 120,
	RUN_GUEST_CRASH = 121,
	RUN_NO_STATUS = 122, /* the guest ended before its command did */
	RUN_TIMEOUT = 124,
	RUN_FAILED = 125,
	RUN_SIGNAL = 128, /* + number */
};

#define ENDING_LINE 320
struct ending {
	int status;
	char why[ENDING_LINE]; /* "" if there is nothing to say */
};

/* `own_initrd`: insula-init was to run; `command`: a command was to say how it ended. What was not
 * for the guest to decide stays as it is. */
void ending_of(const struct msg_vm_exit *x, bool own_initrd, bool command, struct ending *end);

#endif
