/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The name server at a loopback address of a pod's network namespace, as docker has one at
 * 127.0.0.11 in networks that a user made. The VM's loopback is elsewhere, so the guest has a
 * program listen at that address (`CT_PROGRAM names`, insula/container.h), and a process of the
 * host, in the namespace and without rights, asks the server what that program was asked.
 *
 *   guest: program -- UDP, TCP --> names | stream of the command | relay -- UDP, TCP --> server
 *
 * The guest chooses what is asked, as it could beside the server, and nothing else: address and
 * port are the host's. A request that has no answer is given up after NAMES_WAIT_NS.
 */
#ifndef OCI_NAMES_H
#define OCI_NAMES_H

#include <netinet/in.h>

#include "oci.h"

#define NAMES_PORT 53
#define NAMES_WAIT_NS 15000000000ull
#define NAMES_MOST 64u /* requests at once; the oldest is given up for one more */

/* Does the file that is mounted at /etc/resolv.conf name a server in 127.0.0.0/8? The first one. */
bool names_server(const struct bundle *b, struct in_addr *server);
/* The same of a text. */
bool names_server_in(const char *text, struct in_addr *server);
/* Serve what comes from `stream` until its end; 0, or a negative errno. `ready` is written to, and
 * closed, when the guest listens; closed without a byte: it never did. Both descriptors are taken
 * over. The caller has blocked SIGPIPE, or ignores it. */
int names_relay(int stream, int ready, struct in_addr server, uint16_t port);

#endif
