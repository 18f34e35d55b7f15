/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MSG_PLUG and MSG_UNPLUG: devices that come and go while the VM runs. The main thread's.
 */
#ifndef VMM_PLUG_H
#define VMM_PLUG_H

#include <stdbool.h>

#include <insula/proto.h>

struct vmm;

/* Before the jail closes, with the VM made: what cannot be had any more when a device of the host
 * comes, as far as the system has such. */
int plug_make_room(struct vmm *vm, struct err *e);
/* False: it is another message. Takes the descriptors of its own. */
bool plug_message(struct vmm *vm, enum msg_type type, const void *body, size_t len, int *fds,
		  unsigned nfds);
/* What was asked for may have lost its power since: it is taken out, and the supervisor hears. */
void plug_report(struct vmm *vm);

#endif
