/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting on Windows: one alertable wait for at most 64 handles. See loop.h. */
#include "os/win/win.h"

#include <insula/base.h>

#include "supervisor/loop.h"

#define MAX_MS 1000000u /* it may return sooner than it was told */
_Static_assert(LOOP_MAX <= MAXIMUM_WAIT_OBJECTS, "one wait for all of them");

static DWORD loop_ms(uint64_t limit_ns)
{
	uint64_t now = clock_ns(), ms;

	if (!limit_ns)
		return INFINITE;
	ms = limit_ns <= now ? 0 : (limit_ns - now) / 1000000 + 1;
	return ms < MAX_MS ? (DWORD)ms : MAX_MS;
}

int loop_wait(struct loop *l, uint64_t limit_ns, unsigned events[LOOP_MAX])
{
	HANDLE h[LOOP_MAX];
	DWORD which, ms = loop_ms(limit_ns);

	for (unsigned i = 0; i < l->nturn; i++)
		h[i] = fd_handle(l->turn[i]->handle);
	if (!l->nturn) {
		SleepEx(ms, TRUE);
		return 0;
	}
	which = WaitForMultipleObjectsEx(l->nturn, h, FALSE, ms, TRUE);
	if (which == WAIT_FAILED)
		return win_errno(GetLastError());
	/* The one that is named may have been reset by that; of the others nothing is known. */
	for (unsigned i = 0; i < l->nturn; i++) {
		if (which == WAIT_OBJECT_0 + i || WaitForSingleObject(h[i], 0) == WAIT_OBJECT_0)
			events[i] = WATCH_IN;
	}
	return 0;
}
