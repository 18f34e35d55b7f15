/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the supervisor does for a vsock helper, which can neither open, connect nor create a socket.
 *
 *   listen    --vsock path=P: an AF_UNIX socket is bound at P, handed to every generation of the
 *             helper, which accepts on it, and removed at the end
 *   connect   the guest connects to port N of the host: the stream socket P_N, looked up in P's
 *             own directory and nowhere else, is connected, and the descriptor handed over;
 *             socket and directory must belong to our user or to root
 *   stream    a descriptor of ours becomes the host's end of a connection to a port of the guest
 *   vhost     --vsock vhost=on: none of these. The kernel's vhost-vsock has the streams, and a
 *             descriptor of it that knows the guest's CID is opened for each helper; the first one
 *             when the VM is, so that no other VM gets the CID
 *
 * Names are relative to a descriptor of P's directory, opened once. Thread: the supervisor's. None
 * of this blocks.
 */
#ifndef SUPERVISOR_VSOCK_H
#define SUPERVISOR_VSOCK_H

#include <limits.h>
#include <sys/types.h>

#include <insula/proto.h>

#include "spec/config.h"
#include "supervisor/device/device.h"

struct vsock {
	uint32_t cid;
	int dir;      /* P's directory; -1: no path, so the guest reaches nothing */
	int listener; /* bound at P; -1 with check_only or without a path */
	bool vhost;
	int reserved;            /* with vhost: for the first helper; -1 */
	char name[NAME_MAX + 1]; /* P's last component */
	dev_t dev;               /* what was bound, so that nothing else is removed */
	ino_t ino;
	uint64_t told_ns; /* when a refusal was last logged: a guest must not flood */
};

/* Check `c`, bind and listen. With `check_only` nothing is made. A dead socket at P is replaced; it
 * is -EADDRINUSE if anything else is there, or another machine of the host has the CID. Without a
 * path only vsock_stream() reaches the guest. On error nothing is left. */
int vsock_open(struct vsock *v, const struct vsock_config *c, bool check_only, struct err *e);
/* Remove the socket and close; no-op for one that was not opened but has descriptors of -1. */
void vsock_close(struct vsock *v);

/* RLIMIT_NOFILE of the helper: for as many connections as the device can have, or as many as we may
 * give it. */
unsigned vsock_nofile(void);

/* A connected, non-blocking stream to P_<port>; the caller closes. Or a negative errno: -ENOENT,
 * -ECONNREFUSED, -EAGAIN (its backlog is full), -ENOTSOCK (something else is there, a symbolic link
 * included), -ENETUNREACH (no path), -EPERM (it is another user's: logged). */
int vsock_connect(struct vsock *v, uint32_t port);

/* Connect the stream `fd` to a port of the guest: MSG_VSOCK_STREAM. `fd` is made non-blocking and
 * stays the caller's, who sees its end when the guest refuses, does not answer in time, closes or
 * resets, and when the helper dies. -ENOTCONN: no helper is there now. */
int vsock_stream(struct device *d, uint32_t port, int fd, struct err *e);

#endif
