/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on Linux: the page is written without being mapped. See device.h. */
#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "device.h"

int device_page(struct err *e)
{
	const struct {
		uint32_t magic, size;
	} head = {DP_MAGIC, DP_SIZE};
	int fd = shm_create("insula-device", DP_SIZE, e);

	if (fd < 0)
		return fd;
	_Static_assert(offsetof(struct dp_ctrl, magic) == 0 && offsetof(struct dp_ctrl, size) == 4,
		       "the head of struct dp_ctrl");
	if (pwrite(fd, &head, sizeof(head), DP_CTRL_OFF) != (ssize_t)sizeof(head)) {
		int rc = -errno;
		close(fd);
		return err_sys(e, rc, "device page");
	}
	return fd;
}

int device_child_init(struct device *d, const char *libexec, struct err *e)
{
	const struct device_class *c = d->class;
	unsigned more = d->nqueues ? d->nqueues - 1 : 0;

	child_none(&d->child);
	return child_init(&d->child, libexec, c->program, d->desc.name,
			  c->threads + more * c->queue_threads, c->nofile, e);
}

int device_spawn(struct device *d, const struct device_start *s, struct err *e)
{
	int rc;

	d->child.os.fsize = d->class->fsize ? d->class->fsize(d) : 0;
	rc = child_spawn(&d->child, s->fds, s->nfds, e);
	if (rc)
		return rc;
	rc = child_send(&d->child, MSG_START, s->body, s->len, s->fds, s->nfds);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e)
{
	const int page = d->slot[d->desc.page_slot];
	const off_t at = (off_t)(DP_SHADOW_OFF + reg);
	uint32_t v;

	if (pread(page, &v, sizeof(v), at) != (ssize_t)sizeof(v))
		return err_sys(e, -errno, "device page");
	*before = v;
	v |= bits;
	if (pwrite(page, &v, sizeof(v), at) != (ssize_t)sizeof(v))
		return err_sys(e, -errno, "device page");
	return 0;
}
