/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vfio: one PCI function of the host, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "vfio.h"

static int vfio_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_vfio *m = start;
	bool maps = m->flags & VFIO_MAPS;
	int rc = assigned_check_conf(m, e);

	if (!rc)
		rc = start_expect(f, START_OWN, maps ? 2 : 1, e);
	if (!rc)
		rc = start_expect(f, START_MEMORY, maps, e);
	return rc ? rc : start_expect(f, START_KICK, 0, e);
}

static int vfio_main_open_device(void *dev, struct helper *h, const void *start,
				 const struct start_fds *f, const char **step, struct err *e)
{
	return assigned_open(dev, h, start, f, step, e);
}

static void vfio_main_rules(const void *dev, struct rule_list *l)
{
	assigned_rules(dev, l);
}

static int vfio_main_attach(void *dev, struct helper *h, struct err *e)
{
	return helper_attach(h, &assigned_ops, dev, e);
}

int main(void)
{
	static struct assigned assigned;

	helper_main(&(struct helper_program){
		.tag = VFIO_START,
		.assigned = true,
		.start_size = sizeof(struct msg_start_vfio),
		.dev = &assigned,
		.check = vfio_main_check,
		.open = vfio_main_open_device,
		.rules = vfio_main_rules,
		.attach = vfio_main_attach,
	});
}
