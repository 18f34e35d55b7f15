/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * close() of what somebody else has made: it takes as long as its maker likes. A TCP socket with
 * SO_LINGER waits for its peer, a file of a FUSE file system for its server. So such descriptors
 * are closed in threads of their own (Linux: closer_linux.c), a bounded number for each user. No
 * descriptor travels on Windows: there they are closed at once.
 *
 * All functions: the loop's thread.
 */
#ifndef DAEMON_CLOSER_H
#define DAEMON_CLOSER_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

struct closer;
/* One descriptor of `uid` has been closed; called from the loop. */
typedef void closed_fn(void *ctx, uint32_t uid);
/* NULL: no memory. */
struct closer *closer_new(uv_loop_t *loop, closed_fn *fn, void *ctx);
/* Takes `fd` over. `connection`: a connection of ours, in whose queue others' descriptors may lie.
 */
void closer_give(struct closer *c, uint32_t uid, int fd, bool connection);
/* Nobody is told any more. What is still being closed goes on. NULL is fine. */
void closer_free(struct closer *c);

#endif
