/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a proxy is in of the host's: the network, IPC and UTS namespaces that the configuration names,
 * because others look there by its process id (CNI, docker's network hook, a pod's next container);
 * and, at the end, a mount namespace whose root is the container's, because `podman cp` and hooks go
 * by /proc/PID/root. The container's own namespaces are in the guest.
 */
#ifndef OCI_NS_H
#define OCI_NS_H

#include "oci.h"

/* The calling process enters, or makes, those of linux.namespaces. */
int ns_enter(json_object *linux_, struct err *e);
/* The network namespace of a process; a descriptor, the caller's. */
int ns_open_net(pid_t pid, struct err *e);
/* A mount namespace of its own: the root, and what is mounted in it where its place is there already.
 * Nothing of the host's files can be reached by a path any more; open descriptors stay. */
int ns_root(const struct bundle *b, struct err *e);

#endif
