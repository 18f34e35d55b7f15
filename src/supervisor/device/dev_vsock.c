/* SPDX-License-Identifier: BSD-2-Clause */
/* The vsock device: the start message of insula-vsock. */
#include <string.h>

#include <insula/base.h>

#include "devices/vsock/vsock_start.h"

#include "dev_virtio.h"
#include "supervisor/backing/vsock_os.h"

static int vsock_start(struct device *d, struct device_start *s, struct err *e)
{
	struct vsock *v = d->back.vsock;
	struct msg_start_vsock m = {.guest_cid = v->cid, .max_conns = vsock_conns(d)};
	int own = -1, rc = vsock_reach(v, &own, &s->once[0], e);

	if (rc < 0)
		return rc;
	m.flags = (uint32_t)rc;
	device_word(s, &m, sizeof(m));
	if (own >= 0)
		device_add(s, own);
	return 0;
}

/* The helper's guest wants a stream. What it can reach is decided by the system's side: nothing but
 * what is next to the one that was named. */
static bool vsock_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			  size_t len)
{
	struct msg_vsock_connect q;

	(void)vm;
	if (t != MSG_VSOCK_CONNECT || len != sizeof(q))
		return false;
	memcpy(&q, body, sizeof(q));
	return vsock_wanted(d, &q);
}

static const char *vsock_unsaved_so(const struct device *d)
{
	return d->back.vsock->vhost
		       ? "vhost=on: the kernel's part of its streams cannot be part of a snapshot"
		       : NULL;
}

const struct device_class device_vsock = {
	.program = "insula-vsock",
	.kind = "vsock",
	.tag = VSOCK_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_VSOCK,
	.unsaved_so = vsock_unsaved_so,
	.threads = 3, /* control, I/O; with vhost=on the kernel's worker, from Linux 6.4 on */
	.nofile = VSOCK_MAX_CONNS + VSOCK_OTHER_FDS,
	.describe = dev_virtio_describe,
	.start = vsock_start,
	.message = vsock_message,
	.due = vsock_due,
	.tend = vsock_tend,
	.serves = vsock_serves,
	.stats = &stats_vsock,
};
