/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections to the loopback of a pod's network namespace, for `kubectl
 * port-forward`: containerd and CRI-O dial localhost:PORT there, and the VM's
 * loopback is elsewhere.
 *
 * Two listening sockets, one for each IP version, get all TCP connections to
 * 127.0.0.0/8 and ::1, whatever their port: a BPF program of type sk_lookup
 * (Linux 5.9; Documentation/bpf/ prog_sk_lookup.rst), attached to the
 * namespace, chooses them. No rule of a packet filter is needed, the port that
 * was dialled is the accepted socket's own, and all of it is gone with the
 * process that holds the descriptors.
 */
#ifndef OCI_FORWARD_H
#define OCI_FORWARD_H

#include "oci.h"

struct forward {
	int listener[2]; /* IPv4, IPv6 (-1: the namespace has none); non-blocking;
                      owned */
	int link;        /* the program on the namespace; owned */
};

/* In the pod's namespace, whose lo is up. */
int forward_open(struct forward *f, struct err *e);
void forward_close(struct forward *f);
/* The next connection and the port that it was for; the caller's descriptor.
 * -EAGAIN: there is none. */
int forward_accept(int listener, uint16_t *port);

/* Hand one on; the descriptor stays the caller's. */
typedef int forward_connect(void *ctx, uint16_t port, int fd, struct err *e);
/* `fd` can be read; other than 0 ends it. */
typedef int forward_turn(void *ctx);
/* Serve until turn() says so, or `fd` is no more. A connection that cannot be
 * handed on is closed, with a line in the log. */
int forward_run(struct forward *f, int fd, forward_connect *connect, forward_turn *turn, void *ctx);

#endif
