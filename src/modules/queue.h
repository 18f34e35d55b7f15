/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests of a lane that wait for a connection or for an answer, in their order. One thread. */
#ifndef MODULES_QUEUE_H
#define MODULES_QUEUE_H

#include <insula/module.h>

struct queue {
	struct module_req *first, *last;
};

void queue_put(struct queue *q, struct module_req *r);
void queue_put_first(struct queue *q, struct module_req *r);
/* NULL: it is empty. */
struct module_req *queue_take(struct queue *q);
/* False: it is not in there. */
bool queue_take_out(struct queue *q, struct module_req *r);
/* All of `from`, before what is in `to`. */
void queue_land(struct queue *to, struct queue *from);
/* Is there one that is so old? */
bool queue_has_older(const struct queue *q, uint64_t now_ns, uint64_t age_ns);

#endif
