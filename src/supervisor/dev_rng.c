/* SPDX-License-Identifier: BSD-2-Clause */
/* The source of random numbers as a device: the start message of insula-rng. */
#include <insula/base.h>
#include <insula/log.h>

#include "spec/config.h"
#include "device.h"

static int start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	const struct vm_config *c = d->back.conf;
	struct msg_start_rng m = {.mem = *map, .rate = c->rng_rate, .log_level = log_most()};

	return device_send_start(d, MSG_START_RNG, &m, sizeof(m), mem, -1, e);
}

const struct device_class device_rng = {
	.program = "insula-rng",
	.kind = DEV_VIRTIO_MMIO,
	.threads = 3, /* control, I/O */
	.nofile = 32,
	.start = start,
	.stats = &stats_rng,
};
