/* SPDX-License-Identifier: BSD-2-Clause */
/* /dev/vhost-net, /dev/vhost-vsock: what the kernel serves the rings of a device by (vhost=on). */
#ifndef SUPERVISOR_VHOST_NODE_H
#define SUPERVISOR_VHOST_NODE_H

#include <insula/err.h>

/* Of this kind, "net" or "vsock", which is also the name of the setting. The caller closes it. One
 * for each helper: what a descriptor has begun ends when it is closed. A negative errno. */
int vhost_node_open(const char *kind, struct err *e);

#endif
