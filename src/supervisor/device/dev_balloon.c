/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon as a device: the start message of insula-balloon, and what it says. */
#include <insula/base.h>

#include "dev_virtio.h"
#include "supervisor/backing/balloon.h"
#include "supervisor/control/control.h"
#include "supervisor/vm_common.h"

static int balloon_start(struct device *d, struct device_start *s, struct err *e)
{
	struct balloon_back *b = d->back.balloon;
	struct msg_start_balloon m = {.pages = balloon_pages(b),
				      .flags = b->conf->balloon.no_reports ? 0 : BALLOON_REPORT};

	(void)e;
	b->sent = m.pages;
	device_word(s, &m, sizeof(m));
	return 0;
}

static bool balloon_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			    size_t len)
{
	if (t == MSG_BALLOON_TAKEN)
		return balloon_taken(d, len);
	if (t != MSG_BALLOON_STATE || !balloon_said(d, body, len))
		return false;
	control_balloon(vm_control(vm), vm);
	return true;
}

const struct device_class device_balloon = {
	.program = "insula-balloon",
	.kind = "balloon",
	.tag = BALLOON_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_BALLOON,
	.threads = 3, /* control, I/O */
	.nofile = 32,
	.describe = dev_virtio_describe,
	.start = balloon_start,
	.message = balloon_message,
	.due = balloon_due,
	.tend = balloon_tend,
	.serves = balloon_serves,
	.stats = &stats_balloon,
};
