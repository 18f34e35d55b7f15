/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that is added while the guest runs, as a device: the start message of insula-mem, and what
 * it says. */
#include <insula/base.h>

#include "dev_virtio.h"
#include "supervisor/backing/added.h"
#include "supervisor/control/control.h"
#include "supervisor/vm_common.h"

static int mem_start(struct device *d, struct device_start *s, struct err *e)
{
	const struct msg_start_mem m = {.requested = d->back.added->requested};

	(void)e;
	device_word(s, &m, sizeof(m));
	return 0;
}

static bool mem_message(struct vm *vm, struct device *d, enum msg_type t, const void *body,
			size_t len)
{
	if (t == MSG_MEM_TAKEN)
		return added_taken(d, len);
	if (t != MSG_MEM_STATE || !added_said(d, body, len))
		return false;
	control_memory(vm_control(vm), vm);
	return true;
}

const struct device_class device_mem = {
	.program = "insula-mem",
	.kind = "mem",
	.tag = VMEM_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_MEM,
	.threads = 3, /* control, I/O */
	.nofile = 32,
	.describe = dev_virtio_describe,
	.start = mem_start,
	.message = mem_message,
	.due = added_due,
	.tend = added_tend,
	.serves = added_serves,
	.stats = &stats_mem,
};
