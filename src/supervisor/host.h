/* SPDX-License-Identifier: BSD-2-Clause */
/* What the place that insula-run was started in must offer: a chroot, a container or a service
 * often lacks it, and what fails later would not say so. host.c, host_win.c. */
#ifndef SUPERVISOR_HOST_H
#define SUPERVISOR_HOST_H

#include <insula/err.h>

#include "spec/config.h"

/* 0, or a line that names what is missing: a negative errno. */
int host_check(struct err *e);
/* Can this host do what the user wants? The same. */
int host_config(const struct vm_config *c, struct err *e);
/* Can the files that the user named be written, or made? */
int host_outputs(const struct vm_config *c, struct err *e);
/* The hypervisor, for insula-vmm: a descriptor, the caller's, or -1 where it opens that itself. The
 * text says what to do. */
int host_hypervisor(int *fd, struct err *e);
/* Before a Linux guest runs: log what will disappoint whoever waits for it. `ends`: how they end
 * it, to follow in the line; or "". */
void host_warn(const char *ends);
/* From here on nobody waits for whoever reads our standard error. */
int host_start_log(struct err *e);

#endif
