/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting on Linux: poll(2). See loop.h. */
#include <errno.h>
#include <poll.h>

#include <insula/base.h>

#include "supervisor/loop.h"

#define MAX_MS 1000000u /* it may return sooner than it was told */

static int loop_ms(uint64_t limit_ns)
{
	uint64_t now = clock_ns(), ms;

	if (!limit_ns)
		return -1;
	ms = limit_ns <= now ? 0 : (limit_ns - now) / 1000000 + 1;
	return ms < MAX_MS ? (int)ms : (int)MAX_MS;
}

int loop_wait(struct loop *l, uint64_t limit_ns, unsigned events[LOOP_MAX])
{
	struct pollfd p[LOOP_MAX];

	for (unsigned i = 0; i < l->nturn; i++) {
		unsigned want = l->turn[i]->want;

		p[i] = (struct pollfd){
			l->turn[i]->handle,
			(short)((want & WATCH_IN ? POLLIN : 0) | (want & WATCH_OUT ? POLLOUT : 0)),
			0};
	}
	if (poll(p, l->nturn, loop_ms(limit_ns)) < 0)
		return errno == EINTR ? 0 : -errno;
	for (unsigned i = 0; i < l->nturn; i++) {
		short r = p[i].revents;

		events[i] = (r & POLLIN ? WATCH_IN : 0u) | (r & POLLOUT ? WATCH_OUT : 0u) |
			    (r & (POLLHUP | POLLERR | POLLNVAL) ? WATCH_END : 0u);
	}
	return 0;
}
