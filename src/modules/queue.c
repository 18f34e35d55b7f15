/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of requests. See queue.h. */
#include <stddef.h>

#include "queue.h"

void queue_put(struct queue *q, struct module_req *r)
{
	r->next = NULL;
	if (q->first)
		q->last->next = r;
	else
		q->first = r;
	q->last = r;
}

void queue_put_first(struct queue *q, struct module_req *r)
{
	r->next = q->first;
	q->first = r;
	if (!r->next)
		q->last = r;
}

struct module_req *queue_take(struct queue *q)
{
	struct module_req *r = q->first;

	if (r)
		q->first = r->next;
	return r;
}

bool queue_take_out(struct queue *q, struct module_req *r)
{
	struct module_req **p = &q->first, *before = NULL;

	for (; *p && *p != r; p = &(*p)->next)
		before = *p;
	if (!*p)
		return false;
	*p = r->next;
	if (q->last == r)
		q->last = before;
	return true;
}

void queue_land(struct queue *to, struct queue *from)
{
	if (!from->first)
		return;
	from->last->next = to->first;
	if (!to->first)
		to->last = from->last;
	to->first = from->first;
	*from = (struct queue){0};
}

bool queue_has_older(const struct queue *q, uint64_t now_ns, uint64_t age_ns)
{
	for (const struct module_req *r = q->first; r; r = r->next) {
		if (now_ns - r->born_ns >= age_ns)
			return true;
	}
	return false;
}
