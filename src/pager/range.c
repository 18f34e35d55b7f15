/* SPDX-License-Identifier: BSD-2-Clause */
/* See range.h. */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/pager.h>

#include "range.h"

#define BATCH 16 /* faults of one process in a turn */

static struct range *free_range(struct ranges *s)
{
	unsigned i = 0;

	while (i < s->n && s->range[i].fd >= 0)
		i++;
	if (i == RANGES_MAX)
		return NULL;
	if (i == s->n)
		s->n++;
	return &s->range[i];
}

struct range *ranges_add(struct ranges *s, uint64_t size, int fd, uint64_t offset, uint64_t addr,
			 uint64_t len, struct err *e)
{
	struct range *r = NULL;

	if (!len || (offset | addr | len) % RAM_PAGE || offset > size || len > size - offset ||
	    addr + len < addr)
		err_set(e, -EINVAL, "a range that is not in guest memory");
	else if (!(r = free_range(s)))
		err_set(e, -EINVAL, "more than %u ranges", RANGES_MAX);
	if (r)
		*r = (struct range){fd, offset, addr, len};
	else
		close(fd);
	return r;
}

static int turn_of(struct range *r, range_fault *on, void *ctx, struct err *e)
{
	struct uffd_msg m[BATCH];
	ssize_t n = read(r->fd, m, sizeof(m));
	int rc = 0;

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			fd_close(&r->fd);
		return 0;
	}
	for (size_t i = 0; i < (size_t)n / sizeof(m[0]) && !rc && r->fd >= 0; i++) {
		uint64_t addr = m[i].arg.pagefault.address;

		if (m[i].event == UFFD_EVENT_PAGEFAULT && addr >= r->addr &&
		    addr - r->addr < r->len)
			rc = on(ctx, r, addr, e);
	}
	return rc;
}

int ranges_turn(struct ranges *s, int channel, int timeout, bool *heard, range_fault *on, void *ctx,
		struct err *e)
{
	struct pollfd p[1 + RANGES_MAX] = {{.fd = channel, .events = POLLIN}};
	unsigned n = s->n;
	int rc = 0;

	for (unsigned i = 0; i < n; i++)
		p[1 + i] = (struct pollfd){.fd = s->range[i].fd, .events = POLLIN};
	if (poll(p, 1 + n, timeout) < 0 && errno != EINTR)
		return err_sys(e, -errno, "poll");
	*heard = p[0].revents;
	for (unsigned i = 0; i < n && !rc; i++) {
		if (p[1 + i].fd >= 0 && p[1 + i].revents)
			rc = turn_of(&s->range[i], on, ctx, e);
	}
	return rc;
}
