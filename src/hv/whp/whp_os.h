/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the backend needs of the operating system besides the hypervisor: os_win.c, or a test's own.
 */
#ifndef INSULA_HV_WHP_OS_H
#define INSULA_HV_WHP_OS_H

#include <insula/hv.h>

/* A reader-writer lock. */
struct whp_lock {
	_Alignas(8) unsigned char room[64];
};
void whp_lock_init(struct whp_lock *l);
void whp_lock_destroy(struct whp_lock *l);
void whp_lock_take(struct whp_lock *l);
void whp_lock_drop(struct whp_lock *l);
void whp_lock_take_shared(struct whp_lock *l);
void whp_lock_drop_shared(struct whp_lock *l);

/*
 * Call `fn(ctx)` on some thread once for each time `event` is signalled, which resets it; at once
 * if it is signalled already. Returns 0 and *handle, or a negative errno.
 */
int whp_watch(hv_event event, void (*fn)(void *ctx), void *ctx, void **handle);
/* No call is running any more when this returns: not to be called from `fn`, nor with a lock held
 * that `fn` takes. A signal that comes later stays in the event. */
void whp_unwatch(void *handle);

#endif
