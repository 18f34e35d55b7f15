/* SPDX-License-Identifier: BSD-2-Clause */
/* What the place that insula-run was started in must offer: a chroot, a container or a service
 * often lacks it, and what fails later would not say so. */
#ifndef SUPERVISOR_HOST_H
#define SUPERVISOR_HOST_H

#include <insula/err.h>

/* 0, or a line that names what is missing: a negative errno. */
int host_check(struct err *e);

#endif
