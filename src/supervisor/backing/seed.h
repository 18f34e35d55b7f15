/* SPDX-License-Identifier: BSD-2-Clause */
/* --cloud-init: the files that cloud-init's data source NoCloud looks for, on a disk that is made for
 * the run. */
#ifndef SUPERVISOR_SEED_H
#define SUPERVISOR_SEED_H

#include <insula/err.h>

struct seed_config;

#define SEED_SERIAL "cidata"

/* An ISO 9660 image in memory, of the name cidata: the descriptor, the caller's. -EINVAL and others:
 * a file is to blame. */
int seed_make(const struct seed_config *c, struct err *e);

#endif
