/* SPDX-License-Identifier: BSD-2-Clause */
/* The source of random numbers as a device: the start message of insula-rng. */
#include <insula/base.h>

#include "devices/rng/rng_start.h"
#include "spec/config.h"

#include "dev_virtio.h"

static int rng_start(struct device *d, struct device_start *s, struct err *e)
{
	const struct vm_config *c = d->back.conf;
	struct msg_start_rng m = {.rate = c->rng_rate};

	(void)e;
	device_word(s, &m, sizeof(m));
	return 0;
}

const struct device_class device_rng = {
	.program = "insula-rng",
	.kind = "rng",
	.tag = RNG_START,
	.memory = true,
	.virtio = true,
	.virtio_id = VIRTIO_ID_RNG,
	.threads = 3, /* control, I/O */
	.nofile = 32,
	.describe = dev_virtio_describe,
	.start = rng_start,
	.stats = &stats_rng,
};
