/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection in the loop, a client's or a supervisor's: a Unix socket (link_linux.c) or a named
 * pipe (link_win.c). Nothing here waits. One thread: the loop's.
 */
#ifndef DAEMON_LINK_H
#define DAEMON_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "watch.h"

struct link;
/* Takes `fd` over, also when it fails. Windows: a pipe's handle, open for overlapped I/O.
 * `packets`: one packet for each link_send(), at most 64 KiB; else a stream. Nobody is told
 * anything before link_watch(). NULL: no memory, or not such a descriptor. */
struct link *link_new(uv_loop_t *loop, int fd, bool packets);
/* Whom to tell, from now on, and of what: as watch_new(), watch_set(). 0, or -ENOMEM: nobody will
 * be told. */
int link_watch(struct link *l, watch_fn *fn, void *ctx);
void link_set(struct link *l, int events);
/* Windows sends on what it has taken, for a short while. NULL is fine; may be called from its
 * function. */
void link_free(struct link *l);

/* The same, but for a descriptor whose close() may wait, because others' lie in its queue: that is
 * the caller's to close. Negative: there is none. */
int link_detach(struct link *l);

/* Descriptors that came along; Linux alone. */
#define LINK_FDS 253 /* with one message; the kernel allows no more */
struct link_fds {
	int *fd; /* room for `max`, `n` are in use */
	unsigned *n, max;
	bool more;          /* there were more: */
	int rest[LINK_FDS]; /* the caller's to close too */
	unsigned nrest;
};
/* The number of bytes; 0: the end; -EAGAIN: nothing there; -EMSGSIZE: the packet is longer than
 * `size`; other negative errnos: it is broken. */
int link_recv(struct link *l, void *buf, size_t size, struct link_fds *fds);
/* The number of bytes taken; -EAGAIN: not now. Descriptors go with the first byte. */
int link_send(struct link *l, const void *buf, size_t len, const int *fds, unsigned nfds);

#endif
