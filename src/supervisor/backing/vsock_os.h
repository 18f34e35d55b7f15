/* SPDX-License-Identifier: BSD-2-Clause */
/* What dev_vsock.c needs of the system's side (vsock.c, vsock_win.c). */
#ifndef SUPERVISOR_VSOCK_OS_H
#define SUPERVISOR_VSOCK_OS_H

#include "devices/vsock/vsock_start.h"

#ifdef _WIN32
#include "vsock_win.h"
#else
#include "vsock.h"
#endif

#include "supervisor/loop.h"

struct device;

/* Descriptors of the helper besides those of its connections: events, what it waits with, and what
 * is in a message that it has not looked at. */
#define VSOCK_OTHER_FDS 160u

/* enum vsock_flags of the start message of a new helper, or a negative errno. *own: the descriptor
 * that goes with it; *once: the same, if the caller is to close it; or as they were. */
int vsock_reach(struct vsock *v, int *own, int *once, struct err *e);
/* As many connections may the helper have. */
uint32_t vsock_conns(const struct device *d);
/* Its helper takes clients now, or does not any more. */
void vsock_serves(struct device *d, struct loop *l, bool serves);
/* As in struct device_class: answers that had to wait. */
uint64_t vsock_due(const struct device *d);
void vsock_tend(struct device *d);
/* Answer it, now or later. False: it breaks the protocol. */
bool vsock_wanted(struct device *d, const struct msg_vsock_connect *q);

#endif
