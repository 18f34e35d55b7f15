/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vsock: one virtio-vsock device, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "vsock.h"

/* memory, page, call, irq, kicks; and perhaps the socket */
#define MIN_FDS ((int)(4 + VSOCK_QUEUES))

static int check(const void *start, struct err *e)
{
	const struct msg_start_vsock *m = start;
	int rc = vsock_check_conf(m, e);

	return rc ? rc : MIN_FDS + (m->flags & VSOCK_LISTENS ? 1 : 0);
}

static int open_device(void *dev, struct helper *h, const void *start, const int *fds,
		       const char **step, struct err *e)
{
	return vsockdev_open(dev, h, start, fds, step, e);
}

static void rules(const void *dev, struct rule_list *l)
{
	vsock_rules(dev, l);
}

static int attach(void *dev, struct helper *h, struct err *e)
{
	struct vsockdev *d = dev;

	return helper_attach(h, &d->ops, &d->w, e);
}

int main(void)
{
	static struct vsockdev dev;

	helper_main(&(struct helper_program){
		.start = MSG_START_VSOCK,
		.start_size = sizeof(struct msg_start_vsock),
		.log_level = offsetof(struct msg_start_vsock, log_level),
		.dev = &dev,
		.check = check,
		.open = open_device,
		.rules = rules,
		.attach = attach,
	});
}
