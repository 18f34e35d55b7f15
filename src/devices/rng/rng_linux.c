/* SPDX-License-Identifier: BSD-2-Clause */
/* The system calls of virtio-rng. See rng.h. */
#include <sys/syscall.h>

#include "rng.h"

void rng_rules(const struct rng *r, struct rule_list *l)
{
	worker_rules(&r->w, l, true);
	rule_any(l, SYS_getrandom, "what the device is for");
}
