/* SPDX-License-Identifier: BSD-2-Clause */
/* An interrupt line. See line.h. */
#include "line.h"

static int set_message(struct line *l, uint64_t addr, uint32_t data, struct err *e)
{
	int rc;

	if (l->routed && l->addr == addr && l->data == data)
		return 0;
	rc = l->ops->route(l->vm, l->number, addr, data, e);
	l->routed = rc == 0;
	l->addr = addr;
	l->data = data;
	return rc;
}

int line_deliver(struct line *l, uint64_t addr, uint32_t data, struct err *e)
{
	int rc = set_message(l, addr, data, e);

	if (rc || l->bound)
		return rc;
	rc = l->ops->bind(l->vm, l->number, l->event, e);
	l->bound = rc == 0;
	return rc;
}

int line_hold(struct line *l, struct err *e)
{
	int rc = l->bound ? l->ops->unbind(l->vm, l->number, l->event, e) : 0;

	if (rc == 0)
		l->bound = false;
	return rc;
}
