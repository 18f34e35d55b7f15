/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the supervisor does for a vsock helper on Windows, which can neither make, open nor connect
 * a pipe.
 *
 *   listen    --vsock path=P: there is always an instance of the named pipe P that nobody has
 *             opened yet. Whoever opens it is handed to the helper
 *   connect   the guest connects to port N of the host: the pipe P_N, and no other, is opened, and
 *             handed over
 *   stream    a pipe of ours becomes the host's end of a connection to a port of the guest
 *
 * A handle is duplicated into the helper's process: it can read and write there, and nothing else
 * is in its access mask. Thread: the supervisor's. None of this blocks.
 */
#ifndef SUPERVISOR_VSOCK_WIN_H
#define SUPERVISOR_VSOCK_WIN_H

#include "supervisor/child.h"
#include "spec/config.h"

/* As many streams at a time as there are handles and buffers for in a helper. */
#define VSOCK_WIN_CONNS 1024u
/* For so long a pipe of the host's may be busy, all of its instances in use. */
#define VSOCK_BUSY_NS 1000000000ull

struct vsock_asked { /* a question of the helper's that is answered later */
	struct msg_vsock_connect q;
	uint64_t limit_ns;
};

/* Of a helper's handle of a stream. The right to make another instance, which is FILE_APPEND_DATA,
 * is not among them. */
#define VSOCK_STREAM_ACCESS (FILE_READ_DATA | FILE_WRITE_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE)

struct vsock {
	uint32_t cid;
	bool vhost;                /* never, here */
	wchar_t name[256];         /* P; empty: no path, so the guest reaches nothing */
	HANDLE instance;           /* where the next client comes; owned */
	OVERLAPPED ov;             /* hEvent is owned: it has come */
	PSECURITY_DESCRIPTOR ours; /* for us alone; owned */
	struct vsock_asked asked[VSOCK_MAX_ASKED];
	unsigned nasked;
	uint64_t retry_ns;    /* when they are looked at again; 0: none waits */
	struct watch client;  /* somebody has come, while a helper serves */
	struct child *helper; /* that one; borrowed */
};

/* Check `c`, make the pipe. `check_only`: make nothing. -EINVAL: not the name of a pipe;
 * -EADDRINUSE: there is such a pipe. Afterwards, also on error, vsock_close(). */
int vsock_open(struct vsock *v, const struct vsock_config *c, bool check_only, struct err *e);
void vsock_close(struct vsock *v); /* no-op for all zeros */
bool vsock_has_path(const struct vsock *v);

/* A stream of ours (a pipe of messages, open for overlapped I/O) becomes the host's end of a
 * connection to a port of the guest: MSG_VSOCK_STREAM. Closed in any case; whoever has its other
 * end sees its end when the guest refuses, does not answer in time, closes or resets, and when the
 * helper dies. */
void vsock_stream(struct child *helper, uint32_t port, HANDLE stream);

/* The helper's guest wants a stream. False: it breaks the protocol, asking for more than it may. */
bool vsock_asked(struct vsock *v, struct child *helper, const struct msg_vsock_connect *q);

#endif
