/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network of a pod. The caller has entered the pod's network namespace (setns()) and calls
 * net_join() when all hooks and CNI plug-ins are done with it: each interface but lo is joined to a
 * TAP, and its addresses, routes and neighbours become records "of the sandbox".
 */
#ifndef OCI_NET_H
#define OCI_NET_H

#include "oci.h"
#include "rec.h"

struct oci_conf;

/* Adds nic=, route=, neigh= records to `r`. *nets: what the member "nets" of the VM's configuration
 * is (an array; the caller's), *kept: what net_leave() wants to know (the caller's; goes into
 * state.json). `host`: the configuration has no network namespace of its own: what the runtime's
 * configuration says is done (none, or user-mode network). */
int net_join(const struct oci_conf *conf, bool host, struct rec *r, json_object **nets,
	     json_object **kept, struct err *e);
/* `n` TAPs for a VM that nobody is connected with, in the network namespace that this process is
 * in. */
int net_taps(unsigned n, json_object **nets, struct err *e);
/* Undo it, in the same namespace. */
void net_leave(json_object *kept);

#endif
