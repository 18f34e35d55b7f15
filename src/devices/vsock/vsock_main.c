/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vsock: one virtio-vsock device, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "vsock.h"

static int vsock_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_vsock *m = start;
	int rc = vsock_check_conf(m, e);

	if (!rc)
		rc = start_expect(f, START_KICK, VSOCK_QUEUES, e);
	return rc ? rc
		  : start_expect(f, START_OWN, m->flags & (VSOCK_LISTENS | VSOCK_VHOST) ? 1 : 0, e);
}

static int vsock_main_open_device(void *dev, struct helper *h, const void *start,
				  const struct start_fds *f, const char **step, struct err *e)
{
	return vsockdev_open(dev, h, start, f, step, e);
}

static void vsock_main_rules(const void *dev, struct rule_list *l)
{
	vsock_rules(dev, l);
}

static int vsock_main_attach(void *dev, struct helper *h, struct err *e)
{
	struct vsockdev *d = dev;

	return helper_attach(h, &d->ops, &d->w, e);
}

int main(void)
{
	static struct vsockdev dev;

	helper_main(&(struct helper_program){
		.tag = VSOCK_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_vsock),
		.dev = &dev,
		.check = vsock_main_check,
		.open = vsock_main_open_device,
		.rules = vsock_main_rules,
		.attach = vsock_main_attach,
	});
}
