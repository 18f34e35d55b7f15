/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-mem: one virtio-mem device, in a jail of its own. Its stages are in program.h. */
#include "devices/program.h"
#include "mem.h"

static int vmem_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	int rc = vmem_check_conf(start, e);

	if (!rc)
		rc = start_expect(f, START_KICK, VMEM_QUEUES, e);
	return rc ? rc : start_expect(f, START_OWN, 0, e);
}

static int vmem_main_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
			  const char **step, struct err *e)
{
	return vmem_open(dev, h, start, f, step, e);
}

static void vmem_main_rules(const void *dev, struct rule_list *l)
{
	vmem_rules(dev, l);
}

static int vmem_main_attach(void *dev, struct helper *h, struct err *e)
{
	struct vmem *b = dev;

	return helper_attach(h, &b->ops, &b->w, e);
}

int main(void)
{
	static struct vmem vmem;

	helper_main(&(struct helper_program){
		.tag = VMEM_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_mem),
		.dev = &vmem,
		.check = vmem_main_check,
		.open = vmem_main_open,
		.rules = vmem_main_rules,
		.attach = vmem_main_attach,
	});
}
