/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-rng is told: insula/start.h, and this. One kick. */
#ifndef DEVICES_RNG_START_H
#define DEVICES_RNG_START_H

#include <insula/proto.h>

#define RNG_START START_TAG('r', 'n', 'g', '1')

struct msg_start_rng {
	struct start_head head;
	uint64_t rate; /* bytes a second */
};

#endif
