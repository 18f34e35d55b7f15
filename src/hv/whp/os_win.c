/* SPDX-License-Identifier: BSD-2-Clause */
/* whp_os.h on Windows: slim reader-writer locks, waits of the thread pool. */
#include <windows.h>

#include <errno.h>

#include "hv/whp/whp_os.h"

_Static_assert(sizeof(SRWLOCK) <= sizeof(struct whp_lock), "room for the lock");

static SRWLOCK *srw(struct whp_lock *l)
{
	return (SRWLOCK *)(void *)l->room;
}

void whp_lock_init(struct whp_lock *l)
{
	InitializeSRWLock(srw(l));
}

void whp_lock_destroy(struct whp_lock *l)
{
	(void)l; /* nothing is kept of it */
}

void whp_lock_take(struct whp_lock *l)
{
	AcquireSRWLockExclusive(srw(l));
}

void whp_lock_drop(struct whp_lock *l)
{
	ReleaseSRWLockExclusive(srw(l));
}

void whp_lock_take_shared(struct whp_lock *l)
{
	AcquireSRWLockShared(srw(l));
}

void whp_lock_drop_shared(struct whp_lock *l)
{
	ReleaseSRWLockShared(srw(l));
}

struct watch {
	void (*fn)(void *ctx);
	void *ctx;
	HANDLE wait;
};

static VOID CALLBACK os_on_event(PVOID p, BOOLEAN timed_out)
{
	const struct watch *w = p;

	(void)timed_out;
	w->fn(w->ctx);
}

int whp_watch(hv_event event, void (*fn)(void *ctx), void *ctx, void **handle)
{
	struct watch *w;
	DWORD flags;

	/* A handle that is none would end the waits of others that share its pool thread. */
	if (!GetHandleInformation((HANDLE)event, &flags))
		return -EBADF;
	w = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->fn = fn;
	w->ctx = ctx;
	if (!RegisterWaitForSingleObject(&w->wait, (HANDLE)event, os_on_event, w, INFINITE,
					 WT_EXECUTEINWAITTHREAD)) {
		HeapFree(GetProcessHeap(), 0, w);
		return -EINVAL;
	}
	*handle = w;
	return 0;
}

void whp_unwatch(void *handle)
{
	struct watch *w = handle;

	/* With this handle it waits until the last call has returned. */
	UnregisterWaitEx(w->wait, INVALID_HANDLE_VALUE);
	HeapFree(GetProcessHeap(), 0, w);
}
