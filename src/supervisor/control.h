/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor as a service: `insula-run --control FD`, started by insulad and by nobody else.
 *
 * Three descriptors come with it, FD, FD + 1 and FD + 2, perhaps a fourth:
 *
 *   the listening socket (AF_UNIX, SOCK_SEQPACKET), which insulad has bound in its state directory
 *   the set-up, a JSON object {id, token, config}; config is what insula-run --json takes
 *   the result file, empty; at the end the supervisor writes one JSON line there, with one write
 *
 *   if the set-up says "console": true, a stream to somebody who is attached from the first byte on
 *
 * On the socket each packet is one JSON object: {id, op, params} to the supervisor, {id, result} or
 * {id, error: {reason, text}} back, {event, data} at any time to everybody who has said hello. A
 * descriptor travels with the packet that speaks of it. See docs/protocol.md.
 *
 * One thread, the supervisor's; its poll loop calls control_fill(), control_serve() and
 * control_deadline(). Nothing here waits.
 */
#ifndef SUPERVISOR_CONTROL_H
#define SUPERVISOR_CONTROL_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#include "config.h"
#include "ctlconsole.h"

#define CONTROL_CONNS 4
#define CONTROL_MAX_POLL (1 + CONTROL_CONNS + CTLCONSOLE_POLL)
#define CONTROL_PACKET (64u << 10)
#define CONTROL_TOKEN_LEN 64

struct vm;
struct control;

/* Take the three descriptors over and read the set-up into `c`, whose console becomes the one that
 * clients attach to, unless the configuration names another. -EINVAL: the configuration is bad (the
 * result can and must be written all the same: *out is valid); other errors: *out is NULL. */
int control_open(struct control **out, int fd, struct vm_config *c, struct err *e);
/* All of these do nothing without a control (NULL): insula-run on its own. */
unsigned control_fill(struct control *k, struct pollfd *p);
void control_serve(struct control *k, struct vm *vm, const struct pollfd *p, unsigned n);
/* When control_serve() wants to be called at the latest (CLOCK_MONOTONIC), 0: not at all. */
uint64_t control_deadline(const struct control *k, const struct vm *vm);
/* Tell everybody: "running", "helper-died" ... `name` and `text` may be NULL. */
void control_event(struct control *k, const char *event, const char *name, const char *text);
/* insula-vmm says MSG_PAUSED. */
void control_paused(struct control *k, struct vm *vm, bool paused);
/* The VM has ended, or could not begin: write the result, say so, close everything, free. */
void control_finish(struct control *k, const struct vm *vm);

#endif
