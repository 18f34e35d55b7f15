/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio-rng (virtio 1.2, 5.4): the host kernel's getrandom() for the guest.
 *
 * One request gives at most RNG_REQUEST_MAX bytes, whatever the buffer could take (5.4.6: at least
 * one byte is enough), and all requests together no more than the rate: a guest that asks for ever
 * costs the host a bounded share of one processor.
 */
#ifndef DEVICES_RNG_H
#define DEVICES_RNG_H

#include "rng_start.h"
#include "devices/bucket.h"
#include "devices/worker.h"

#define RNG_TAG 0x31474e52u /* "RNG1" */
#define RNG_REQUEST_MAX 4096u
#define RNG_BUDGET 16u /* requests of one turn */

struct rng {
	struct worker w;
	struct bucket bucket; /* the I/O thread's */
	struct iovec iov[VQ_MAX_NUM];
};

/* Is this a message that can be obeyed? -EINVAL says what is not. */
int rng_check_conf(const struct msg_start_rng *m, struct err *e);
/* The descriptors of its start message are taken over. *step is what failed. */
int rng_open(struct rng *r, struct helper *h, const struct msg_start_rng *m,
	     const struct start_fds *f, const char **step, struct err *e);
void rng_rules(const struct rng *r, struct rule_list *l);
/* One turn of the I/O thread. True: there is more to do at once. */
bool rng_turn(struct rng *r);

#endif
