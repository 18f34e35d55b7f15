/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting for descriptors of the device's own, and the system calls of a worker. See worker.h. */
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#include <insula/base.h>

#include "worker.h"

void worker_rules(const struct worker *w, struct rule_list *l, bool poll)
{
	for (unsigned i = 0; i < w->nlanes; i++)
		rule_fd(l, SYS_write, w->lane[i].ctl_fd, "command an I/O thread, or wake it");
	rule_fd(l, SYS_read, w->quiet_fd, "an I/O thread is quiet");
	rule_fd(l, SYS_write, w->quiet_fd, "an I/O thread is quiet");
	if (!poll)
		return;
	for (unsigned i = 0; i < w->nlanes; i++)
		rule_fd(l, SYS_read, w->lane[i].ctl_fd, "I/O thread: commands, news");
	for (unsigned i = 0; i < w->nkicks; i++)
		rule_fd(l, SYS_read, w->kick_fd[i], "I/O thread: kicks");
}

unsigned lane_wait(struct lane *l, struct pollfd *extra, unsigned nextra, int timeout)
{
	struct pollfd p[1 + VIRTIO_MAX_QUEUES + WORKER_MAX_EXTRA];
	unsigned n = 0, kicks = 0;

	if (nextra > WORKER_MAX_EXTRA)
		panic("%u descriptors to wait for", nextra);
	p[n++] = (struct pollfd){.fd = l->ctl_fd, .events = POLLIN};
	for (uint32_t left = l->queues; left; left &= left - 1)
		p[n++] =
			(struct pollfd){.fd = l->w->kick_fd[__builtin_ctz(left)], .events = POLLIN};
	if (nextra)
		memcpy(&p[n], extra, nextra * sizeof(*extra));
	if (poll(p, n + nextra, timeout) <= 0)
		memset(&p[0], 0, sizeof(p));
	for (unsigned i = 0; i < n; i++) {
		if (!p[i].revents)
			continue;
		event_drain(p[i].fd);
		kicks += i > 0;
	}
	for (unsigned i = 0; i < nextra; i++)
		extra[i].revents = p[n + i].revents;
	return kicks;
}
