/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's command line. */
#ifndef SUPERVISOR_CMDLINE_H
#define SUPERVISOR_CMDLINE_H

#include <insula/proto.h>

#include "spec/config.h"

/* What the board needs, then what the user adds. `verbose`: with the kernel's messages. -E2BIG. */
int cmdline_make(char out[MSG_CMDLINE_MAX], const struct vm_config *c, bool verbose, struct err *e);

#endif
