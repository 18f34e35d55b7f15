/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-run but for what its flags are called on this system. */
#ifndef SUPERVISOR_RUN_H
#define SUPERVISOR_RUN_H

#include "spec/options.h"

/* All of it: `about` and `use_control` of `o` are set. The exit status. Once in a process. */
int run_main(struct options *o, int argc, char **argv);

#endif
