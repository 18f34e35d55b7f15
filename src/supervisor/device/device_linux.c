/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on Linux: the page is written without being mapped. See device.h. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "device.h"

static int write_head(int fd, struct err *e)
{
	const struct {
		uint32_t magic, size;
	} head = {DP_MAGIC, DP_SIZE};

	_Static_assert(offsetof(struct dp_ctrl, magic) == 0 && offsetof(struct dp_ctrl, size) == 4,
		       "the head of struct dp_ctrl");
	if (pwrite(fd, &head, sizeof(head), DP_CTRL_OFF) != (ssize_t)sizeof(head))
		return err_sys(e, -errno, "device page");
	return 0;
}

int device_page(struct err *e)
{
	int fd = shm_create("insula-device", DP_SIZE, e), rc;

	if (fd < 0)
		return fd;
	rc = write_head(fd, e);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

/* A hole where there was something: what is mapped there is zeros from now on. */
int device_page_renew(int page, struct err *e)
{
	if (fallocate(page, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, DP_SIZE))
		return err_sys(e, -errno, "device page");
	return write_head(page, e);
}

int device_child_init(struct device *d, const char *libexec, struct err *e)
{
	const struct device_class *c = d->class;
	unsigned more = d->nqueues ? d->nqueues - 1 : 0;

	child_none(&d->child);
	if (!c->program)
		return 0;
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
