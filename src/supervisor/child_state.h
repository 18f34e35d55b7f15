/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SUPERVISOR_CHILD_STATE_H
#define SUPERVISOR_CHILD_STATE_H

enum child_state {
	CHILD_NONE,     /* no process */
	CHILD_STARTING, /* made; MSG_READY is not there yet */
	CHILD_READY,    /* jailed, verified, at work */
	CHILD_STOPPING, /* MSG_STOP was sent */
	CHILD_DONE,     /* MSG_STOPPED or MSG_VM_EXIT came */
};

#endif
